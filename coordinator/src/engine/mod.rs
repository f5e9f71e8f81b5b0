//! The engine: all that the coordinator decides. A pure state machine: an event and the time go in, actions come out.
//! Its state is a cache of the ledger; [`Engine::restore`] builds it from one.
//!
//! The way of a lease, module by module: a device enrols (`roster`), is granted a lease (`grant`, of samples from the
//! `pool`), and offers what it trained (`offer`). That is checked (`work`, `credit`), screened (`screen`), merged
//! ([`merge`]), and in the next version (`publish`).
//!
//! Never here: a clock, a socket, a file, a channel, a random source, `async`.

mod ahead;
mod bounds;
mod credit;
mod drain;
pub mod event;
mod grant;
pub mod group;
mod leases;
pub mod merge;
mod merged_blobs;
mod mismatch;
mod offer;
pub mod orders;
mod pace;
mod pool;
mod publish;
pub mod record;
mod refused;
mod roster;
mod round;
mod screen;
pub mod series;
pub mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod turn;
mod versions;
mod work;

pub use mismatch::{Mismatch, check};
pub use pool::{epoch_samples, usable};
pub use refused::{Reason, Refusals};
pub use roster::REVOKED;
pub use status::{DeviceStatus, Status};

use ahead::{Ahead, Kept};
use event::{Action, Event, ReplyTo};
use leases::{Leases, OpenLease};
use merged_blobs::MergedBlobs;
use nightjar_shared::{
    delta,
    ids::{BlobHash, DeviceId, Generation, LeaseId, RunId, Version},
    lease::LeaseKind,
    run_spec::RunSpec,
    shard::Manifest,
    time::{Mono, Wall},
    wire::{
        self, Refusal, RefusalAction, RefusalCode, Role, coordinator_message as answer, device_message as ask, limits,
    },
};
use pace::Pace;
use pool::{Pool, SampleRange};
use record::{EvaluationRecord, LeaseOutcome, Record, SeriesRecord};
use roster::Roster;
use round::Round;
use screen::Screen;
use snapshot::{Snapshot, Standing};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};
use turn::Turn;
use versions::Versions;

/// Decides everything; see the module's words.
pub struct Engine {
    spec: RunSpec,
    spec_json: String,
    manifest: Manifest,
    run_id: RunId,
    generation: Generation,
    roster: Roster,
    leases: Leases,
    kept: Kept,
    last_lease: LeaseId,
    pool: Pool,
    shard_by_hash: BTreeMap<BlobHash, u32>,
    /// Shards that cannot be had at the moment: nothing is leased of them.
    lost_shards: BTreeSet<BlobHash>,
    versions: Versions,
    /// A version that was ordered and is not published yet.
    publishing: Option<Version>,
    /// In a run that has rounds.
    round: Round,
    /// The quorum is there; until then more deltas are waited for.
    grace_until: Option<Mono>,
    /// How far deltas agree, as the newest version had it; `None` after a start.
    agreement: Option<f64>,
    /// What a delta's length can be, worked out once: with the layout of all tensors it would cost more than all else.
    delta_bytes: RangeInclusive<u64>,
    /// What a device needs of memory to train; worked out once, for the same reason.
    training_bytes: u64,
    /// The model's; worked out once too.
    parameters: f64,
    screen: Screen,
    merged_blobs: MergedBlobs,
    /// Deltas that were not merged.
    refusals: Refusals,
    /// No more leases are granted.
    drains: bool,
    /// Merged deltas, and their tokens.
    last_seq: u64,
    tokens: u64,
    evaluation: Option<EvaluationRecord>,
    /// The newest version that a device says to hold and the ledger does not know.
    unheard_of: Option<Version>,
    /// What operators ordered.
    standing: Standing,
    /// The version that an open lease is evaluating.
    evaluating: Option<(Version, LeaseId)>,
    /// The newest, in a run of series.
    series: Option<SeriesRecord>,
    /// Since when none trains, if none does.
    idle_since: Mono,
    /// The latest wall time seen: what is written never goes back, even where the clock does.
    wall: Wall,
}

impl Engine {
    /// Builds the engine from what the ledger holds. The actions are to be performed before any other: a run's version
    /// 0, or a version that was due when the last process ended. Leases that were open stay open, with their deadline
    /// counted anew from now.
    pub fn restore(
        mut spec: RunSpec,
        manifest: Manifest,
        run_id: RunId,
        generation: Generation,
        snapshot: Snapshot,
        now: Mono,
    ) -> (Engine, Vec<Action>) {
        spec.token_budget = spec.token_budget.max(snapshot.standing.token_budget.unwrap_or(0));
        let mut pool = Pool::restore(&manifest, spec.inner.batch_samples, snapshot.epochs_opened, &snapshot.epochs);
        let roster = Roster::restore(snapshot.devices, spec.lease.wall_s);
        let parameters = spec.model.parameters() as f64;
        let mut leases = Leases::default();
        let mut evaluating = None;
        let newest_lease = snapshot.open_leases.last().map(|l| l.issued_at);
        for record in snapshot.open_leases {
            let pace = roster.pace(record.device);
            match record.kind {
                LeaseKind::Train => pool.claim(range_of(&record)),
                LeaseKind::Evaluate => evaluating = Some((record.base_version, record.id)),
            }
            leases.insert(open_lease(&spec, parameters, record, &pace, now, None));
        }
        let wall = snapshot.versions.last().map(|v| v.published_at).max(newest_lease).unwrap_or_default();
        let delta_bytes = delta::bytes_allowed(&spec.model, &spec.delta);
        let training_bytes = spec.model.training_bytes();
        let is_anchors = |id| roster.get(id).is_some_and(|d| d.record.role == Role::Anchor);
        let mut engine = Engine {
            spec_json: told_to_devices(&spec),
            shard_by_hash: manifest.train.iter().zip(0..).map(|(s, i)| (s.hash, i)).collect(),
            screen: Screen::restore(&spec, parameters, &snapshot.recent_deltas, is_anchors),
            merged_blobs: MergedBlobs::restore(&snapshot.merged_blobs),
            refusals: Refusals::default(),
            drains: false,
            round: Round::restore(&snapshot.versions),
            versions: Versions::restore(snapshot.versions),
            spec,
            manifest,
            run_id,
            generation,
            roster,
            leases,
            kept: Kept::default(),
            last_lease: snapshot.last_lease,
            pool,
            lost_shards: BTreeSet::new(),
            publishing: None,
            grace_until: None,
            agreement: None,
            delta_bytes,
            training_bytes,
            parameters,
            last_seq: snapshot.last_seq,
            tokens: snapshot.tokens,
            evaluation: snapshot.evaluation,
            unheard_of: None,
            standing: snapshot.standing,
            evaluating,
            series: snapshot.series,
            idle_since: now,
            wall,
        };
        if engine.spec.has_series() {
            // There are only so many rounds: none is made up of those alone who came back before the restart.
            let ends = now + Duration::from_secs_f64(engine.round_s());
            engine.round.go_on(engine.leases.training(), ends);
        }
        let mut turn = Turn::default();
        engine.publish_if_due(now, &mut turn);
        (engine, turn.actions())
    }

    /// Takes in what happened and says what is to be done.
    pub fn handle(&mut self, event: Event, now: Mono, wall: Wall) -> Vec<Action> {
        self.wall = self.wall.max(wall);
        let mut turn = Turn::default();
        while let Some(id) = self.leases.expired(now) {
            self.close(id, LeaseOutcome::Expired, 0, &mut turn);
        }
        while let Some(device) = self.kept.expired(now) {
            self.release(device);
        }
        match event {
            Event::Asked { device, reply_to, body, invite } => {
                let answer = self.asked(device, body, invite.as_ref(), reply_to, now, &mut turn);
                match answer {
                    Ok(Some(body)) => turn.reply(reply_to, body),
                    Ok(None) => {}
                    Err(refusal) => turn.reply(reply_to, answer::Body::Refusal(refusal)),
                }
            }
            Event::DeltaMeasured { reply_to, device, offer, measured } => {
                let body = self.delta_measured(device, &offer, measured, now, &mut turn);
                turn.reply(reply_to, body.unwrap_or_else(answer::Body::Refusal));
            }
            Event::Published(published) => self.published(published, now, &mut turn),
            Event::BlobLost(hash) => {
                self.lost_shards.extend(self.is_shard(hash).then_some(hash));
                self.versions.avoid(hash);
            }
            Event::BlobFound(hash) => drop(self.lost_shards.remove(&hash)),
            Event::GivenUp(before) => self.versions.forget(before),
            Event::UploadsDamaged { device, lease, generation } => {
                self.give_up(device, lease, generation, now, &mut turn)
            }
            Event::Drain => self.drain(now, &mut turn),
            Event::SpecChanged(spec) => self.change_spec(*spec),
            Event::Ordered { reply_to, order, giver } => {
                let done = self.ordered(&order, &giver, now, &mut turn);
                turn.effects.push(Action::Obeyed { to: reply_to, done });
            }
            Event::Tick => {}
        }
        self.publish_if_due(now, &mut turn);
        self.next_round(false, now, &mut turn);
        turn.actions()
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.leases
            .next_deadline()
            .into_iter()
            .chain(self.kept.next_deadline())
            .chain(self.grace_until)
            .chain(self.round_deadline())
            .min()
    }

    /// The newest version that a device says to hold and the ledger does not know: the ledger is an older copy, or the
    /// device not honest.
    pub fn unheard_of(&self) -> Option<Version> {
        self.unheard_of
    }

    /// Whether this device may upload a blob of this length for this lease now.
    pub fn accepts_upload(&self, device: DeviceId, lease: LeaseId, bytes: u64) -> bool {
        let is_its_own = |l: &OpenLease| l.record.device == device && l.record.kind.trains();
        self.leases.get(lease).is_some_and(is_its_own) && self.delta_bytes.contains(&bytes)
    }

    /// Checks that the engine is nothing but a cache: what it takes for free, leased and merged is so by the ledger.
    /// With what is free, the samples of every open epoch are then all accounted for (invariant 3).
    pub fn agrees_with(&self, ledger: &Snapshot) -> Result<(), String> {
        let batch = self.spec.inner.batch_samples;
        let mut pool = Pool::restore(&self.manifest, batch, ledger.epochs_opened, &ledger.epochs);
        for lease in ledger.open_leases.iter().filter(|l| l.kind.trains()) {
            pool.claim(range_of(lease));
        }
        let mut free = self.pool.clone();
        self.kept.ranges().chain(self.leases.behind()).for_each(|range| free.give_back(range));
        if free != pool {
            return Err(format!("the engine has {} samples free, by the ledger it is {}", free.free(), pool.free()));
        }
        let own = (self.leases.len(), self.last_seq, self.tokens);
        let its = (ledger.open_leases.len(), ledger.last_seq, ledger.tokens);
        if own == its {
            Ok(())
        } else {
            Err(format!("the engine has (open leases, deltas, tokens) {own:?}, the ledger {its:?}"))
        }
    }

    /// Share of the token budget that is consumed.
    fn progress(&self) -> f64 {
        self.tokens as f64 / self.spec.token_budget as f64
    }

    fn finished(&self) -> bool {
        self.tokens >= self.spec.token_budget
    }

    /// Answers a request; `None` where the answer follows a measurement.
    fn asked(
        &mut self,
        device: DeviceId,
        body: ask::Body,
        invite: Option<&wire::Invite>,
        reply_to: ReplyTo,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<Option<answer::Body>, Refusal> {
        // A request that is held until the next round is kept until then: its length is checked first.
        wire::request::check(&body)?;
        if let ask::Body::Hello(hello) = body {
            self.may_greet(device, invite)?;
            let changed = self.roster.hello(device, &hello, invite, self.run_id, self.spec.delta.codec, self.wall)?;
            turn.records.extend(changed.map(Record::Device));
            return Ok(Some(answer::Body::Welcome(self.welcome())));
        }
        let enrolled = self.roster.get(device).ok_or_else(|| self.not_enrolled(device))?;
        let session = enrolled.session.ok_or_else(hello_again)?;
        match body {
            ask::Body::Hello(_) => Ok(None),
            ask::Body::LeaseRequest(request) => {
                if self.drains {
                    return Err(self.stopping(device, now));
                }
                if self.leases.of_device(device).is_none() {
                    self.paused(device, now)?;
                }
                let evaluates = session.evaluates && self.something_to_evaluate();
                if !evaluates && self.hold(device, reply_to, &request, now, turn)? {
                    return Ok(None);
                }
                self.lease(device, session, &request, now, turn).map(|lease| Some(answer::Body::Lease(lease)))
            }
            ask::Body::LeaseReturn(wire::LeaseReturn { lease_id, generation, .. }) => {
                let id = self.own_lease(device, lease_id, generation)?.record.id;
                self.close(id, LeaseOutcome::Returned, 0, turn);
                Ok(Some(self.done(false, "")))
            }
            ask::Body::LeaseRenew(wire::LeaseRenew { lease_id, generation, .. }) => {
                let id = self.own_lease(device, lease_id, generation)?.record.id;
                self.leases.renew(id, now, false);
                Ok(Some(self.done(false, "")))
            }
            ask::Body::DeltaOffer(offer) => self.delta_offered(device, &offer, reply_to, now, turn),
            ask::Body::Evaluation(evaluation) => self.evaluated(device, &evaluation, turn).map(Some),
            ask::Body::Leave(_) => {
                if let Some(id) = self.leases.of_device(device).map(|l| l.record.id) {
                    self.close(id, LeaseOutcome::Returned, 0, turn);
                }
                self.release(device);
                turn.records.extend(self.roster.leave(device).map(Record::Device));
                Ok(Some(self.done(false, "")))
            }
        }
    }

    fn not_enrolled(&self, device: DeviceId) -> Refusal {
        let is_revoked = self.standing.revoked_devices.contains_key(&device);
        if is_revoked { roster::revoked() } else { roster::not_enrolled() }
    }

    fn is_shard(&self, hash: BlobHash) -> bool {
        self.manifest.train.iter().chain(&self.manifest.heldout).any(|shard| shard.hash == hash)
    }

    fn welcome(&self) -> wire::Welcome {
        wire::Welcome {
            run_id: self.run_id.0.to_vec(),
            generation: self.generation.0,
            run_spec_json: self.spec_json.clone(),
            codec: self.spec.delta.codec as u32,
            // Two renewals may be lost before the shortest deadline passes.
            keep_alive_ms: (self.spec.lease.deadline_s_min * 1000.0 / 3.0) as u64,
            // Whoever holds the keys adds them.
            public_keys: vec![],
        }
    }

    /// The device's own open lease of this number and generation.
    fn own_lease(&self, device: DeviceId, id: u64, generation: u64) -> Result<&OpenLease, Refusal> {
        let same = |l: &&OpenLease| l.record.device == device && l.record.generation.0 == generation;
        let gone = || Refusal::lease_gone("The lease has ended: its time was over, or it was given back.");
        self.leases.get(LeaseId(id)).filter(same).ok_or_else(gone)
    }

    fn done(&self, merged: bool, note: &str) -> answer::Body {
        let version = self.versions.newest().map_or(0, |v| v.version.0);
        answer::Body::Done(wire::Done { version, merged, note: limits::tame(note) })
    }

    /// Ends a lease; what it did not use is free again.
    fn close(&mut self, id: LeaseId, outcome: LeaseOutcome, samples_used: u32, turn: &mut Turn) {
        let Some(lease) = self.leases.remove(id) else { return };
        let is_merged = outcome == LeaseOutcome::Merged;
        self.round.closed(id, lease.record.device, is_merged);
        match lease.record.kind {
            LeaseKind::Train => {
                if let Some(device) = self.roster.get_mut(lease.record.device) {
                    device.idle_leases = if is_merged { 0 } else { device.idle_leases.saturating_add(1) };
                }
                let whole = range_of(&lease.record);
                let rest =
                    SampleRange { first: whole.first + samples_used, samples: whole.samples - samples_used, ..whole };
                self.pool.give_back(rest);
                lease.behind.into_iter().for_each(|behind| self.pool.give_back(behind));
            }
            LeaseKind::Evaluate => self.evaluating = self.evaluating.filter(|(_, by)| *by != id),
        }
        turn.records.push(Record::LeaseClosed { id, outcome, samples_used, at: self.wall });
    }

    /// What is kept for a device that trains ahead is free again.
    fn release(&mut self, device: DeviceId) -> Option<Ahead> {
        let ahead = self.kept.take(device)?;
        self.pool.give_back(ahead.range);
        Some(ahead)
    }

    /// "Try again": after about `base`, by a quarter more or less, so that devices do not come back all at once.
    fn retry(&self, code: RefusalCode, sentence: &str, base: Duration, device: DeviceId, now: Mono) -> Refusal {
        let who = u64::from_le_bytes(*device.0.first_chunk().unwrap_or(&[0; 8]));
        Refusal::retry(code, sentence, base.mul_f64(0.75 + 0.5 * self.spec.jitter(who, now.ms)))
    }
}

fn hello_again() -> Refusal {
    let sentence = "The coordinator was started anew.";
    Refusal::with(RefusalCode::StaleGeneration, RefusalAction::HelloAgain, sentence)
}

/// The run spec in a welcome.
fn told_to_devices(spec: &RunSpec) -> String {
    // It cannot fail: a spec is plain data.
    serde_json::to_string(&spec.for_devices()).unwrap_or_default()
}

fn range_of(lease: &record::LeaseRecord) -> SampleRange {
    SampleRange { epoch: lease.epoch, shard: lease.shard, first: lease.first_sample, samples: lease.samples }
}

/// `parameters` are the model's.
fn open_lease(
    spec: &RunSpec,
    parameters: f64,
    record: record::LeaseRecord,
    pace: &Pace,
    now: Mono,
    granted: Option<Mono>,
) -> OpenLease {
    let pace = if record.kind.trains() { *pace } else { Pace::default() };
    let tokens = u64::from(record.steps).saturating_mul(spec.tokens_per_step());
    // It lasts until its delta is taken, even from the fastest stranger.
    let least_s = credit::least_s(parameters, record.steps, tokens, false, 0.0, 0.0);
    let allowance = leases::allowance(spec, record.steps, &pace).max(Duration::from_secs_f64(least_s.min(1e9)));
    let speed_milli = (pace.tokens_per_s() * 1000.0) as u64;
    OpenLease {
        record,
        born: now,
        granted,
        spans_restart: granted.is_none(),
        told: None,
        waits: false,
        deadline: now + allowance,
        allowance,
        speed_milli,
        is_anchors: false,
        behind: None,
        ahead_steps: 0,
        ahead_of: None,
    }
}
