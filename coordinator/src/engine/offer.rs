//! Taking in what a lease trained or measured. An offer comes twice: first the engine has its blob measured, then,
//! measured, it is merged or screened out. Both times the same is checked, since much may have happened in between.

use super::{
    Engine,
    ahead::Ahead,
    event::{Action, Measured, MergeOrder, ReplyTo},
    leases::OpenLease,
    record::{DeltaRecord, EvaluationRecord, LeaseKind, LeaseOutcome, LeaseRecord, Record},
    screen,
    turn::Turn,
};
use nightjar_shared::{
    ids::{DeviceId, Generation, LeaseId},
    time::Mono,
    wire::{DeltaOffer, Evaluation, Refusal, RefusalAction, RefusalCode, coordinator_message::Body, limits},
};

impl Engine {
    /// A delta is offered: its blob is to be measured, unless the lease is merged already or the offer is no good.
    pub(super) fn delta_offered(
        &mut self,
        device: DeviceId,
        offer: DeltaOffer,
        to: ReplyTo,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<Option<Body>, Refusal> {
        if self.was_merged(device, &offer) {
            return Ok(Some(self.done(true, "")));
        }
        let lease = self.own_lease(device, offer.lease_id, offer.generation)?;
        let id = lease.record.id;
        if let Err(why) = screen::plausible(&self.spec, &self.delta_bytes, lease, &offer, now) {
            self.close(id, LeaseOutcome::ScreenedOut, 0, turn);
            return Err(Refusal::with(RefusalCode::BadDelta, RefusalAction::DropLease, limits::tame(&why)));
        }
        self.leases.renew(id, now, false);
        turn.effects.push(Action::MeasureDelta { to, device, offer });
        Ok(None)
    }

    /// An offered delta was measured: it is merged, once, or screened out.
    pub(super) fn delta_measured(
        &mut self,
        device: DeviceId,
        offer: &DeltaOffer,
        measured: Result<Measured, String>,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<Body, Refusal> {
        if self.was_merged(device, offer) {
            return Ok(self.done(true, ""));
        }
        let lease = self.own_lease(device, offer.lease_id, offer.generation)?.clone();
        let staleness = self.staleness(&lease);
        let verdict = screen::plausible(&self.spec, &self.delta_bytes, &lease, offer, now).and(measured).and_then(|m| {
            self.screen.judge(&self.spec, m, offer.steps, staleness, self.tokens + self.tokens_of(offer))?;
            Ok(m)
        });
        match verdict {
            Ok(measured) => {
                self.merge(&lease, offer, measured, now, turn)?;
                Ok(self.done(true, ""))
            }
            Err(why) => {
                self.close(lease.record.id, LeaseOutcome::ScreenedOut, 0, turn);
                Ok(self.done(false, &why))
            }
        }
    }

    /// Versions since the one that the lease started from. One that is being pressed counts: its deltas are chosen, so that
    /// this one comes on top of it.
    fn staleness(&self, lease: &OpenLease) -> u64 {
        let under = self.publishing.or(self.versions.newest().map(|v| v.version));
        under.map_or(0, |under| under.0 - lease.record.base_version.0)
    }

    fn tokens_of(&self, offer: &DeltaOffer) -> u64 {
        u64::from(offer.samples) * self.spec.tokens_per_sample()
    }

    /// Whether the offer is for the lease that the device's last merged delta was for: a retry, answered as before.
    fn was_merged(&self, device: DeviceId, offer: &DeltaOffer) -> bool {
        let lease = (LeaseId(offer.lease_id), Generation(offer.generation));
        self.roster.get(device).is_some_and(|d| d.last_merged == Some(lease))
    }

    /// Writes the delta down, ends its lease, learns the device's speed, and has the delta merged.
    fn merge(
        &mut self,
        lease: &OpenLease,
        offer: &DeltaOffer,
        measured: Measured,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<(), Refusal> {
        let LeaseRecord { id, generation, device, .. } = lease.record;
        let blob = offer.delta.as_ref().and_then(|b| Some((b.name()?, b.bytes)));
        let (blob, bytes) = blob.ok_or_else(|| Refusal::lease_gone("The offer names no delta."))?;
        let (staleness, tokens) = (self.staleness(lease), self.tokens_of(offer));
        let weight = self.spec.merge.staleness.weight(staleness);
        // What a lease took that was granted before this process started, only the calendar knows.
        let wall_ms = match lease.granted {
            Some(granted) => now.since(granted).as_millis() as u64,
            None => self.wall.unix_ms.saturating_sub(lease.record.issued_at.unix_ms),
        };
        self.last_seq += 1;
        self.tokens += tokens;
        turn.records.push(Record::Delta(DeltaRecord {
            seq: self.last_seq,
            lease: id,
            device,
            blob,
            bytes,
            steps: offer.steps,
            tokens,
            staleness,
            weight,
            norm: measured.norm,
            train_ms: offer.train_ms,
            wall_ms,
            loss_first: offer.loss_first,
            loss_last: offer.loss_last,
            merged_at: self.wall,
        }));
        let behind = self.leases.take_behind(id);
        self.close(id, LeaseOutcome::Merged, offer.samples, turn);
        if let Some(range) = behind {
            let (begun, until) = (lease.granted.unwrap_or(lease.born), now + lease.allowance);
            self.kept.keep(device, Ahead { lease: id, range, steps: lease.ahead_steps, since: now, begun, until });
            // Who stopped early does not go on behind a gap.
            if offer.samples < lease.record.samples {
                self.release(device);
            }
        }
        if let Some(device) = self.roster.get_mut(device) {
            device.tokens += tokens;
            device.merged += 1;
            device.last_merged = Some((id, generation));
            // A lease that spans a restart of the coordinator says nothing about the device's speed.
            if lease.granted.is_some() {
                device.pace.learn(tokens, offer.train_ms as f64 / 1000.0, wall_ms as f64 / 1000.0);
                device.record.tokens_per_s = device.pace.tokens_per_s();
                turn.records.push(Record::Device(device.record.clone()));
            }
        }
        turn.effects.push(Action::Merge(MergeOrder { seq: self.last_seq, lease: id, delta: blob, tokens, weight }));
        Ok(())
    }

    /// The held-out loss that an evaluate lease measured.
    pub(super) fn evaluated(&mut self, device: DeviceId, evaluation: &Evaluation, turn: &mut Turn) -> Result<Body, Refusal> {
        let lease = self.own_lease(device, evaluation.lease_id, evaluation.generation)?.record.clone();
        let tokens = u64::from(lease.samples) * self.spec.tokens_per_sample();
        let fits = lease.kind == LeaseKind::Evaluate && evaluation.tokens == tokens;
        if !(fits && evaluation.nats.is_finite() && evaluation.nats >= 0.0) {
            self.close(lease.id, LeaseOutcome::ScreenedOut, 0, turn);
            let sentence = "The measured loss does not fit its lease.";
            return Err(Refusal::with(RefusalCode::BadDelta, RefusalAction::DropLease, sentence));
        }
        self.close(lease.id, LeaseOutcome::Evaluated, 0, turn);
        // A shard is shuffled, so its first samples have their share of its text; for byte tokens this is exact.
        let text_bytes = self
            .manifest
            .heldout
            .first()
            .map_or(0, |s| (u128::from(s.text_bytes) * u128::from(lease.samples) / u128::from(s.samples.max(1))) as u64);
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
