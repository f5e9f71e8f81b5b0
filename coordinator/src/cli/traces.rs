//! Traces, where the environment names a collector as OpenTelemetry has it.

use super::Failure;
#[cfg(feature = "otel")]
use nightjar_coordinator::server::traces::otlp::Otlp;
use nightjar_coordinator::server::traces::{COLLECTOR, Spans};
use std::{env, sync::Arc};

/// Traces on their way to a collector; dropped, what still waits is sent.
#[derive(Default)]
pub struct Delivery {
    #[cfg(feature = "otel")]
    to: Option<Arc<Otlp>>,
}

impl Delivery {
    /// To the collector that the environment names, if it names one.
    pub fn begin(run: &str) -> Result<Self, Failure> {
        if !COLLECTOR.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty())) {
            return Ok(Delivery::default());
        }
        #[cfg(feature = "otel")]
        return Ok(Delivery { to: Some(Arc::new(Otlp::new(run).map_err(Failure::input)?)) });
        #[cfg(not(feature = "otel"))]
        {
            tracing::warn!(
                run,
                "a collector is named, but this program sends no traces: build it with `--features otel`"
            );
            Ok(Delivery::default())
        }
    }

    /// What takes a run's spans.
    pub fn spans(&self) -> Option<Arc<dyn Spans>> {
        #[cfg(feature = "otel")]
        return self.to.clone().map(|to| to as Arc<dyn Spans>);
        #[cfg(not(feature = "otel"))]
        None
    }
}

#[cfg(feature = "otel")]
impl Drop for Delivery {
    fn drop(&mut self) {
        self.to.iter().for_each(|to| to.end());
    }
}
