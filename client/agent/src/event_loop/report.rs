//! How the agent stands, put together for whoever asks.

use super::{Agent, worker::WorkerSlot};
use crate::{
    clock,
    control::{
        AgentStatus, Ends, Facts, LeftAlone, LimitsStatus, RunStatus, SensorStatus, Summary, Why, Word, WordKind,
        WorkerStatus, timestamp,
    },
    policy::{Decision, Override, ProfileName, ReasonKind},
    preferences::Policy,
    sensor::size,
};
use jiff::{SignedDuration, Zoned};
use nightjar_shared::time::Mono;

impl Agent {
    pub(super) fn status(&self) -> AgentStatus {
        let now = Zoned::now();
        let (limits, profile) = match &self.decision {
            Decision::Run { limits, profile } => (Some(limits), Some(*profile)),
            Decision::Hold { .. } => (None, None),
        };
        let (why, owner, id) = (self.why(), self.word(&now), self.device.id());
        AgentStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            name: self.participation.member().map_or_else(|| id.clone(), |member| member.membership.name.clone()),
            device: id,
            summary: self.summary(&why, owner.as_ref()),
            why,
            owner,
            run: self.run(),
            session: self.session.status(),
            totals: self.records.history.totals(),
            today: self.records.history.today(&now),
            energy_source: self.records.meters.source(),
            sensors: self.sensor_statuses(),
            limits: limits.map(|limits| LimitsStatus {
                duty: limits.duty,
                threads: limits.threads,
                memory_bytes: Some(limits.memory_bytes).filter(|bytes| *bytes < u64::MAX),
            }),
            profile,
            slowed: self.slowed(),
            sandbox: self.worker.ready.as_ref().map_or_else(Vec::new, |ready| ready.sandbox.clone()),
            worker: self.worker.status(),
            config_error: self.owner.config_error.clone(),
        }
    }

    /// Why training takes less than it could, if it does.
    fn slowed(&self) -> Option<String> {
        let cap = match &self.decision {
            Decision::Run { limits, .. } => {
                Some(limits.tokens_per_s_max).filter(|cap| *cap > 0.0 && self.session.is_at_pace(*cap))
            }
            Decision::Hold { .. } => None,
        };
        let reasons =
            [self.memory.slowed().map(str::to_owned), cap.map(|cap| format!("your cap of {cap} tokens a second"))];
        let reasons: Vec<String> = reasons.into_iter().flatten().collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// The run that it is in, in the words of whoever runs it.
    fn run(&self) -> Option<RunStatus> {
        let name = self.participation.run_name()?.to_owned();
        let spec = self.session.spec();
        let told = spec.is_some();
        let (sentence, operator) =
            spec.map(|spec| (spec.description.clone(), spec.operator.clone())).unwrap_or_default();
        Some(RunStatus { name, told, sentence, operator })
    }

    /// How it stands, for whoever looks at it from a distance: the page, and the tray.
    pub(super) fn summary(&self, why: &Why, word: Option<&Word>) -> Summary {
        let session = self.session.status();
        Summary::of(&Facts {
            why,
            in_run: self.participation.member().is_some(),
            is_new: self.participation.is_new(),
            computes: session.working,
            offline: self.session.offline(),
            wrong_key: self.connection.wrong_key,
            failures: self.session.worker_failures(),
            trouble: session.trouble.as_deref(),
            left_alone: &self.worker.status().left_alone,
            config_error: self.owner.config_error.as_deref(),
            word,
            ends: why.kind.map_or(Ends::AsItsKind, |kind| self.ends(kind)),
            capped: self.capped(),
        })
    }

    /// What ends a hold of this kind, as things are here.
    fn ends(&self, kind: ReasonKind) -> Ends {
        /// Where less than this is free, no preference makes room.
        const FULL_BYTES: u64 = 64 << 20;
        let wanted = self.owner.wants();
        let only = |is_only: bool| if is_only { Ends::Preference } else { Ends::AsItsKind };
        let beyond = |floor: Option<u64>, all: Option<u64>| floor.zip(all).is_some_and(|(mib, all)| mib << 20 > all);
        match kind {
            ReasonKind::DataCap => only(wanted.data_mib_month_max == Some(0)),
            ReasonKind::Disk if self.session.disk_refuses().is_some() || self.participation.is_unread() => {
                Ends::Elsewhere
            }
            ReasonKind::Disk => match size::disk(self.home.folder()) {
                Some((_, all)) if beyond(wanted.disk_mib_min, Some(all)) => Ends::Preference,
                Some((free, _)) if free < FULL_BYTES => Ends::Elsewhere,
                _ => Ends::AsItsKind,
            },
            ReasonKind::Memory => only(beyond(wanted.memory_mib_min, size::memory())),
            _ => Ends::AsItsKind,
        }
    }

    /// The owner's cap on memory, if it is what the run's model does not fit in.
    fn capped(&self) -> Option<&'static str> {
        let needed = self.session.lacks_memory()?;
        match &self.decision {
            Decision::Run { limits, profile } if limits.memory_bytes < needed => Some(match profile {
                ProfileName::Away => "away_memory_mib_max",
                ProfileName::InUse => "in_use_memory_mib_max",
            }),
            Decision::Run { .. } | Decision::Hold { .. } => None,
        }
    }

    pub(super) fn why(&self) -> Why {
        match &self.decision {
            Decision::Run { limits, profile } => {
                let later = |at| civil(at, &Zoned::now());
                let (reason, until) = match self.session.idles_for() {
                    Some((reason, at)) => (reason, at.and_then(later)),
                    None => self.at_work(limits.duty, *profile),
                };
                Why { allowed: true, kind: None, reason, until: until.as_ref().map(timestamp) }
            }
            Decision::Hold { reason, until } => Why {
                allowed: false,
                kind: Some(reason.kind),
                reason: reason.sentence.clone(),
                until: until.as_ref().map(timestamp),
            },
        }
    }

    /// Why it trains, and whether the coordinator is out of reach meanwhile.
    fn at_work(&self, duty: f64, profile: ProfileName) -> (String, Option<Zoned>) {
        let reason = self.in_favour(duty, profile);
        match self.session.is_cut_off() {
            Some((why, at)) => {
                let later = at.and_then(|at| civil(at, &Zoned::now()));
                (format!("{reason}; but the coordinator cannot be reached ({why})"), later)
            }
            None => (reason, None),
        }
    }

    /// Why it trains.
    fn in_favour(&self, duty: f64, profile: ProfileName) -> String {
        let wanted = self.owner.wants();
        match profile {
            _ if matches!(self.owner.word.says(), Override::RunNow(_)) => "it trains because you asked for it".into(),
            _ if wanted.policy == Policy::Always => "it trains whenever it is safe".into(),
            ProfileName::Away if wanted.idle_minutes.is_none() => {
                "it trains, whether or not somebody uses the computer".into()
            }
            ProfileName::Away if self.is_blind() => {
                "it trains, though it is unknown whether somebody uses the computer: you waived that".into()
            }
            ProfileName::Away => "it trains, since nobody uses the computer".into(),
            ProfileName::InUse if self.is_blind() => {
                let percent = 100.0 * duty;
                format!(
                    "it is unknown whether somebody uses the computer, so it trains as if you did, at {percent:.0} % \
                    of the time"
                )
            }
            ProfileName::InUse => format!("it trains beside you, at {:.0} % of the time", 100.0 * duty),
        }
    }

    /// Whether no sensor tells when the owner was there last.
    fn is_blind(&self) -> bool {
        self.computer.sensors.sources().iter().any(|seen| seen.name == "idle" && seen.unknown.is_some())
    }

    /// The owner's word for now, if they have said one.
    pub(super) fn word(&self, now: &Zoned) -> Option<Word> {
        let (kind, until) = match self.owner.word.says() {
            Override::No => return None,
            Override::Pause(until) => (WordKind::Pause, until),
            Override::RunNow(until) => (WordKind::RunNow, until),
        };
        let until = until.and_then(|end| civil(end, now));
        Some(Word { kind, until: until.as_ref().map(timestamp), kept: self.owner.word.is_kept() })
    }

    fn sensor_statuses(&self) -> Vec<SensorStatus> {
        let seen = self.computer.sensors.sources().into_iter();
        seen.map(|seen| SensorStatus {
            name: seen.name.to_owned(),
            value: seen.value,
            unknown: seen.unknown,
            source: seen.source.map(str::to_owned),
        })
        .collect()
    }
}

impl WorkerSlot {
    fn status(&self) -> WorkerStatus {
        let left_alone = self.crashes.left_alone().into_iter();
        WorkerStatus {
            device: self.device().map(str::to_owned),
            alive: self.running.is_some(),
            crashes: self.crashes.since_start(),
            left_alone: left_alone.map(|of| LeftAlone { device: of.device, reason: of.reason }).collect(),
        }
    }
}

/// When that is by the calendar.
fn civil(at: Mono, now: &Zoned) -> Option<Zoned> {
    let left = SignedDuration::try_from(at.since(clock::mono_now())).unwrap_or(SignedDuration::ZERO);
    now.checked_add(left).ok()
}
