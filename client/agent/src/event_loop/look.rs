//! Looking: the sensors and the preferences go in, the policy decides, and what it decides takes effect. When the owner
//! wants the computer this instant the worker is frozen here, before anything else happens.

use super::{Agent, LOOK_EVERY, participation::RunState};
use crate::{
    policy::{self, Decision, Hurry, Memory, Outcome, Reason, ReasonKind},
    session::{self, Setback},
};
use jiff::Zoned;
use nightjar_shared::{disk::Disk, time::Mono};
use std::time::Duration;

/// Until the sensors have been asked once.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the policy remembers, in the home folder.
const POLICY_FILE: &str = "policy.json";

/// What the policy remembered; what is damaged is forgotten, which costs no more than a fresh start does.
pub(super) fn remembered(disk: &dyn Disk) -> Memory {
    let bytes = disk.read(POLICY_FILE).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn unread(why: &str) -> String {
    format!("{why}, so its journal cannot be read; training goes on by itself once that works again")
}

impl Agent {
    /// Looks at everything, and decides.
    pub(super) fn look(&mut self, now: Mono) {
        self.next_look = now + LOOK_EVERY;
        self.take_up_again();
        if self.participation.unforgotten {
            self.forget();
        }
        let civil = Zoned::now();
        self.look_at_clocks(now);
        self.count_traffic(&civil);
        if self.decision == Decision::starting() && !self.computer.is_known(now) {
            self.next_look = now + FIRST_LOOK_EVERY;
            return;
        }
        let mut seen = self.computer.observe();
        seen.data_this_month = self.records.history.data_this_month(&civil);
        let wanted = self.owner.wants();
        let outcome = policy::decide(wanted, self.owner.word.says(), &seen, &self.memory, &civil, now);
        let outcome = self.in_a_run(self.with_disk(self.owner.with_damage(outcome)));
        let permission = outcome.permission(self.worker.is_on_gpu() || wanted.free_memory_on_yield);
        let Outcome { decision, network, hurry, memory } = outcome;
        let decision = self.with_no_work(decision, &civil, now);
        let kind = |decision: &Decision| match decision {
            Decision::Run { .. } => None,
            Decision::Hold { reason, .. } => Some(reason.kind),
        };
        let turned = kind(&decision) != kind(&self.decision);
        self.decision = decision.on(self.device.cores);
        self.take_effect(hurry, now);
        self.memory = memory;
        self.count_memory(&seen, now);
        self.waiting.push_back(session::Event::Network(network));
        self.waiting.push_back(session::Event::Permission(permission));
        self.worker_due(now);
        // The disk may be slow: whatever reads or writes comes after the owner has their computer back.
        if turned {
            self.remember();
        }
        // What it says of itself is true only once the session has heard of it.
        self.records.unnoted = true;
        self.record(&civil, now);
        self.look_at_files(now);
    }

    /// Whatever the owner allows, in no run there is nothing to train.
    fn in_a_run(&self, outcome: Outcome) -> Outcome {
        let decision = match &self.participation.run {
            RunState::In(_) => return outcome,
            RunState::Unread { why, .. } => {
                Decision::Hold { reason: Reason::new(ReasonKind::Disk, unread(why)), until: None }
            }
            RunState::Out(why) => Decision::not_joined(why),
        };
        // The system still waits for whoever has asked it to wait before it sleeps.
        let hurry = if outcome.hurry == Hurry::Sleep { Hurry::Sleep } else { Hurry::None };
        Outcome { decision, hurry, ..outcome }
    }

    /// Where there is nothing to train, whatever the owner allows, that is what is told: the session waits by itself.
    fn with_no_work(&self, decision: Decision, civil: &Zoned, now: Mono) -> Decision {
        let is_told = |kind| matches!(&decision, Decision::Hold { reason, .. } if reason.kind <= kind);
        if let Some(words) = self.session.run_over()
            && !is_told(ReasonKind::RunOver)
        {
            let sentence = session::run_is_over(words.trim_end_matches('.'));
            return Decision::Hold { reason: Reason::new(ReasonKind::RunOver, sentence), until: None };
        }
        match self.session.setback() {
            Some(setback) if setback.holds && matches!(decision, Decision::Run { .. }) => {
                let (Setback { count, why, .. }, until) = (&setback, civil.checked_add(setback.until.since(now)).ok());
                let sentence =
                    format!("the last {count} leases came to nothing ({why}); it tries another one after a while");
                Decision::Hold { reason: Reason::new(ReasonKind::Fruitless, sentence), until }
            }
            _ => decision,
        }
    }

    /// Freezes the worker, or lets it go on within the limits.
    fn take_effect(&mut self, hurry: Hurry, now: Mono) {
        match (&self.decision, hurry) {
            (Decision::Run { limits, .. }, _) => {
                let limits = *limits;
                self.computer.sleep_delay = None;
                self.worker.thaw();
                self.limit(limits, now);
            }
            (Decision::Hold { .. }, Hurry::None) => {}
            (Decision::Hold { .. }, Hurry::Now | Hurry::NowWithMemory) => self.freeze(),
            (Decision::Hold { .. }, Hurry::Sleep) => self.prepare_sleep(now),
        }
    }

    /// Writes what the policy remembers: some of it moves with every key that is pressed, so only when it decides
    /// otherwise.
    pub(super) fn remember(&mut self) {
        let bytes = serde_json::to_vec(&self.memory).map_err(Into::into);
        let written = bytes.and_then(|bytes| self.home.disk().write(POLICY_FILE, &bytes));
        if let Err(e) = written {
            tracing::warn!("what the policy remembers cannot be written ({e}); it is kept in memory");
        }
    }
}
