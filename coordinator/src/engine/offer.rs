//! Taking in what a lease trained or measured. An offer comes twice: first the engine has its blob measured, then,
//! measured, it is merged or screened out. Both times the same is checked, since much may have happened in between.

use super::{
    Engine,
    ahead::Ahead,
    bounds::LOSS_MAX,
    event::{Action, Measured, MergeOrder, ReplyTo},
    leases::OpenLease,
    record::{DeltaRecord, EvaluationRecord, LeaseOutcome, LeaseRecord, Record},
    refused::Reason,
    screen::{Candidate, Unfit},
    turn::Turn,
    work::{Work, WorkError, millis},
};
use nightjar_shared::{
    ids::{DeviceId, Generation, LeaseId},
    lease::{LeaseKind, Offer, Trained},
    time::Mono,
    wire::{DeltaOffer, Evaluation, Refusal, RefusalAction, RefusalCode, Role, coordinator_message::Body, limits},
};
use std::time::Duration;

impl Engine {
    /// A delta is offered: its blob is to be measured, unless the lease is merged already or the offer is no good.
    pub(super) fn delta_offered(
        &mut self,
        device: DeviceId,
        offer: &DeltaOffer,
        to: ReplyTo,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<Option<Body>, Refusal> {
        if self.was_merged(device, LeaseId(offer.lease_id), Generation(offer.generation)) {
            return Ok(Some(self.done(true, "")));
        }
        let lease = self.own_lease(device, offer.lease_id, offer.generation)?;
        let id = lease.record.id;
        let named = Offer::from_wire(offer).ok_or_else(|| WorkError::blob(&self.delta_bytes).into());
        match named.and_then(|offer| Ok((offer, self.work(lease, &offer, now)?))) {
            Err(why) => {
                self.screen_out(device, id, &why, now, turn);
                let words = limits::tame(&why.words);
                let refusal = Refusal::with(RefusalCode::BadDelta, RefusalAction::DropLease, words);
                // A device that has to wait for its next lease is told so at once.
                let retry_ms = self.held_for_refusals(device, now).map_or(0, |held| held.retry_ms);
                Err(Refusal { retry_ms, ..refusal })
            }
            Ok((offer, work)) => {
                // The first time its blob is asked for and measured all the same: that takes time, too.
                let too_soon = self.too_soon(lease, &work, now).filter(|_| lease.waits);
                self.leases.renew(id, now, false);
                too_soon.map_or(Ok(()), |left| Err(wait(left)))?;
                turn.effects.push(Action::MeasureDelta { to, device, offer });
                Ok(None)
            }
        }
    }

    /// What an offer for a lease says was done; if that cannot be, the reason.
    fn work(&self, lease: &OpenLease, offer: &Offer, now: Mono) -> Result<Work, Why> {
        let work = Work::of(offer.trained, &self.spec, &self.delta_bytes, lease, now, self.wall)?;
        if self.merged_blobs.contains(work.trained.delta.hash) {
            return Err(Why::new(Reason::Repeated, "The same delta was merged before, for another lease."));
        }
        Ok(work)
    }

    /// A lease ends whose uploads come to nothing.
    pub(super) fn give_up(
        &mut self,
        device: DeviceId,
        lease: LeaseId,
        generation: Generation,
        now: Mono,
        turn: &mut Turn,
    ) {
        if self.own_lease(device, lease.0, generation.0).is_ok() {
            let why = Why::new(Reason::Upload, "What was uploaded was not what its name says, again and again.");
            self.screen_out(device, lease, &why, now, turn);
        }
    }

    /// A lease ends without a delta that counts, and that lies with its device.
    fn screen_out(&mut self, device: DeviceId, lease: LeaseId, why: &Why, now: Mono, turn: &mut Turn) {
        self.refusals.count(why.reason);
        self.refused(device, &why.words, now);
        self.close(lease, LeaseOutcome::ScreenedOut, 0, turn);
    }

    /// An offered delta was measured: it is merged, once, or screened out.
    pub(super) fn delta_measured(
        &mut self,
        device: DeviceId,
        offer: &Offer,
        measured: Result<Measured, String>,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<Body, Refusal> {
        if self.was_merged(device, offer.lease, offer.generation) {
            return Ok(self.done(true, ""));
        }
        let lease = self.own_lease(device, offer.lease.0, offer.generation.0)?.clone();
        let measured = measured.map_err(|words| Why { reason: Reason::Undecodable, words });
        let checked = self.work(&lease, offer, now).and_then(|work| Ok((work, measured?)));
        let (work, measured) = match checked {
            Ok(both) => both,
            Err(why) => {
                self.screen_out(device, lease.record.id, &why, now, turn);
                return Ok(self.done(false, &why.words));
            }
        };
        if let Some(left) = self.too_soon(&lease, &work, now) {
            self.leases.let_wait(lease.record.id);
            return Err(wait(left));
        }
        let candidate = Candidate {
            device,
            is_anchors: self.roster.get(device).is_some_and(|d| d.record.role == Role::Anchor),
            measured,
            steps: work.trained.steps,
            staleness: self.staleness(&lease),
            told: lease.told,
            tokens_so_far: self.tokens + work.tokens,
            wall: self.wall,
        };
        match self.screen.judge(&self.spec, &candidate) {
            Ok(()) => {
                self.merge(&lease, &work, measured, now, turn);
                Ok(self.done(true, ""))
            }
            // Being slow is no fault.
            Err(stale @ Unfit::Stale(..)) => {
                self.refusals.count(Reason::Stale);
                self.close(lease.record.id, LeaseOutcome::ScreenedOut, 0, turn);
                Ok(self.done(false, &stale.to_string()))
            }
            Err(unfit) => {
                let why = Why::new(unfit.reason(), &unfit.to_string());
                self.screen_out(device, lease.record.id, &why, now, turn);
                Ok(self.done(false, &why.words))
            }
        }
    }

    /// Versions since the one that the lease started from. One that is being made counts: its deltas are chosen, so
    /// that this one comes on top of it.
    fn staleness(&self, lease: &OpenLease) -> u64 {
        let under = self.publishing.or(self.versions.newest().map(|v| v.version));
        under.map_or(0, |under| under.0.saturating_sub(lease.record.base_version.0))
    }

    /// Whether it was this lease that the device's last merged delta was for: a retry is answered as before.
    fn was_merged(&self, device: DeviceId, lease: LeaseId, generation: Generation) -> bool {
        self.roster.get(device).is_some_and(|d| d.last_merged == Some((lease, generation)))
    }

    /// Writes the delta down, ends its lease, learns the device's speed, and has the delta merged.
    fn merge(&mut self, lease: &OpenLease, work: &Work, measured: Measured, now: Mono, turn: &mut Turn) {
        let LeaseRecord { id, generation, device, .. } = lease.record;
        let Work { trained, tokens } = *work;
        let Trained { steps, samples, train_ms, loss_first, loss_last, delta } = trained;
        let staleness = self.staleness(lease);
        let weight = self.spec.merge.staleness.weight(staleness);
        // What a lease took that was granted before this process started, only the calendar knows.
        let wall = match lease.granted {
            Some(granted) => now.since(granted),
            None => self.wall.since(lease.record.issued_at),
        };
        let wall_ms = millis(wall);
        let least = self.credit(lease, work, wall_ms);
        self.merged_blobs.add(delta.hash);
        self.last_seq += 1;
        self.tokens += tokens;
        turn.records.push(Record::Delta(DeltaRecord {
            seq: self.last_seq,
            lease: id,
            device,
            blob: delta,
            steps,
            tokens,
            staleness,
            weight,
            norm: measured.norm,
            train_ms,
            wall_ms,
            loss_first,
            loss_last,
            merged_at: self.wall,
        }));
        let behind = self.leases.take_behind(id);
        self.close(id, LeaseOutcome::Merged, samples, turn);
        if let Some(range) = behind {
            let (begun, until) = (lease.granted.unwrap_or(lease.born), now + lease.allowance);
            self.kept.keep(device, Ahead { lease: id, range, steps: lease.ahead_steps, since: now, begun, until });
            // Who stopped early does not go on behind a gap.
            if samples < lease.record.samples {
                self.release(device);
            }
        }
        if let Some(device) = self.roster.get_mut(device) {
            device.tokens += tokens;
            device.merged += 1;
            device.refused.merged();
            device.last_merged = Some((id, generation));
            // A lease that spans a restart of the coordinator says nothing about the device's speed.
            if lease.granted.is_some() {
                // Who asks for its lease again just before it delivers is no faster for that.
                device.pace.learn(tokens, trained.time().as_secs_f64(), wall.max(least).as_secs_f64());
                device.record.tokens_per_s = device.pace.tokens_per_s();
                turn.records.push(Record::Device(device.record.clone()));
            }
        }
        turn.effects.push(Action::Merge(MergeOrder {
            seq: self.last_seq,
            lease: id,
            delta: delta.hash,
            tokens,
            weight,
        }));
    }

    /// The held-out loss that an evaluate lease measured.
    pub(super) fn evaluated(
        &mut self,
        device: DeviceId,
        evaluation: &Evaluation,
        turn: &mut Turn,
    ) -> Result<Body, Refusal> {
        let lease = self.own_lease(device, evaluation.lease_id, evaluation.generation)?.record.clone();
        let tokens = u64::from(lease.samples) * self.spec.tokens_per_sample();
        let fits = match lease.kind {
            LeaseKind::Train => false,
            LeaseKind::Evaluate => evaluation.tokens == tokens,
        };
        if !(fits && (0.0..=LOSS_MAX * tokens as f64).contains(&evaluation.nats)) {
            self.close(lease.id, LeaseOutcome::ScreenedOut, 0, turn);
            let sentence = "The measured loss does not fit its lease.";
            return Err(Refusal::with(RefusalCode::BadDelta, RefusalAction::DropLease, sentence));
        }
        self.close(lease.id, LeaseOutcome::Evaluated, 0, turn);
        // A shard is shuffled, so its first samples have their share of its text; for byte tokens this is exact.
        let text_bytes = self.manifest.heldout.first().map_or(0, |s| {
            (u128::from(s.text_bytes) * u128::from(lease.samples) / u128::from(s.samples.max(1))) as u64
        });
        let record = EvaluationRecord {
            version: lease.base_version,
            lease: lease.id,
            nats: evaluation.nats,
            tokens,
            text_bytes,
            measured_at: self.wall,
        };
        turn.records.push(Record::Evaluation(record.clone()));
        self.evaluation = Some(record);
        Ok(self.done(false, ""))
    }
}

/// Why a delta is not merged.
struct Why {
    reason: Reason,
    /// For its device's log.
    words: String,
}

impl Why {
    fn new(reason: Reason, words: &str) -> Self {
        Why { reason, words: words.to_owned() }
    }
}

impl From<WorkError> for Why {
    fn from(error: WorkError) -> Self {
        Why { reason: Reason::Offer, words: error.to_string() }
    }
}

/// No lease counts before it can have been trained. Nothing is lost: the offer is made again.
fn wait(left: Duration) -> Refusal {
    let sentence = "This lease came back sooner than this device is known to train. Its delta is taken a little later.";
    Refusal::retry(RefusalCode::Busy, sentence, left + Duration::from_millis(1))
}
