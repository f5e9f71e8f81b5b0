//! What a worker says of its lease, held against the lease. The worker is the half that loads drivers and reads what
//! came over the network, so its words count no more than a stranger's: what cannot be ends it, and what is taken is in
//! types that hold nothing else. Names of files are not taken at all: they follow from the lease.

use super::{Session, Training};
use crate::{journal::PendingDelta, lease::Lease};
use nightjar_shared::{
    delta::{self, CodecId},
    lease::{LeaseKind, Trained},
    run_spec::{DeltaSpec, RunSpec},
    time::Mono,
    wire::{
        limits,
        worker::{self, from_worker::Body},
    },
    work_files,
};
use std::time::Duration;

/// Training is told to have taken no longer than there was time for it. The worker begins and ends before its agent
/// hears of it, which on a slow disk may be busy with something else.
const TIME_SLACK: Duration = Duration::from_secs(60);
/// No lease is that old. Of one that an earlier process was given, nobody knows when that was.
const LEASE_AGE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// Sentences about what a lease had to do without.
const LOST_MAX: usize = 4;

/// What a worker said that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker said what cannot be: {0}")]
pub struct Untrue(pub &'static str);

/// What a worker said, as far as it concerns the session.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    /// It is ready, on this device.
    Ready { device: String },
    /// How far it is.
    Progress(Training),
    /// It was stopped before its first step.
    NoStep { lost: Vec<String> },
    /// It has trained its lease, may have kept the weights that it started from, and had to do without what was lost.
    Trained { delta: PendingDelta, weights: bool, lost: Vec<String> },
    /// All steps ahead of the next lease are taken.
    AheadOver,
    /// It has measured: the sum of nats, and the number of tokens.
    Evaluated { nats: f64, tokens: u64, weights: bool },
    /// It could not.
    Failed(Failure),
    /// Nothing that concerns the session.
    Nothing,
}

/// Why a worker could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub why: String,
    /// The weights that it was given do not fit together.
    pub base_is_wrong: bool,
    /// The disk refused.
    pub disk_failed: bool,
}

impl Session {
    /// Whether what a worker says can be, as things stand.
    pub fn vet(&self, body: &Body, now: Mono) -> Result<(), Untrue> {
        self.claim(body, now).map(drop)
    }

    pub(super) fn claim(&self, body: &Body, now: Mono) -> Result<Claim, Untrue> {
        match body {
            Body::Ready(ready) => Ok(Claim::Ready { device: limits::tame(&ready.device) }),
            Body::Progress(said) => {
                self.terms(said.lease_id, LeaseKind::Train, now)?.progress(said).map(Claim::Progress)
            }
            Body::Trained(said) => self.terms(said.lease_id, LeaseKind::Train, now)?.trained(said),
            Body::Evaluated(said) => self.terms(said.lease_id, LeaseKind::Evaluate, now)?.evaluated(said),
            Body::Failed(failed) if self.working() => {
                let (base_is_wrong, disk_failed) = (failed.base_is_wrong, failed.disk_failed);
                Ok(Claim::Failed(Failure { why: limits::tame(&failed.sentence), base_is_wrong, disk_failed }))
            }
            Body::AheadOver(over) if self.ahead().is_some_and(|ahead| ahead.of.0 == over.lease_id) => {
                Ok(Claim::AheadOver)
            }
            // What fails beside a lease comes to nothing, as does what is over already; what is saved concerns whoever
            // asked for it.
            Body::Failed(_) | Body::Saved(_) | Body::AheadOver(_) => Ok(Claim::Nothing),
        }
    }

    /// What there is to say about this lease of this kind, which the worker must be at work on.
    fn terms(&self, lease_id: u64, kind: LeaseKind, now: Mono) -> Result<Terms<'_>, Untrue> {
        let lease = self.journal.lease.as_ref().filter(|_| self.is_at_work_on(lease_id));
        let lease = lease.ok_or(Untrue("it speaks of a lease that it does not work on"))?;
        if lease.kind != kind {
            return Err(Untrue("its lease is of another kind"));
        }
        let spec = self.spec().ok_or(Untrue("there is no run"))?;
        let time = self.course.since.map_or(LEASE_AGE_MAX, |since| now.since(since) + TIME_SLACK);
        Ok(Terms { lease, spec, train_ms_max: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) })
    }
}

/// What bounds a worker's words.
struct Terms<'a> {
    lease: &'a Lease,
    spec: &'a RunSpec,
    train_ms_max: u64,
}

/// Refuses what is not so.
fn holds(is_so: bool, what: &'static str) -> Result<(), Untrue> {
    if is_so { Ok(()) } else { Err(Untrue(what)) }
}

impl Terms<'_> {
    fn tokens_max(&self) -> u64 {
        u64::from(self.lease.samples).saturating_mul(self.spec.tokens_per_sample())
    }

    fn progress(&self, said: &worker::Progress) -> Result<Training, Untrue> {
        holds(said.steps <= self.lease.steps, "it made more steps than its lease has")?;
        holds(said.tokens <= self.tokens_max(), "it trained on more tokens than its lease has")?;
        holds(said.loss.is_finite(), "its loss is no number")?;
        holds(said.train_ms <= self.train_ms_max, "it trained for longer than it has had its lease")?;
        Ok(Training { steps: said.steps, loss: said.loss, tokens: said.tokens, train_ms: said.train_ms })
    }

    fn trained(&self, said: &worker::Trained) -> Result<Claim, Untrue> {
        if said.steps == 0 {
            return Ok(Claim::NoStep { lost: lost(said) });
        }
        let lease = self.lease;
        let trained = Trained::from_worker(said).ok_or(Untrue("its delta has no hash"))?;
        holds(trained.steps <= lease.steps, "it made more steps than its lease has")?;
        // A step has a sample at least, and at most what the run says.
        let samples_max = u64::from(trained.steps) * u64::from(self.spec.inner.batch_samples);
        let samples_fit =
            (trained.steps..=lease.samples).contains(&trained.samples) && u64::from(trained.samples) <= samples_max;
        holds(samples_fit, "its samples are not those of its steps")?;
        holds(trained.train_ms <= self.train_ms_max, "it trained for longer than it has had its lease")?;
        holds(trained.loss_first.is_finite() && trained.loss_last.is_finite(), "its loss is no number")?;
        let delta = delta_spec(lease, self.spec).ok_or(Untrue("its lease has no codec"))?;
        let length_fits = delta::bytes_allowed(&self.spec.model, &delta).contains(&trained.delta.bytes);
        holds(length_fits, "its delta is longer or shorter than any of this run")?;
        let (residual, optimizer) = (work_files::residual(lease.id), work_files::optimizer(lease.id));
        let (file, weights) = (work_files::delta(lease.id), work_files::weights(lease.base_version));
        let names_fit = said.delta_file == file
            && [(&said.residual_file, &residual), (&said.optimizer_file, &optimizer), (&said.weights_file, &weights)]
                .into_iter()
                .all(|(said, name)| said.is_empty() || said == name);
        holds(names_fit, "it names files that are not those of its lease")?;
        let delta = PendingDelta {
            trained,
            file,
            residual: if said.residual_file.is_empty() { String::new() } else { residual },
            optimizer: if said.optimizer_file.is_empty() { String::new() } else { optimizer },
        };
        Ok(Claim::Trained { delta, weights: !said.weights_file.is_empty(), lost: lost(said) })
    }

    fn evaluated(&self, said: &worker::Evaluated) -> Result<Claim, Untrue> {
        holds(said.tokens == self.tokens_max(), "it measured on other tokens than its lease has")?;
        let name = work_files::weights(self.lease.base_version);
        holds(
            said.weights_file.is_empty() || said.weights_file == name,
            "it names files that are not those of its lease",
        )?;
        if !said.nats.is_finite() || said.nats < 0.0 {
            // Weights that blew up have no loss, which is not the worker's fault.
            let why = "the measured loss is no number".into();
            return Ok(Claim::Failed(Failure { why, base_is_wrong: false, disk_failed: false }));
        }
        Ok(Claim::Evaluated { nats: said.nats, tokens: said.tokens, weights: !said.weights_file.is_empty() })
    }
}

/// What a lease had to do without, in so many sentences at most.
fn lost(said: &worker::Trained) -> Vec<String> {
    said.lost.iter().take(LOST_MAX).map(|what| limits::tame(what)).collect()
}

/// How the delta of a lease is encoded.
pub fn delta_spec(lease: &Lease, spec: &RunSpec) -> Option<DeltaSpec> {
    Some(DeltaSpec { codec: CodecId::from_number(lease.codec)?, ..spec.delta.clone() })
}

#[cfg(test)]
mod tests;
