//! What an offer says was done, checked once against its lease: whoever has a [`Work`] need not doubt its numbers.

use super::{
    ahead::AHEAD_S_MAX,
    bounds::{CALENDAR_SLACK_S, CLOCK_DRIFT, CLOCK_SLACK_S, LOSS_MAX},
    leases::OpenLease,
    record::LeaseRecord,
};
use nightjar_shared::{
    lease::Trained,
    run_spec::RunSpec,
    time::{Mono, Wall},
};
use std::{ops::RangeInclusive, time::Duration};

/// An offer that does not fit its lease; the sentence is for the device's log.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(super) enum WorkError {
    #[error("The lease was not for training.")]
    NotTraining,
    #[error("A delta of this run is named by 32 bytes and is {least} to {most} bytes long.")]
    Blob { least: u64, most: u64 },
    #[error("{steps} steps on {samples} samples do not fit a lease of {leased} steps.")]
    Steps { steps: u32, samples: u32, leased: u32 },
    #[error("A loss is not a number of nats.")]
    Loss,
    #[error("It says it trained for longer than the lease has existed.")]
    TooLong,
}

impl WorkError {
    /// What an offer is told that names no delta, or one of another length than is `allowed`.
    pub fn blob(allowed: &RangeInclusive<u64>) -> Self {
        WorkError::Blob { least: *allowed.start(), most: *allowed.end() }
    }
}

/// Work as an offer tells it, within what can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// At least one step and at most the lease's, on their batches of samples, in no more time than the lease can have
    /// taken; a delta as long as one of this run can be.
    pub trained: Trained,
    /// Tokens trained on.
    pub tokens: u64,
}

impl Work {
    /// Checks what an offer says against its lease. `allowed` is what a delta's length can be.
    pub fn of(
        trained: Trained,
        spec: &RunSpec,
        allowed: &RangeInclusive<u64>,
        lease: &OpenLease,
        now: Mono,
        wall: Wall,
    ) -> Result<Work, WorkError> {
        let LeaseRecord { kind, steps: leased, samples: samples_leased, issued_at, .. } = lease.record;
        if !kind.trains() {
            return Err(WorkError::NotTraining);
        }
        let Trained { steps, samples, loss_first, loss_last, delta, .. } = trained;
        if !allowed.contains(&delta.bytes) {
            return Err(WorkError::blob(allowed));
        }
        let used = u64::from(steps) * u64::from(spec.inner.batch_samples);
        if steps == 0 || steps > leased || u64::from(samples) != used || samples > samples_leased {
            return Err(WorkError::Steps { steps, samples, leased });
        }
        if ![loss_first, loss_last].iter().all(|loss| (-LOSS_MAX..=LOSS_MAX).contains(loss)) {
            return Err(WorkError::Loss);
        }
        let train = trained.time();
        let slack = |s: f64| Duration::from_secs_f64(s);
        // This machine may have been suspended, or its process started anew: then only the calendar knows.
        let known = wall.since(issued_at).max(now.since(lease.born));
        let (known, most) = if lease.spans_restart {
            // What was trained ahead before it is forgotten.
            let known = known + slack(AHEAD_S_MAX);
            (known, known.mul_f64(CLOCK_DRIFT) + slack(CALENDAR_SLACK_S))
        } else {
            (known, known.mul_f64(CLOCK_DRIFT) + slack(CLOCK_SLACK_S))
        };
        if train > most {
            return Err(WorkError::TooLong);
        }
        let train = if lease.spans_restart { train.min(known) } else { train };
        let tokens = u64::from(samples) * spec.tokens_per_sample();
        Ok(Work { trained: Trained { train_ms: millis(train), ..trained }, tokens })
    }
}

/// Whole milliseconds, as many as a ledger's integer holds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(i64::MAX.cast_unsigned())
}
