//! Recording: what the agent does and what it costs goes into the history, the log and the tray's view.

use super::Agent;
use crate::{
    clock,
    control::{State as AgentState, timestamp},
    history::{
        Delivery, History, Log, State,
        energy::{Load, Metering, Meters},
    },
    policy::{Decision, ReasonKind},
    sensor::Places,
    session::Report,
    tray::{self, IconView},
};
use jiff::Zoned;
use nightjar_shared::{disk::FolderDisk, time::Mono, wire::worker::Progress};
use std::{sync::Arc, time::Duration};

/// Fetching, delivering and waiting between two leases belong to the work, unless they take longer than this.
const LULL_MAX: Duration = Duration::from_secs(60);
/// The owner's bound on the disk is looked after this often; before a lease besides.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// What is kept of what the agent does.
pub(super) struct Records {
    pub history: History,
    pub meters: Metering,
    log: Log,
    say: Box<dyn FnMut(&str) + Send>,
    /// When a worker was last seen at work, since training was last allowed.
    worked: Option<Mono>,
    /// Whether it was decided anew, and the history does not know.
    pub unnoted: bool,
}

impl Records {
    pub fn open(disk: Arc<FolderDisk>, say: Box<dyn FnMut(&str) + Send>) -> Self {
        Records {
            log: Log::of(&*disk),
            history: History::open(disk, &Zoned::now()),
            meters: Metering::start(Meters::new(Places::of_this_computer().root)),
            say,
            worked: None,
            unnoted: false,
        }
    }

    /// Tells the owner a line, and keeps it in the log.
    pub fn tell(&mut self, line: &str) {
        (self.say)(line);
        self.log(line);
    }

    pub fn log(&self, line: &str) {
        self.log.write(&timestamp(&Zoned::now()), line);
    }
}

impl Agent {
    /// Counts what was used since the last look, and writes what is due.
    pub(super) fn record(&mut self, civil: &Zoned, now: Mono) {
        let load = self.session.computes().then(|| self.load());
        let energy = self.records.meters.sample(load, now);
        self.records.history.used(energy, civil);
        self.records.history.tick(civil, now);
        if now >= self.next_tidy {
            self.next_tidy = now + TIDY_EVERY;
            self.keep_to_quota();
        }
    }

    fn load(&self) -> Load {
        let (duty, threads) = match &self.decision {
            Decision::Run { limits, .. } => (limits.duty, limits.threads),
            Decision::Hold { .. } => (0.0, 0),
        };
        Load {
            device: self.worker.device().unwrap_or_default().to_owned(),
            is_gpu: self.worker.is_on_gpu(),
            threads,
            duty,
            on_battery: self.computer.on_battery,
        }
    }

    /// Counts the bytes of the connection at hand.
    pub(super) fn count_traffic(&mut self, civil: &Zoned) {
        let (up, down) = self.connection.traffic();
        self.records.history.moved(up, down, civil);
    }

    /// Counts tokens.
    pub(super) fn trained(&mut self, progress: &Progress) {
        self.records.history.trained(progress.lease_id, progress.tokens, &Zoned::now());
    }

    /// Notes what it does, and why.
    pub(super) fn note(&mut self, civil: &Zoned, now: Mono) {
        match &self.decision {
            Decision::Run { .. } => {
                if self.session.computes() {
                    self.records.worked = Some(now);
                }
                let works = self.records.worked.is_some_and(|at| now.since(at) < LULL_MAX);
                let state = if works { State::Run } else { State::Ready };
                self.records.history.note(state, None, &self.why().reason, civil);
            }
            Decision::Hold { reason, .. } => {
                self.records.worked = None;
                let state = if reason.kind == ReasonKind::Paused { State::Paused } else { State::Hold };
                self.records.history.note(state, Some(reason.kind), &reason.sentence, civil);
            }
        }
        let view = self.view();
        self.api.views.send_if_modified(|shown| {
            let is_new = *shown != view;
            *shown = view;
            is_new
        });
    }

    pub(super) fn view(&self) -> IconView {
        let why = self.why();
        let summary = self.summary(&why, self.word(&Zoned::now()).as_ref());
        let trouble = summary.trouble().map(str::to_owned);
        let state = match summary.state {
            _ if trouble.is_some() => tray::State::Trouble,
            AgentState::Training | AgentState::Ready => tray::State::Running,
            AgentState::Paused => tray::State::Paused,
            AgentState::Holding | AgentState::Offline | AgentState::NotJoined | AgentState::NeedsYou => {
                tray::State::Held
            }
        };
        let sentence =
            trouble.unwrap_or(if summary.state == AgentState::Offline { summary.headline } else { why.reason });
        IconView { state, paused: summary.state == AgentState::Paused, sentence }
    }

    /// Tells the owner, and writes what was delivered to the ledger.
    pub(super) fn report(&mut self, report: &Report) {
        self.records.tell(&report.to_string());
        if matches!(report, Report::Trouble(_) | Report::RunOver(_)) {
            // It may be why training holds from now on.
            self.next_look = clock::mono_now();
        }
        if let Report::Delivered { lease, kind, version, trained, tokens, merged } = report {
            let civil = Zoned::now();
            let delivery = Delivery {
                at: timestamp(&civil),
                run: self.participation.run_name().unwrap_or_default().to_owned(),
                lease: lease.0,
                kind: *kind,
                version: version.0,
                steps: trained.map_or(0, |trained| trained.steps),
                samples: trained.map_or(0, |trained| trained.samples),
                tokens: *tokens,
                loss_first: trained.map(|trained| trained.loss_first),
                loss_last: trained.map(|trained| trained.loss_last),
                merged: merged.is_ok(),
                why_not: merged.as_ref().err().cloned().unwrap_or_default(),
            };
            // A short lease is over before its worker has reported any progress.
            self.records.history.trained(lease.0, *tokens, &civil);
            self.records.history.delivered(&delivery, &civil);
        }
    }
}
