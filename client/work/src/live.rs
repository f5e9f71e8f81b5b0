//! What can change while a lease is being trained: what the owner allows, and that a checkpoint is wanted. Written by
//! whoever hears the agent, read between micro-batches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The least share of the time: below it nothing would ever be finished.
pub const DUTY_MIN: f64 = 0.01;
/// The least cap on tokens a second, for the same reason.
const TOKENS_PER_S_MIN: f64 = 1.0;

/// Shared between the thread that listens and the one that trains.
#[derive(Debug)]
pub struct Live {
    /// The bits of an `f64`.
    duty: AtomicU64,
    memory_bytes: AtomicU64,
    /// The bits of an `f64`.
    tokens_per_s_max: AtomicU64,
    checkpoint: AtomicBool,
    /// Signs of life of the job at hand.
    signs: AtomicU64,
    at_work: AtomicBool,
    in_steps: AtomicBool,
}

/// Signs of life of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// So many there were.
    pub count: u64,
    /// Whether steps are being made, which give one at every gate; what is around them reads, writes and encodes whole
    /// models without a word.
    pub in_steps: bool,
}

/// While it lives, a job is at hand, or its steps are.
pub struct At<'a> {
    live: &'a Live,
    what: &'a AtomicBool,
}

impl<'a> At<'a> {
    fn begin(live: &'a Live, what: &'a AtomicBool) -> Self {
        what.store(true, Ordering::Relaxed);
        At { live, what }
    }
}

impl Drop for At<'_> {
    fn drop(&mut self) {
        self.what.store(false, Ordering::Relaxed);
        self.live.give_sign();
    }
}

impl Default for Live {
    /// All is allowed and nothing asked for.
    fn default() -> Self {
        Live {
            duty: AtomicU64::new(1f64.to_bits()),
            memory_bytes: AtomicU64::new(u64::MAX),
            tokens_per_s_max: AtomicU64::new(0),
            checkpoint: AtomicBool::new(false),
            signs: AtomicU64::new(0),
            at_work: AtomicBool::new(false),
            in_steps: AtomicBool::new(false),
        }
    }
}

impl Live {
    /// From now on: this share of the time (see [`Live::duty`]), and so many bytes of memory; 0: as many as it likes.
    pub fn allow(&self, duty: f64, memory_bytes: u64) {
        self.duty.store(duty.to_bits(), Ordering::Relaxed);
        self.memory_bytes.store(if memory_bytes == 0 { u64::MAX } else { memory_bytes }, Ordering::Relaxed);
    }

    /// From now on: no more tokens a second than this (see [`Live::tokens_per_s_max`]).
    pub fn cap(&self, tokens_per_s_max: f64) {
        self.tokens_per_s_max.store(tokens_per_s_max.to_bits(), Ordering::Relaxed);
    }

    /// Tokens a second that may be trained on; `None`: as many as it can. Never less than one, whatever was said.
    pub fn tokens_per_s_max(&self) -> Option<f64> {
        let cap = f64::from_bits(self.tokens_per_s_max.load(Ordering::Relaxed));
        // What is no number forbids as much as it can.
        if cap <= 0.0 { None } else { Some(cap.max(TOKENS_PER_S_MIN)) }
    }

    /// Share of the time that may be spent computing, within bounds whatever was said: nonsense counts as the least.
    pub fn duty(&self) -> f64 {
        let duty = f64::from_bits(self.duty.load(Ordering::Relaxed));
        if duty.is_finite() { duty.clamp(DUTY_MIN, 1.0) } else { DUTY_MIN }
    }

    /// Bytes that the process may take; `u64::MAX`: as many as it likes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// A job begins; it ends with what this gives.
    pub fn at_work(&self) -> At<'_> {
        At::begin(self, &self.at_work)
    }

    /// Its steps begin, or a measurement.
    pub fn in_steps(&self) -> At<'_> {
        At::begin(self, &self.in_steps)
    }

    /// They move, or rest as they are meant to.
    pub fn give_sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Signs of life; `None` while there is no job.
    pub fn signs(&self) -> Option<Signs> {
        let (count, in_steps) = (self.signs.load(Ordering::Relaxed), self.in_steps.load(Ordering::Relaxed));
        (in_steps || self.at_work.load(Ordering::Relaxed)).then_some(Signs { count, in_steps })
    }

    /// Asks for a checkpoint at the next micro-step.
    pub fn ask_checkpoint(&self) {
        self.checkpoint.store(true, Ordering::Relaxed);
    }

    /// Whether one is asked for.
    pub fn checkpoint_asked(&self) -> bool {
        self.checkpoint.load(Ordering::Relaxed)
    }

    /// Whether one was asked for; it is not any more.
    pub fn take_checkpoint(&self) -> bool {
        self.checkpoint.swap(false, Ordering::Relaxed)
    }
}
