//! Looking: the sensors and the preferences go in, the policy decides, and what it decides takes effect. When the owner
//! wants the computer this instant the worker is frozen here, before anything else happens.

use super::{Agent, LOOK_EVERY, POLICY_FILE, wall_now};
use crate::{
    home::Home,
    pause::PAUSE_FILE,
    policy::{self, Decision, Hurry, Memory, Observation, Outcome, Reason, ReasonKind},
    preferences::Preferences,
    sensor::Wants,
    session::{self, Setback},
};
use jiff::Zoned;
use nightjar_shared::{disk::Disk, time::Mono};
use std::time::Duration;

/// No reading of the free memory is older.
const READING_MAX: Duration = Duration::from_secs(15);
/// By then all sensors have answered, or will not.
const READY_MAX: Duration = Duration::from_secs(15);
/// Until the sensors have been asked once.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the owner's preferences need to know.
pub(super) fn wants(home: &Home, preferences: &Preferences) -> Wants {
    Wants {
        home: home.folder().to_path_buf(),
        programs: preferences.programs.clone(),
        idle: Duration::from_secs(60 * preferences.idle_minutes.unwrap_or(10)),
    }
}

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
        if self.unforgotten {
            self.forget();
        }
        let civil = Zoned::now();
        self.look_at_clocks(now);
        self.count_traffic(&civil);
        let is_new = now.since(self.begun) < READY_MAX;
        if self.decision == Decision::starting() && !self.sensors.ready() && is_new {
            // A sensor that is still being asked is not one that cannot tell; one that does not come back is.
            self.next_look = now + FIRST_LOOK_EVERY;
            return;
        }
        let mut seen = self.sensors.observe();
        seen.data_this_month = self.history.data_this_month(&civil);
        let wanted = self.preferences.preferences();
        let outcome = policy::decide(wanted, self.word.says(), &seen, &self.memory, &civil, now);
        let outcome = self.in_a_run(self.with_disk(self.with_damage(outcome)));
        let of_gpu = self.ready.as_ref().is_some_and(|ready| ready.gpu);
        let permission = outcome.permission(of_gpu || self.preferences.preferences().free_memory_on_yield);
        let Outcome { decision, network, hurry, memory } = outcome;
        let decision = self.with_no_work(decision, &civil, now);
        let kind = |decision: &Decision| match decision {
            Decision::Run { .. } => None,
            Decision::Hold { reason, .. } => Some(reason.kind),
        };
        let turned = kind(&decision) != kind(&self.decision);
        self.decision = decision.on(self.cores);
        self.take_effect(hurry, now);
        self.memory = memory;
        self.count_memory(&seen, now);
        self.on_battery = seen.power.known().is_some_and(|power| !power.on_mains);
        self.waiting.push_back(session::Event::Network(network));
        self.waiting.push_back(session::Event::Permission(permission));
        self.staff_due(now);
        // The disk may be slow: whatever reads or writes comes after the owner has their computer back.
        if turned {
            self.remember();
        }
        // What it says of itself is true only once the session has heard of it.
        self.unnoted = true;
        self.record(&civil, now);
        self.look_at_files(now);
    }

    /// A pause that nobody has made is not said to be the owner's.
    fn with_damage(&self, mut outcome: Outcome) -> Outcome {
        if let Decision::Hold { reason, .. } = &mut outcome.decision
            && reason.kind == ReasonKind::Paused
            && self.word.is_damaged()
        {
            reason.sentence =
                "its file of pauses is damaged, which counts as a pause; `nightjar resume` lets it go on".into();
        }
        outcome
    }

    /// Whatever the owner allows, in no run there is nothing to train.
    fn in_a_run(&self, outcome: Outcome) -> Outcome {
        match &self.member {
            Ok(_) => outcome,
            Err(why) => {
                let decision = match &self.unread {
                    Some(_) => Decision::Hold { reason: Reason::new(ReasonKind::Disk, unread(why)), until: None },
                    None => Decision::not_joined(why),
                };
                // The system still waits for whoever has asked it to wait before it sleeps.
                let hurry = if outcome.hurry == Hurry::Sleep { Hurry::Sleep } else { Hurry::None };
                Outcome { decision, hurry, ..outcome }
            }
        }
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
                self.sleep_delay = None;
                self.thaw();
                self.limit(limits, now);
            }
            (Decision::Hold { .. }, Hurry::None) => {}
            (Decision::Hold { .. }, Hurry::Now | Hurry::NowWithMemory) => self.freeze(),
            (Decision::Hold { .. }, Hurry::Sleep) => self.doze(now),
        }
    }

    /// What training may take: what was free before there was a worker, or has become free since, but for the owner's
    /// floor, and within their cap. What a GPU's own memory holds is not known.
    pub(super) fn count_memory(&mut self, seen: &Observation, now: Mono) {
        let floor = self.preferences.preferences().memory_mib_min.unwrap_or(0) << 20;
        let free = seen.memory_free.known().map(|free| free.saturating_sub(floor));
        let free = free.filter(|_| !self.ready.as_ref().is_some_and(|ready| ready.gpu));
        if self.worker.is_some() {
            self.worker_seen = Some(now);
        }
        // A reading is a few seconds old, and may be of when there still was one.
        let is_lowered = self.worker_seen.is_some_and(|at| now.since(at) < READING_MAX);
        self.free_memory = if is_lowered { self.free_memory.max(free) } else { free };
        let cap = match &self.decision {
            Decision::Run { limits, .. } => limits.memory_bytes,
            Decision::Hold { .. } => u64::MAX,
        };
        let allowed = self.free_memory.unwrap_or(u64::MAX).min(cap);
        self.session.set_memory(if allowed == u64::MAX { 0 } else { allowed.max(1) });
    }

    fn look_at_clocks(&mut self, now: Mono) {
        let since = self.clocks.look(now, wall_now());
        if let Some(seconds) = since.jumped_s {
            let way = if seconds < 0 { "back" } else { "forward" };
            self.tell(&format!(
                "the clock was set {way} by {} s; leases and pauses go by a clock of their own",
                seconds.abs()
            ));
            self.word.clock_was_set(&*self.disk, wall_now(), now);
        }
        if let Some(slept) = since.slept
            && self.online.is_some()
        {
            // The coordinator has given the connection up long ago; waiting to find out would cost time.
            let lost = self.lost(format!("nothing ran here for {} s", slept.as_secs()));
            self.waiting.push_back(lost);
        }
    }

    /// What somebody has written since the last look counts from the next one on, which comes at once.
    fn look_at_files(&mut self, now: Mono) {
        if self.word.look(&*self.disk, wall_now(), now) {
            self.next_look = now;
            self.tell_of_damage();
        }
        if self.preferences.reload_if_changed() {
            self.preferences_changed();
            self.next_look = now;
        }
        let error = self.preferences.error().map(ToString::to_string);
        if error != self.config_error {
            if let Some(error) = &error {
                self.tell(&format!("trouble: {error}; the last good preferences stay in force"));
            }
            self.config_error = error;
        }
    }

    /// Says why it is paused if nobody has paused it.
    pub(super) fn tell_of_damage(&mut self) {
        if self.word.is_damaged() {
            let path = self.disk.path(PAUSE_FILE);
            self.tell(&format!("{} is damaged, which counts as a pause: `nightjar resume` ends it", path.display()));
        }
    }

    /// The owner's new word takes effect at once.
    pub(super) fn preferences_changed(&mut self) {
        let wanted = self.preferences.preferences().clone();
        self.memory = self.memory.of_the_computer();
        self.sensors.set_wants(wants(&self.home, &wanted));
        let written_max = wanted.write_mib_day_max.map(|mib| mib << 20);
        self.session.set_wishes(wanted.checkpoint_s * 1000, written_max);
        if self.worker.as_ref().is_some_and(|hired| hired.chosen != wanted.device) {
            self.replace_worker();
        }
        self.waiting.push_back(session::Event::Retry);
        self.next_tidy = crate::clock::mono_now();
        self.tell("the preferences have changed");
    }

    /// Writes what the policy remembers: some of it moves with every key that is pressed, so only when it decides
    /// otherwise.
    pub(super) fn remember(&mut self) {
        let written =
            serde_json::to_vec(&self.memory).map_err(Into::into).and_then(|bytes| self.disk.write(POLICY_FILE, &bytes));
        if let Err(e) = written {
            tracing::warn!("what the policy remembers cannot be written ({e}); it is kept in memory");
        }
    }
}
