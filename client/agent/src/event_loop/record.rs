//! Recording: what the agent does and what it costs goes into the history, the log and the tray's face.

use super::Agent;
use crate::{
    clock,
    control::{State as Standing, timestamp},
    history::{Delivery, State, energy::Load},
    lease::LeaseKind,
    policy::{Decision, ReasonKind},
    quota,
    session::{self, Report},
    tray::{self, Face},
};
use jiff::Zoned;
use nightjar_shared::{time::Mono, wire::worker::Progress};
use std::time::Duration;

/// Fetching, delivering and waiting between two leases belong to the work, unless they take longer than this.
const LULL_MAX: Duration = Duration::from_secs(60);
/// The owner's bound on the disk is looked after this often; before a lease besides.
const TIDY_EVERY: Duration = Duration::from_secs(600);

impl Agent {
    /// Counts what was used since the last look, and writes what is due.
    pub(super) fn record(&mut self, civil: &Zoned, now: Mono) {
        let load = self.session.computes().then(|| self.load());
        let energy = self.meters.sample(load, now);
        self.history.used(energy, civil);
        self.history.tick(civil, now);
        if now >= self.next_tidy {
            self.next_tidy = now + TIDY_EVERY;
            self.tidy();
        }
    }

    /// Keeps to the owner's bound on the disk.
    fn tidy(&mut self) {
        let Some(mib) = self.preferences.preferences().quota_mib_max else { return };
        match quota::tidy(&*self.disk, self.session.journal(), mib << 20) {
            Ok(evicted) if evicted.is_empty() => {}
            Ok(evicted) => self.waiting.push_back(session::Event::Evicted(evicted)),
            Err(e) => tracing::warn!("what is kept on the disk cannot be tidied up ({e})"),
        }
    }

    fn load(&self) -> Load {
        let (duty, threads) = match &self.decision {
            Decision::Run { limits, .. } => (limits.duty, limits.threads),
            Decision::Hold { .. } => (0.0, 0),
        };
        let ready = self.ready.as_ref();
        Load {
            device: ready.map_or_else(String::new, |ready| ready.device.clone()),
            is_gpu: ready.is_some_and(|ready| ready.gpu),
            threads,
            duty,
            on_battery: self.on_battery,
        }
    }

    /// Counts the bytes of the connection at hand.
    pub(super) fn count_traffic(&mut self, civil: &Zoned) {
        let Some(online) = &mut self.online else { return };
        let (up, down) = online.link.traffic();
        let (up_before, down_before) = std::mem::replace(&mut online.counted, (up, down));
        self.history.moved(up.saturating_sub(up_before), down.saturating_sub(down_before), civil);
    }

    /// Counts tokens.
    pub(super) fn trained(&mut self, progress: &Progress) {
        self.history.trained(progress.lease_id, progress.tokens, &Zoned::now());
    }

    /// Notes what it does, and why.
    pub(super) fn note(&mut self, civil: &Zoned, now: Mono) {
        match &self.decision {
            Decision::Run { .. } => {
                if self.session.computes() {
                    self.worked = Some(now);
                }
                let works = self.worked.is_some_and(|at| now.since(at) < LULL_MAX);
                let state = if works { State::Run } else { State::Ready };
                self.history.note(state, None, &self.why().reason, civil);
            }
            Decision::Hold { reason, .. } => {
                self.worked = None;
                let state = if reason.kind == ReasonKind::Paused { State::Paused } else { State::Hold };
                self.history.note(state, Some(reason.kind), &reason.sentence, civil);
            }
        }
        let face = self.face();
        self.faces.send_if_modified(|shown| {
            let is_new = *shown != face;
            *shown = face;
            is_new
        });
    }

    pub(super) fn face(&self) -> Face {
        let why = self.why();
        let standing = self.standing(&why, self.word(&Zoned::now()).as_ref());
        let trouble = standing.trouble().map(str::to_owned);
        let state = match standing.state {
            _ if trouble.is_some() => tray::State::Trouble,
            Standing::Training | Standing::Ready => tray::State::Running,
            Standing::Paused => tray::State::Paused,
            Standing::Holding | Standing::Offline | Standing::NotJoined | Standing::NeedsYou => tray::State::Held,
        };
        let sentence =
            trouble.unwrap_or(if standing.state == Standing::Offline { standing.headline } else { why.reason });
        Face { state, paused: standing.state == Standing::Paused, sentence }
    }

    /// Tells the owner, and writes what was delivered to the ledger.
    pub(super) fn report(&mut self, report: &Report) {
        self.tell(&report.to_string());
        if matches!(report, Report::Trouble(_) | Report::RunOver(_)) {
            // It may be why training holds from now on.
            self.next_look = clock::mono_now();
        }
        if let Report::Delivered { lease, kind, version, steps, samples, tokens, losses, merged } = report {
            let civil = Zoned::now();
            let delivery = Delivery {
                at: timestamp(&civil),
                run: self.run_name().unwrap_or_default().to_owned(),
                lease: lease.0,
                kind: match kind {
                    LeaseKind::Train => "train".into(),
                    LeaseKind::Evaluate => "evaluate".into(),
                },
                version: version.0,
                steps: *steps,
                samples: *samples,
                tokens: *tokens,
                loss_first: losses.map(|(first, _)| first),
                loss_last: losses.map(|(_, last)| last),
                merged: merged.is_ok(),
                why_not: merged.as_ref().err().cloned().unwrap_or_default(),
            };
            // A short lease is over before its worker has reported any progress.
            self.history.trained(lease.0, *tokens, &civil);
            self.history.delivered(&delivery, &civil);
        }
    }
}
