//! Answering a lease request: the lease that a device has already, a version to evaluate, or samples to train on.

use super::{
    Engine,
    ahead::{AHEAD_S_MAX, Ahead},
    bounds::IDLE_LEASES_MAX,
    leases::{self, OpenLease, Told},
    open_lease,
    record::{LeaseOutcome, LeaseRecord, Record},
    roster::Session,
    turn::Turn,
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, LeaseId, Version},
    lease::LeaseKind,
    shard::ShardInfo,
    time::Mono,
    wire::{self, HeldWeights, LeaseRequest, Refusal, RefusalAction, RefusalCode, Role},
};
use std::time::Duration;

/// A device without memory enough asks again after so long: its owner may have closed something, or allow more.
const MEMORY_AGAIN: Duration = Duration::from_secs(600);
/// And so does one that no shard can be had for.
const DATA_AGAIN: Duration = Duration::from_secs(60);

impl Engine {
    /// A lease for a device that asks for one.
    ///
    /// A device holds one lease at most. If it has one already, it has lost it (the answer, or its memory): it gets the
    /// same again where that would be issued today, from the same version; otherwise that one ends as returned.
    pub(super) fn lease(
        &mut self,
        device: DeviceId,
        session: Session,
        request: &LeaseRequest,
        now: Mono,
        turn: &mut Turn,
    ) -> Result<wire::Lease, Refusal> {
        let newest = self.versions.newest().map(|v| v.version);
        let Some(newest) = newest else {
            return Err(self.retry(
                RefusalCode::Busy,
                "The run is about to start.",
                Duration::from_secs(1),
                device,
                now,
            ));
        };
        let held = request.held.as_ref().map(|held| Version(held.version));
        self.unheard_of = self.unheard_of.max(held.filter(|held| *held > newest));
        if let Some(OpenLease { record, .. }) = self.leases.of_device(device) {
            let id = record.id;
            let may = match record.kind {
                LeaseKind::Train => session.trains && record.base_version == newest,
                LeaseKind::Evaluate => session.evaluates,
            };
            let is_current = may && self.shard_of(record).is_some_and(|shard| !self.lost_shards.contains(&shard.hash));
            if is_current {
                self.leases.renew(id, now, true);
                return self.tell(device, request.held.as_ref(), now);
            }
            self.close(id, LeaseOutcome::Returned, 0, turn);
        }
        self.paused(device, now)?;
        // Whatever the device trained ahead, it is of use for a lease to train only.
        let ahead = self.release(device).filter(|ahead| ahead.lease.0 == request.ahead_of);
        let lease = match self.version_to_evaluate(newest).filter(|_| session.evaluates) {
            Some(version) => self.evaluate_lease(device, version, now),
            None => self.train_lease(device, session, request, newest, ahead, now)?,
        };
        let (id, base_version) = (lease.record.id, lease.record.base_version);
        self.last_lease = id;
        match lease.record.kind {
            LeaseKind::Evaluate => self.evaluating = Some((base_version, id)),
            LeaseKind::Train if self.spec.has_rounds() => {
                let overhead_s = self.roster.pace(device).overhead_s();
                self.round.issued(id, overhead_s);
            }
            LeaseKind::Train => {}
        }
        turn.records.push(Record::LeaseIssued(lease.record.clone()));
        self.leases.insert(lease);
        self.tell(device, request.held.as_ref(), now)
    }

    /// Tells the device of its lease.
    fn tell(&mut self, device: DeviceId, held: Option<&HeldWeights>, now: Mono) -> Result<wire::Lease, Refusal> {
        let lease = self.describe(device, held, now)?;
        let told = Told { tokens: lease.progress_tokens, tokens_per_step: lease.progress_tokens_per_step };
        self.leases.tell(LeaseId(lease.id), told);
        Ok(lease)
    }

    /// The version whose held-out loss is wanted: the newest multiple of `evaluate.every`, and the run's last.
    fn version_to_evaluate(&self, newest: Version) -> Option<Version> {
        let every = self.spec.evaluate.every;
        let is_last = self.finished() && self.versions.newest().is_some_and(|v| v.through_seq == self.last_seq);
        // Who gives weights asks for the loss of what comes of them.
        let wanted = if is_last || self.series_is_over() { newest } else { Version(newest.0 - newest.0 % every) };
        let is_taken = self.evaluating.is_some_and(|(version, _)| version >= wanted)
            || self.evaluation.as_ref().is_some_and(|e| e.version >= wanted);
        let is_possible =
            self.versions.get(wanted).is_some() && self.heldout().is_some_and(|s| !self.lost_shards.contains(&s.hash));
        (!is_taken && is_possible).then_some(wanted)
    }

    pub(super) fn something_to_evaluate(&self) -> bool {
        self.versions.newest().and_then(|v| self.version_to_evaluate(v.version)).is_some()
    }

    fn heldout(&self) -> Option<&ShardInfo> {
        self.manifest.heldout.first().filter(|s| s.samples > 0)
    }

    /// What a lease is about.
    fn shard_of(&self, lease: &LeaseRecord) -> Option<&ShardInfo> {
        match lease.kind {
            LeaseKind::Train => self.manifest.train.get(lease.shard as usize),
            LeaseKind::Evaluate => self.heldout(),
        }
    }

    fn evaluate_lease(&self, device: DeviceId, version: Version, now: Mono) -> OpenLease {
        let samples = self.heldout().map_or(0, |s| s.samples.min(self.spec.evaluate.samples));
        let record = LeaseRecord { kind: LeaseKind::Evaluate, base_version: version, samples, ..self.blank(device) };
        open_lease(&self.spec, self.parameters, record, &self.roster.pace(device), now, Some(now))
    }

    /// A lease that fills the device's time from now on, or from when it began to train `ahead`, and as many samples
    /// behind it, for the device to train ahead.
    fn train_lease(
        &mut self,
        device: DeviceId,
        session: Session,
        request: &LeaseRequest,
        newest: Version,
        ahead: Option<Ahead>,
        now: Mono,
    ) -> Result<OpenLease, Refusal> {
        if self.finished() {
            let hour = Duration::from_secs(3600);
            return Err(self.retry(RefusalCode::RunOver, "The run is over. Thank you.", hour, device, now));
        }
        let nothing = |engine: &Engine| {
            engine.retry(
                RefusalCode::NoWork,
                "There is nothing to do at the moment.",
                Duration::from_secs(1),
                device,
                now,
            )
        };
        if !session.trains {
            return Err(nothing(self));
        }
        if let Some(wait) = self.idle(now) {
            let sentence = "The run waits for its lab to begin the next rounds. This device asks again by itself.";
            return Err(self.retry(RefusalCode::NoWork, sentence, wait, device, now));
        }
        if let Some(refusal) = self.held_for_refusals(device, now) {
            return Err(refusal);
        }
        let is_anchors = self.roster.get(device).is_some_and(|d| d.record.role == Role::Anchor);
        if !is_anchors && self.tokens < self.spec.lease.warm_tokens && self.leases.of_anchors > 0 {
            let sentence = "Its anchor nodes begin the run; all others join in a little later.";
            return Err(self.retry(RefusalCode::NoWork, sentence, Duration::from_secs(60), device, now));
        }
        if request.memory_bytes > 0 && request.memory_bytes < self.training_bytes {
            let [needed, free] = [self.training_bytes.div_ceil(1 << 20), request.memory_bytes >> 20];
            let sentence = format!(
                "This run's model takes {needed} MiB of memory to train, and this device may give it {free} MiB: what \
                is free there, within its owner's limits."
            );
            return Err(self.retry(RefusalCode::NoWork, &sentence, MEMORY_AGAIN, device, now));
        }
        let pace = self.roster.pace(device);
        let (batch, per_step) = (self.spec.inner.batch_samples, self.spec.tokens_per_step());
        let to_the_end = (self.spec.token_budget - self.tokens).div_ceil(per_step);
        let since = ahead.map_or(now, |ahead| ahead.since);
        let lease_s = self.lease_s(device, &pace, now) + now.since(since).as_secs_f64();
        // What is trained ahead is part of it, whatever the time says.
        let steps = leases::steps_for(&self.spec, &pace, lease_s).max(ahead.map_or(0, |ahead| ahead.steps));
        let samples = steps.min(u32::try_from(to_the_end).unwrap_or(u32::MAX)).saturating_mul(batch);
        let with_behind = if self.spec.trains_ahead() { samples.saturating_mul(2) } else { samples };
        let named = request.shards.iter().filter_map(|hash| BlobHash::from_bytes(hash));
        let near = named.filter_map(|hash| self.shard_by_hash.get(&hash).copied());
        let range = match ahead {
            Some(ahead) => self.pool.take_from(ahead.range, with_behind),
            None => {
                let is_lost = |shard: u32| {
                    self.manifest.train.get(shard as usize).is_some_and(|s| self.lost_shards.contains(&s.hash))
                };
                self.pool.take(with_behind, near, is_lost)
            }
        };
        let Some(range) = range else {
            if self.lost_shards.is_empty() {
                return Err(nothing(self));
            }
            let sentence = "The coordinator's copy of the data is damaged; its operator is told.";
            return Err(self.retry(RefusalCode::NoWork, sentence, DATA_AGAIN, device, now));
        };
        let (range, behind) = range.split(samples);
        let record = LeaseRecord {
            base_version: newest,
            epoch: range.epoch,
            shard: range.shard,
            first_sample: range.first,
            samples: range.samples,
            steps: range.samples / batch,
            ..self.blank(device)
        };
        let lease = open_lease(&self.spec, self.parameters, record, &pace, now, Some(since));
        let is_idle = self.roster.get(device).is_some_and(|d| d.idle_leases >= IDLE_LEASES_MAX);
        let lease = if is_idle { OpenLease { speed_milli: 0, ..lease } } else { lease };
        // A device whose speed is still to be measured has a lease of a few steps, so half as many more are not long
        // either.
        let steps_max = pace.tokens_in(AHEAD_S_MAX).map_or(u32::MAX, |tokens| (tokens / per_step as f64) as u32);
        // Half a lease: the next is as long at least, and should not be longer than its time because of that.
        let ahead_steps =
            behind.map_or(0, |behind| behind.samples / batch).min(lease.record.steps.div_ceil(2)).min(steps_max);
        // How long it says to have trained is held against the time since it may have begun.
        let born = ahead.map_or(now, |ahead| ahead.begun);
        Ok(OpenLease { is_anchors, behind, ahead_steps, ahead_of: ahead.map(|ahead| ahead.lease), born, ..lease })
    }

    /// The next lease's number and circumstances; its work is for the caller to fill in.
    fn blank(&self, device: DeviceId) -> LeaseRecord {
        LeaseRecord {
            id: self.last_lease.next(),
            generation: self.generation,
            device,
            kind: LeaseKind::Train,
            base_version: Version(0),
            epoch: 0,
            shard: 0,
            first_sample: 0,
            samples: 0,
            steps: 0,
            issued_at: self.wall,
        }
    }

    /// The device's open lease, in words for the device.
    fn describe(&self, device: DeviceId, held: Option<&HeldWeights>, now: Mono) -> Result<wire::Lease, Refusal> {
        let internal = || Refusal::with(RefusalCode::Internal, RefusalAction::Retry, "The coordinator lost a version.");
        let lease = self.leases.of_device(device).ok_or_else(internal)?;
        let record = &lease.record;
        let base = self.versions.get(record.base_version).ok_or_else(internal)?;
        let path = self.versions.path(held, record.base_version).ok_or_else(internal)?;
        let shard = self.shard_of(record).ok_or_else(internal)?;
        Ok(wire::Lease {
            id: record.id.0,
            generation: record.generation.0,
            kind: record.kind.to_wire(),
            base_version: record.base_version.0,
            base_digest: base.digest.to_vec(),
            keyframe: path.keyframe,
            updates: path.updates,
            shard: Some(shard.blob().to_wire()),
            shard_samples: shard.samples,
            first_sample: record.first_sample,
            samples: record.samples,
            steps: record.steps,
            progress_tokens: self.tokens,
            progress_tokens_per_step: self.tokens_per_step_of_all(lease),
            remaining_ms: lease.deadline.since(now).as_millis() as u64,
            codec: self.spec.delta.codec as u32,
            ahead_steps: lease.ahead_steps,
            ahead_of: lease.ahead_of.map_or(0, |id| id.0),
        })
    }

    /// By how much the whole run moves on while this device takes a step: its share of all speeds decides. Where its
    /// speed is not known yet, it is taken for as fast as the others.
    fn tokens_per_step_of_all(&self, lease: &OpenLease) -> u64 {
        let (own, all, per_step) = (lease.speed_milli, self.leases.speed_milli, self.spec.tokens_per_step());
        let devices = if own > 0 { all as f64 / own as f64 } else { self.leases.len() as f64 };
        (per_step as f64 * devices.max(1.0)) as u64
    }
}
