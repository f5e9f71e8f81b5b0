//! The messages that a session sends, made from its state.

use super::{Question, Session, Stage, Timer, Upload};
use crate::{
    journal::{HeldWeights, Run},
    lease::Lease,
};
use nightjar_shared::{
    delta::CodecId,
    lease::{LeaseKind, Offer},
    wire::{self, device_message as ask, worker},
};

/// What this program calls itself.
pub const SOFTWARE: &str = concat!("nightjar ", env!("CARGO_PKG_VERSION"));

impl Session {
    /// What there is to ask, once greeted.
    pub(super) fn question(&self) -> Option<(Question, ask::Body)> {
        if self.parting.leaving {
            return Some((Question::Leave, ask::Body::Leave(wire::Leave {})));
        }
        let Some(lease) = &self.journal.lease else {
            let waits = self.timers.pending(Timer::Work) || self.timers.pending(Timer::Again);
            let wanted = self.may_train() && !waits && self.disk_works();
            return wanted.then(|| (Question::Lease, ask::Body::LeaseRequest(self.lease_request())));
        };
        let (lease_id, generation) = (lease.id.0, lease.generation.0);
        match &self.stage {
            Stage::Delivering { upload } if self.is_stored() => {
                let delta = self.journal.delta.as_ref().filter(|_| *upload == Upload::Unasked)?;
                let offer = Offer { lease: lease.id, generation: lease.generation, trained: delta.trained };
                Some((Question::Offer, ask::Body::DeltaOffer(offer.to_wire())))
            }
            Stage::Measured { nats, tokens } if self.is_stored() => {
                let body = wire::Evaluation { lease_id, generation, nats: *nats, tokens: *tokens };
                Some((Question::Evaluation, ask::Body::Evaluation(body)))
            }
            Stage::Returning { why } if self.is_stored() => {
                let body = wire::LeaseReturn { lease_id, generation, why: why.clone() };
                Some((Question::Return, ask::Body::LeaseReturn(body)))
            }
            // While the journal cannot be written the lease is renewed, and nothing else.
            Stage::Idle
            | Stage::Fetching { .. }
            | Stage::Working { .. }
            | Stage::Delivering { .. }
            | Stage::Measured { .. }
            | Stage::Returning { .. } => {
                let body = wire::LeaseRenew { lease_id, generation, steps_done: self.course.training.steps };
                self.line.renew_due.then_some((Question::Renew, ask::Body::LeaseRenew(body)))
            }
        }
    }

    pub(super) fn hello(&self) -> wire::Hello {
        let run = self.journal.run.as_ref();
        wire::Hello {
            software: SOFTWARE.into(),
            // An enrolled device needs none, but a coordinator whose ledger was restored may have forgotten it.
            invite: self.profile.token.clone(),
            role: self.profile.role as i32,
            codecs: CodecId::ALL.iter().map(|c| *c as u32).collect(),
            kinds: self.profile.kinds.iter().map(|k| k.to_wire()).collect(),
            name: self.profile.name.clone(),
            device: self.profile.hardware.clone(),
            run_id: run.map_or_else(Vec::new, |r| r.id.0.to_vec()),
            public_name: self.profile.public_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    pub(super) fn lease_request(&self) -> wire::LeaseRequest {
        let held = |w: &HeldWeights| wire::HeldWeights { version: w.version.0, digest: w.digest.0.to_vec() };
        wire::LeaseRequest {
            held: self.journal.weights.as_ref().map(held),
            shards: self.journal.shards.iter().map(|s| s.hash.0.to_vec()).collect(),
            memory_bytes: self.profile.memory_bytes,
            ahead_of: self.ahead().map_or(0, |ahead| ahead.of.0),
        }
    }

    pub(super) fn job(&self, lease: &Lease, run: &Run) -> worker::to_worker::Body {
        let from_held = lease.keyframe.is_none();
        let base = worker::Base {
            weights_file: self
                .journal
                .weights
                .as_ref()
                .filter(|_| from_held)
                .map_or_else(String::new, |w| w.file.clone()),
            keyframe_file: lease.keyframe.map_or_else(String::new, |k| k.file()),
            updates: lease
                .updates
                .iter()
                .map(|u| worker::UpdateFile { file: u.blob.file(), redefines: u.redefines })
                .collect(),
            version: lease.base_version.0,
            digest: lease.base_digest.0.to_vec(),
        };
        let slice = worker::Slice {
            shard_file: lease.shard.file(),
            shard_samples: lease.shard_samples,
            first_sample: lease.first_sample,
            samples: lease.samples,
        };
        let (lease_id, run_spec_json, base, slice) = (lease.id.0, run.spec_json.clone(), Some(base), Some(slice));
        match lease.kind {
            LeaseKind::Evaluate => {
                worker::to_worker::Body::Evaluate(worker::Evaluate { lease_id, run_spec_json, base, slice })
            }
            LeaseKind::Train => worker::to_worker::Body::Train(worker::Train {
                lease_id,
                run_spec_json,
                base,
                slice,
                steps: lease.steps,
                progress_tokens: lease.progress_tokens,
                progress_tokens_per_step: lease.progress_tokens_per_step,
                codec: lease.codec,
                residual_file: self.journal.residual.clone().unwrap_or_default(),
                residual_scale: self.residual_scale(lease),
                optimizer_file: self.journal.optimizer.clone().unwrap_or_default(),
                checkpoint_ms: self.checkpoint_ms(),
                ahead_steps: lease.ahead_steps,
                ahead_of: lease.ahead_of.map_or(0, |lease| lease.0),
            }),
        }
    }
}
