//! What a session tells about itself.

use super::{Link, Permission, Question, Session, Stage, Timer, Upload, Worker};
use crate::journal::Totals;
use nightjar_shared::{
    lease::{LeaseKind, Trained},
    run_spec::RunSpec,
    time::Mono,
};
use serde::{Deserialize, Serialize};

/// How far the worker is with the lease at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Inner steps taken.
    pub steps: u32,
    /// Loss of the last one, nats a token.
    pub loss: f64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Time in inner steps.
    pub train_ms: u64,
}

/// A session at one glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What it does now, in a few words.
    pub doing: String,
    /// Whether a worker trains or measures at this moment.
    pub working: bool,
    /// Whether the coordinator has welcomed it.
    pub online: bool,
    /// The lease at hand, if any.
    pub lease: Option<u64>,
    /// Its inner steps.
    pub lease_steps: u32,
    /// How far the worker is with it.
    pub training: Training,
    /// The newest weights on the disk.
    pub version: Option<u64>,
    /// What was delivered so far.
    pub totals: Totals,
    /// What stands in the way of the next lease on this device itself.
    #[serde(default)]
    pub trouble: Option<String>,
    /// State from earlier leases that the last one had to do without, since its file is gone or damaged; it is made
    /// anew.
    #[serde(default)]
    pub lost_state: Option<String>,
}

fn some(words: &str) -> Option<String> {
    (!words.is_empty()).then(|| words.to_owned())
}

/// With nothing to do, and nothing to ask before a while has passed.
const WAITING: &str = "waiting for work";

impl Session {
    /// What it does, and what it has done.
    pub fn status(&self) -> Status {
        let lease = self.journal.lease.as_ref();
        let mut doing = self.doing().to_owned();
        let is_put_off = matches!(self.line.link, Link::Up { .. }) && self.timers.pending(Timer::Request);
        let is_offered = self.stage == (Stage::Delivering { upload: Upload::Unasked });
        if is_put_off && is_offered && !self.computes() {
            doing = "its delta is done, and is taken a little later".into();
        }
        if is_put_off && self.words.over.is_none() && !self.computes() && !self.words.told.is_empty() {
            doing = format!("{doing}; the coordinator says: {}", self.words.told);
        }
        Status {
            doing,
            working: self.computes(),
            online: self.greeted(),
            lease: lease.map(|l| l.id.0),
            lease_steps: lease.map_or(0, |l| l.steps),
            training: self.last_training(),
            version: self.journal.weights.as_ref().map(|w| w.version.0),
            totals: self.journal.totals.clone(),
            trouble: self.disk_refuses().map(|(why, _)| why.to_owned()).or_else(|| some(&self.words.trouble)),
            lost_state: some(&self.words.lost_state),
        }
    }

    /// Whether it may well train as fast as such a cap on tokens a second allows: it does, or nobody knows yet.
    pub fn is_at_pace(&self, tokens_per_s_max: f64) -> bool {
        /// Below this share of the cap it is something else that makes it slow.
        const SHARE: f64 = 0.8;
        let Training { tokens, train_ms, .. } = self.course.training;
        train_ms == 0 || tokens as f64 * 1000.0 >= SHARE * tokens_per_s_max * train_ms as f64
    }

    /// Why the coordinator has no lease for it, where that is for want of memory: what training takes, in bytes.
    pub fn lacks_memory(&self) -> Option<u64> {
        let is_refused = self.journal.lease.is_none() && !self.words.told.is_empty() && self.words.over.is_none();
        let needed = is_refused.then(|| self.spec()).flatten()?.model.training_bytes();
        (self.memory_may() < needed).then_some(needed)
    }

    /// How far the worker is with the lease at hand, or came before its delta was there.
    fn last_training(&self) -> Training {
        let Some(delta) = &self.journal.delta else { return self.course.training };
        let tokens_per_sample = self.spec().map_or(0, RunSpec::tokens_per_sample);
        let Trained { steps, samples, train_ms, loss_last, .. } = delta.trained;
        let tokens = u64::from(samples).saturating_mul(tokens_per_sample);
        Training { steps, loss: loss_last, tokens, train_ms }
    }

    /// Why there is no connection, where one was tried.
    pub fn offline(&self) -> Option<&str> {
        let is_down = matches!(self.line.link, Link::Down | Link::Connecting);
        (is_down && !self.words.offline.is_empty()).then_some(self.words.offline.as_str())
    }

    /// How often in a row the worker has failed.
    pub fn worker_failures(&self) -> u32 {
        self.timers.attempts(Timer::Work)
    }

    /// The coordinator's words for the run's end, while it is over.
    pub fn run_over(&self) -> Option<&str> {
        self.words.over.as_deref()
    }

    /// Why there is no connection while it trains, and when it connects again, if not just now.
    pub fn is_cut_off(&self) -> Option<(&str, Option<Mono>)> {
        let cut_off = self.computes() && !matches!(self.line.link, Link::Up { .. }) && !self.words.offline.is_empty();
        cut_off.then(|| (self.words.offline.trim_end_matches('.'), self.timers.at(Timer::Reconnect)))
    }

    fn is_yielding(&self) -> bool {
        matches!(self.permission, Some(Permission::Yield { .. }))
    }

    fn doing(&self) -> &'static str {
        if self.parting.leaving {
            return "leaving the run";
        }
        if self.parting.closing {
            return "ending";
        }
        match (self.worker(), &self.journal.lease) {
            (Worker::Busy, _) if self.is_yielding() => return "frozen, to go on later",
            (Worker::Stopping, _) => return "stopping at the next step",
            (Worker::Busy, Some(lease)) => {
                return match lease.kind {
                    LeaseKind::Train => "training",
                    LeaseKind::Evaluate => "measuring held-out loss",
                };
            }
            (Worker::Busy | Worker::Idle | Worker::Off, _) => {}
        }
        if self.computes() {
            return "training ahead while a delta travels";
        }
        if self.journal.delta.is_some() {
            return if self.greeted() {
                "delivering a delta"
            } else {
                "waiting for the coordinator to deliver a delta"
            };
        }
        if matches!(self.stage, Stage::Returning { .. }) {
            return "giving a lease back";
        }
        if self.permission != Some(Permission::Allowed) {
            return "holding";
        }
        if self.obstacle().is_some() {
            return "waiting until this device can train";
        }
        if self.disk_refuses().is_some() {
            return "waiting for the disk";
        }
        if self.setback().is_some() {
            return "waiting before it asks for another lease";
        }
        if self.words.over.is_some() && self.timers.pending(Timer::Request) {
            return "the run is over";
        }
        match self.line.link {
            Link::Down | Link::Connecting => "connecting",
            Link::Up { greeted: false } => "saying hello",
            Link::Up { greeted: true } if self.journal.lease.is_some() => "fetching what the lease needs",
            Link::Up { greeted: true } if matches!(self.line.asked, Some((_, Question::Lease))) => "asking for a lease",
            Link::Up { greeted: true } => WAITING,
        }
    }
}
