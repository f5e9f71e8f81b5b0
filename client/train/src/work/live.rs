//! What can change while a lease is being trained: what the owner allows, and that a checkpoint is wanted. Written by
//! whoever hears the agent, read between micro-batches.

use super::duty;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared between the thread that listens and the one that trains.
#[derive(Debug)]
pub struct Live {
    /// The bits of an `f64`.
    duty: AtomicU64,
    memory_bytes: AtomicU64,
    checkpoint: AtomicBool,
    /// Signs of life of the steps at hand.
    signs: AtomicU64,
    in_steps: AtomicBool,
}

impl Default for Live {
    /// All is allowed and nothing asked for.
    fn default() -> Self {
        Live {
            duty: AtomicU64::new(1f64.to_bits()),
            memory_bytes: AtomicU64::new(u64::MAX),
            checkpoint: AtomicBool::new(false),
            signs: AtomicU64::new(0),
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

    /// Share of the time that may be spent computing, within bounds whatever was said: nonsense counts as the least.
    pub fn duty(&self) -> f64 {
        let duty = f64::from_bits(self.duty.load(Ordering::Relaxed));
        if duty.is_finite() { duty.clamp(duty::DUTY_MIN, 1.0) } else { duty::DUTY_MIN }
    }

    /// Bytes that the process may take; `u64::MAX`: as many as it likes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    /// Inner steps begin, or end.
    pub(super) fn set_in_steps(&self, is: bool) {
        self.in_steps.store(is, Ordering::Relaxed);
    }

    /// They move, or rest as they are meant to.
    pub(super) fn give_sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// How many signs of life there were; `None` while no inner steps are made.
    pub fn signs(&self) -> Option<u64> {
        self.in_steps.load(Ordering::Relaxed).then(|| self.signs.load(Ordering::Relaxed))
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
