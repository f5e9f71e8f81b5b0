//! One trace a lease: what was done for it, from the request that it was granted to until its delta is in a published
//! version. A trace's ids follow from its lease, so doors, their leader and the one after it add to the same trace
//! and tell each other nothing of it. What is remembered here is in the ledger too; where nobody takes spans, nothing
//! is.

#[cfg(feature = "otel")]
pub mod otlp;
mod span;

pub use span::{About, Span, Spans, Trace, Value};

use super::{
    catalog::{Entry, Location},
    news::News,
};
use crate::{
    engine::record::{DeltaRecord, LeaseOutcome, LeaseRecord, Record},
    store::Lineage,
};
use nightjar_shared::{
    ids::{DeviceId, LeaseId, RunId},
    time::Wall,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// The variables that name a collector, as OpenTelemetry has them. Without either nothing is traced.
pub const COLLECTOR: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The traces of a run's leases. Clones are the same.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Tracer>>);

struct Tracer {
    run: RunId,
    spans: Arc<dyn Spans>,
    leases: Mutex<Leases>,
}

/// Leases whose traces are wanted and go on.
#[derive(Default)]
struct Leases {
    open: HashMap<LeaseId, Traced>,
    /// The newest lease of each device: what it fetches is for that one.
    of_device: HashMap<DeviceId, LeaseId>,
    /// Those whose delta is merged, and in no version yet, by its place among all.
    merged: VecDeque<(u64, Traced)>,
    /// When the version at hand was begun.
    publishing: Option<SystemTime>,
}

/// A lease as its trace has it.
struct Traced {
    trace: Trace,
    lease: LeaseId,
    device: DeviceId,
    began: SystemTime,
    /// What else is known of it.
    about: About,
    /// Whether its device was told of it. A lease may be told again.
    is_told: bool,
    /// Since when its delta is being looked at.
    screening: Option<SystemTime>,
}

impl Traced {
    fn span(&self, name: &'static str, began: SystemTime) -> Span {
        let attributes = vec![
            ("nightjar.lease", Value::Number(self.lease.0)),
            ("nightjar.device", Value::Text(self.device.short())),
        ];
        Span { trace: self.trace, name, began, ended: SystemTime::now(), attributes, fault: None }
    }

    /// The span of the whole lease, which ends now.
    fn whole(mut self, outcome: LeaseOutcome) -> Span {
        let mut whole = self.span(Span::WHOLE, self.began).with("nightjar.outcome", Value::text(outcome.name()));
        whole.attributes.append(&mut self.about);
        whole
    }
}

impl Traces {
    /// Of a run, to wherever its spans go.
    pub fn new(spans: Option<Arc<dyn Spans>>, run: RunId) -> Self {
        Traces(spans.map(|spans| Arc::new(Tracer { run, spans, leases: Mutex::default() })))
    }

    /// Takes up what a start finds: leases that have not ended, and deltas that are in no version yet.
    pub fn take_up(&self, open: &[LeaseRecord], lineage: &Lineage) {
        let Some(tracer) = &self.0 else { return };
        let through_seq = lineage.versions.last().map_or(0, |newest| newest.through_seq);
        for delta in lineage.after(through_seq).unwrap_or_default() {
            let began = before(at(delta.merged_at), Duration::from_millis(delta.wall_ms));
            tracer.open(delta.lease, delta.device, began, true, vec![]);
            tracer.close(delta.lease, |lease, leases| leases.merged.push_back((delta.seq, lease)));
        }
        open.iter().for_each(|lease| tracer.issued(lease, true));
    }

    /// A door hears what was written.
    pub fn heard(&self, news: &News) {
        let Some(tracer) = &self.0 else { return };
        match news {
            News::LeaseOpened { id, device, .. } => tracer.open(*id, *device, SystemTime::now(), true, vec![]),
            News::LeaseClosed(id) => tracer.close(*id, |_, _| ()),
            News::Member(_) | News::DeltaMerged { .. } | News::Published(_) | News::Revoked(_) => {}
        }
    }

    /// A record is in the ledger.
    pub fn recorded(&self, record: &Record) {
        let Some(tracer) = &self.0 else { return };
        match record {
            Record::LeaseIssued(lease) => tracer.issued(lease, false),
            Record::Delta(delta) => tracer.accepted(delta),
            Record::LeaseClosed { id, outcome, .. } => tracer.ended(*id, *outcome),
            Record::Version(version) => tracer.published(version.version.0, version.through_seq),
            Record::Device(_)
            | Record::Evaluation(_)
            | Record::DeviceRevoked { .. }
            | Record::InviteRevoked { .. }
            | Record::Paused(_)
            | Record::Extended { .. }
            | Record::Series(_)
            | Record::Audit(_) => {}
        }
    }

    /// A device is told of its lease; the request for it came then.
    pub fn granted(&self, lease: LeaseId, came: Instant) {
        let Some(tracer) = &self.0 else { return };
        if let Some(lease) = tracer.lock().open.get_mut(&lease).filter(|lease| !lease.is_told) {
            (lease.is_told, lease.began) = (true, since(came));
            let mut span = lease.span("grant", lease.began);
            span.attributes.extend(lease.about.iter().cloned());
            tracer.spans.take(span);
        }
    }

    /// A device begins to fetch a blob.
    pub fn fetches(&self, device: DeviceId, blob: Option<&Entry>, offset: u64) -> Doing {
        let (Some(tracer), Some(blob)) = (&self.0, blob) else { return Doing(None) };
        let name = match blob.location() {
            Location::Dataset => "fetch shard",
            Location::State => "fetch version",
        };
        let lease = tracer.lock().of_device.get(&device).copied();
        lease.map_or(Doing(None), |lease| tracer.doing(device, lease, name, blob.bytes).from(offset))
    }

    /// A device begins to upload its delta for a lease.
    pub fn uploads(&self, device: DeviceId, lease: LeaseId, bytes: u64) -> Doing {
        self.0.as_ref().map_or(Doing(None), |tracer| tracer.doing(device, lease, "upload", bytes))
    }

    /// The delta that came for a lease is about to be looked at.
    pub fn screens(&self, lease: LeaseId) {
        let Some(tracer) = &self.0 else { return };
        if let Some(lease) = tracer.lock().open.get_mut(&lease) {
            lease.screening = Some(SystemTime::now());
        }
    }

    /// The delta with this place among all was added to the buffer.
    pub fn merged(&self, seq: u64, begun: Instant) {
        let Some(tracer) = &self.0 else { return };
        let leases = tracer.lock();
        if let Ok(place) = leases.merged.binary_search_by_key(&seq, |(seq, _)| *seq) {
            tracer.spans.take(leases.merged[place].1.span("merge", since(begun)));
        }
    }

    /// A version is made, and about to be written down.
    pub fn publishes(&self, begun: Instant) {
        let Some(tracer) = &self.0 else { return };
        tracer.lock().publishing = Some(since(begun));
    }
}

impl Tracer {
    fn lock(&self) -> MutexGuard<'_, Leases> {
        // What a panic leaves behind is whole, and at most one span short.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issued(&self, lease: &LeaseRecord, is_told: bool) {
        let about = vec![
            ("nightjar.kind", Value::text(lease.kind.name())),
            ("nightjar.base_version", Value::Number(lease.base_version.0)),
            ("nightjar.steps", Value::Number(lease.steps.into())),
            ("nightjar.samples", Value::Number(lease.samples.into())),
        ];
        self.open(lease.id, lease.device, at(lease.issued_at), is_told, about);
    }

    fn open(&self, lease: LeaseId, device: DeviceId, began: SystemTime, is_told: bool, about: About) {
        let trace = Trace::of(self.run, lease, device);
        if self.spans.wants(trace) {
            let mut leases = self.lock();
            leases.of_device.insert(device, lease);
            leases.open.insert(lease, Traced { trace, lease, device, began, about, is_told, screening: None });
        }
    }

    /// Nothing more comes of a lease's device.
    fn close(&self, lease: LeaseId, then: impl FnOnce(Traced, &mut Leases)) {
        let mut leases = self.lock();
        let Some(traced) = leases.open.remove(&lease) else { return };
        if leases.of_device.get(&traced.device) == Some(&lease) {
            leases.of_device.remove(&traced.device);
        }
        then(traced, &mut leases);
    }

    fn accepted(&self, delta: &DeltaRecord) {
        self.close(delta.lease, |lease, leases| {
            let screen = lease.span("screen", lease.screening.unwrap_or_else(SystemTime::now));
            let screen = screen.with("nightjar.tokens", Value::Number(delta.tokens));
            let screen = screen.with("nightjar.staleness", Value::Number(delta.staleness));
            self.spans.take(screen.with("nightjar.norm", Value::Real(delta.norm)));
            leases.merged.push_back((delta.seq, lease));
        });
    }

    /// A lease has ended; one whose delta was accepted goes on until that is in a version.
    fn ended(&self, lease: LeaseId, outcome: LeaseOutcome) {
        let fault = match outcome {
            LeaseOutcome::ScreenedOut => Some("its delta was not accepted"),
            LeaseOutcome::Expired => Some("its deadline passed"),
            LeaseOutcome::Merged | LeaseOutcome::Returned | LeaseOutcome::Evaluated => None,
        };
        self.close(lease, |lease, _| {
            if let (Some(began), LeaseOutcome::ScreenedOut) = (lease.screening, outcome) {
                self.spans.take(lease.span("screen", began).failed(fault));
            }
            self.spans.take(lease.whole(outcome).failed(fault));
        });
    }

    fn published(&self, version: u64, through_seq: u64) {
        let mut leases = self.lock();
        let began = leases.publishing.take().unwrap_or_else(SystemTime::now);
        while let Some((_, lease)) = leases.merged.pop_front_if(|(seq, _)| *seq <= through_seq) {
            let in_version = |span: Span| span.with("nightjar.version", Value::Number(version));
            self.spans.take(in_version(lease.span("publish", began)));
            self.spans.take(in_version(lease.whole(LeaseOutcome::Merged)));
        }
    }

    fn doing(self: &Arc<Self>, device: DeviceId, lease: LeaseId, name: &'static str, bytes: u64) -> Doing {
        let leases = self.lock();
        let Some(lease) = leases.open.get(&lease).filter(|lease| lease.device == device) else { return Doing(None) };
        let span = lease.span(name, SystemTime::now()).with("nightjar.bytes", Value::Number(bytes));
        Doing(Some((self.clone(), span.failed(Some("it was broken off")))))
    }
}

/// Something on its way for a lease. Dropped, it has ended: broken off, if nothing else was said.
pub struct Doing(Option<(Arc<Tracer>, Span)>);

impl Doing {
    fn change(&mut self, change: impl FnOnce(Span) -> Span) {
        self.0 = self.0.take().map(|(tracer, span)| (tracer, change(span)));
    }

    /// It goes on from this byte.
    pub fn from(mut self, offset: u64) -> Self {
        self.change(|span| span.with("nightjar.offset", Value::Number(offset)));
        self
    }

    /// The device is told that it may not, and why.
    pub fn refused(&mut self, why: &str) {
        self.change(|span| span.failed(Some(why)));
    }

    /// It has come to its end.
    pub fn done(&mut self) {
        self.change(|span| span.failed(None));
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        if let Some((tracer, span)) = self.0.take() {
            tracer.spans.take(Span { ended: SystemTime::now(), ..span });
        }
    }
}

fn at(wall: Wall) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(wall.unix_ms)).unwrap_or_else(SystemTime::now)
}

fn before(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// By the calendar.
fn since(begun: Instant) -> SystemTime {
    before(SystemTime::now(), begun.elapsed())
}

#[cfg(test)]
mod tests;
