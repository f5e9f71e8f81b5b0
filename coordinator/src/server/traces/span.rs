//! What a trace is made of.

use nightjar_shared::ids::{DeviceId, LeaseId, RunId};
use std::time::SystemTime;

/// Takes spans, wherever they go.
pub trait Spans: Send + Sync {
    /// Whether this trace is wanted. It goes by the trace's id alone, so all processes say the same.
    fn wants(&self, trace: Trace) -> bool;
    /// Takes one, and never waits: one too many is lost.
    fn take(&self, span: Span);
}

/// The trace of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What tells it from others.
    pub id: [u8; 16],
    /// The span of the whole lease: all others are parts of it.
    pub whole: [u8; 8],
}

impl Trace {
    /// That of a lease. A device that is given the same number twice, after an old backup was restored, adds to one.
    pub fn of(run: RunId, lease: LeaseId, device: DeviceId) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("nightjar 2026 trace of a lease");
        hash.update(&run.0).update(&lease.0.to_le_bytes()).update(&device.0);
        let (mut id, mut whole, mut bytes) = ([0; 16], [0; 8], hash.finalize_xof());
        bytes.fill(&mut id);
        bytes.fill(&mut whole);
        Trace { id, whole }
    }
}

/// What is known of something, by names.
pub type About = Vec<(&'static str, Value)>;

/// Something that was done for a lease, and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The lease's trace.
    pub trace: Trace,
    /// What was done.
    pub name: &'static str,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is known of it.
    pub attributes: About,
    /// Why it came to nothing, if it did.
    pub fault: Option<String>,
}

/// What is known of a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A whole number.
    Number(u64),
    /// Any other.
    Real(f64),
}

impl Value {
    /// Words that are known before.
    pub fn text(words: &str) -> Self {
        Value::Text(words.to_owned())
    }
}

impl Span {
    /// The name of the span of a whole lease.
    pub const WHOLE: &'static str = "lease";

    /// Whether it is the span of the whole lease.
    pub fn is_whole(&self) -> bool {
        self.name == Span::WHOLE
    }

    /// With one thing more that is known of it.
    pub(super) fn with(mut self, name: &'static str, value: Value) -> Self {
        self.attributes.push((name, value));
        self
    }

    /// Come to nothing for this reason; `None`: it has not.
    pub(super) fn failed(self, why: Option<&str>) -> Self {
        Span { fault: why.map(str::to_owned), ..self }
    }
}
