//! Spans on their way to a collector, by OTLP over HTTP. They wait in a bounded queue and are sent from a thread of
//! their own, by OpenTelemetry's own means and variables; what does not fit, or is not taken, is lost.

use super::{About, COLLECTOR, Span, Spans, Trace, Value};
use crate::store::bucket::http;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{
        BatchSpanProcessor, IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample, SpanData,
        SpanEvents, SpanLinks, SpanProcessor,
    },
};
use std::{
    borrow::Cow,
    env, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, time::timeout};

/// How long a collector may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long what still waits at the end is sent.
const END_MAX: Duration = Duration::from_millis(500);
/// The service's name, where nobody gives another.
const SERVICE: &str = "nightjar-coordinator";

/// Traces that cannot be sent as they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// What the environment says of the collector.
    #[error("the variables OTEL_EXPORTER_OTLP_… cannot be followed: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The HTTP client.
    #[error("no collector can be reached: {0}")]
    Http(#[from] io::Error),
    /// The sampler.
    #[error(
        "OTEL_TRACES_SAMPLER={0} is not known here: it is always_on, always_off or traceidratio, the last with \
         OTEL_TRACES_SAMPLER_ARG between 0 and 1"
    )]
    Sampler(String),
}

/// See the module.
pub struct Otlp {
    processor: BatchSpanProcessor,
    sampler: Sampler,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
}

impl Otlp {
    /// To where the environment says. A runtime must be there.
    pub fn new(run: &str) -> Result<Self, OtlpError> {
        let sampler = sampler(&variable("OTEL_TRACES_SAMPLER"), &variable("OTEL_TRACES_SAMPLER_ARG"))?;
        let exporter = SpanExporter::builder().with_http().with_http_client(Sender::new()?).build()?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        let attributes = [KeyValue::new("nightjar.run", run.to_owned())];
        let mut resource = Resource::builder().with_attributes(attributes);
        if variable("OTEL_SERVICE_NAME").is_empty() {
            resource = resource.with_service_name(SERVICE);
        }
        processor.set_resource(&resource.build());
        let scope = InstrumentationScope::builder(SERVICE).with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Otlp { processor, sampler, ids: RandomIdGenerator::default(), scope })
    }

    /// Sends what still waits, for a moment. Blocks, and needs the runtime meanwhile.
    pub fn end(&self) {
        // Whoever waits no longer for a collector has said so in the log.
        let _ = self.processor.shutdown_with_timeout(END_MAX);
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The sampler of this name. One that goes by a parent is the same: each process decides as if it began the trace.
fn sampler(name: &str, argument: &str) -> Result<Sampler, OtlpError> {
    let unknown = || OtlpError::Sampler(name.to_owned());
    match name.strip_prefix("parentbased_").unwrap_or(name) {
        "" | "always_on" => Ok(Sampler::AlwaysOn),
        "always_off" => Ok(Sampler::AlwaysOff),
        "traceidratio" => {
            let ratio = if argument.is_empty() { 1.0 } else { argument.parse().map_err(|_| unknown())? };
            (0.0..=1.0).contains(&ratio).then_some(Sampler::TraceIdRatioBased(ratio)).ok_or_else(unknown)
        }
        _ => Err(unknown()),
    }
}

fn attributes(about: About) -> Vec<KeyValue> {
    let told = |(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX)),
        Value::Real(real) => KeyValue::new(name, real),
    };
    about.into_iter().map(told).collect()
}

impl Spans for Otlp {
    fn wants(&self, trace: Trace) -> bool {
        let id = TraceId::from_bytes(trace.id);
        let asked = self.sampler.should_sample(None, id, Span::WHOLE, &SpanKind::Internal, &[], &[]);
        asked.decision == SamplingDecision::RecordAndSample
    }

    fn take(&self, span: Span) {
        let whole = SpanId::from_bytes(span.trace.whole);
        let (id, parent_span_id) =
            if span.is_whole() { (whole, SpanId::INVALID) } else { (self.ids.new_span_id(), whole) };
        let trace = TraceId::from_bytes(span.trace.id);
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id,
            parent_span_is_remote: true,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(span.name),
            start_time: span.began,
            end_time: span.ended,
            attributes: attributes(span.attributes),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.fault.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// Sends requests from the coordinator's runtime, whoever waits for them.
#[derive(Clone, Debug)]
struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    /// Whether the last one was in vain: the log is told when that changes.
    is_away: Arc<AtomicBool>,
}

impl Sender {
    fn new() -> io::Result<Self> {
        // The system's roots are asked for only where they are needed.
        let is_plain = COLLECTOR.iter().all(|name| !variable(name).starts_with("https:"));
        Ok(Sender { client: http::client(is_plain)?, runtime: Handle::current(), is_away: Arc::default() })
    }

    async fn send(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    fn note(&self, trouble: Option<String>) {
        match (self.is_away.swap(trouble.is_some(), Ordering::Relaxed), trouble) {
            (false, Some(why)) => tracing::warn!(why, "traces cannot be delivered, and are lost meanwhile"),
            (true, None) => tracing::warn!("traces are delivered again"),
            (true, Some(_)) | (false, None) => {}
        }
    }
}

impl HttpClient for Sender {
    fn send_bytes<'a, 'c>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'c>>
    where
        'a: 'c,
        Self: 'c,
    {
        let sender = self.clone();
        // The thread that waits has no runtime.
        let sending = self.runtime.spawn(async move { timeout(ANSWER_MAX, sender.send(request)).await });
        Box::pin(async move {
            let answer = match sending.await? {
                Ok(answer) => answer,
                Err(late) => Err(late.into()),
            };
            self.note(match &answer {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("the collector answers {}", answer.status())),
                Err(error) => Some(error.to_string()),
            });
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_is_known_by_its_name() {
        let known = |name, argument| sampler(name, argument).map(|sampler| format!("{sampler:?}")).ok();
        assert_eq!(known("", ""), Some("AlwaysOn".into()));
        assert_eq!(known("parentbased_always_off", ""), Some("AlwaysOff".into()));
        assert_eq!(known("traceidratio", "0.25"), Some("TraceIdRatioBased(0.25)".into()));
        for (name, argument) in [("traceidratio", "2"), ("traceidratio", "x"), ("traceidratio", "NaN"), ("jaeger", "")]
        {
            assert_eq!(known(name, argument), None, "{name} {argument}");
        }
    }
}
