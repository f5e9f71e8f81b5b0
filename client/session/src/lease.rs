//! A lease as the device keeps it: what the coordinator's message says, checked once, in types that the journal can
//! hold.

use nightjar_shared::{
    blob::BlobRef,
    delta::CodecId,
    ids::{BlobHash, Generation, LeaseId, Version},
    lease::LeaseKind,
    wire::{self, limits},
};
use serde::{Deserialize, Serialize};

/// One update on the way to a lease's base version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStep {
    /// The update.
    pub blob: BlobRef,
    /// Whether its result is rounded to bf16.
    pub redefines: bool,
}

/// A lease of this device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// Of the coordinator that issued it.
    pub generation: Generation,
    /// What for.
    pub kind: LeaseKind,
    /// The version to start from.
    pub base_version: Version,
    /// The digest of that version's weights.
    pub base_digest: BlobHash,
    /// The whole model, where the path starts with it; else it starts from the weights that the device holds.
    pub keyframe: Option<BlobRef>,
    /// Then these, in order.
    pub updates: Vec<UpdateStep>,
    /// The shard that holds the samples.
    pub shard: BlobRef,
    /// Samples in that shard.
    pub shard_samples: u32,
    /// First sample of the range.
    pub first_sample: u32,
    /// Samples in the range.
    pub samples: u32,
    /// Inner steps that the range makes.
    pub steps: u32,
    /// Tokens that the run had merged.
    pub progress_tokens: u64,
    /// By how much the run moves on in one of this device's steps.
    pub progress_tokens_per_step: u64,
    /// The codec of its delta.
    pub codec: u32,
    /// Inner steps that may be taken behind its range while its delta travels.
    #[serde(default)]
    pub ahead_steps: u32,
    /// The lease behind which it was trained ahead: it begins with those steps.
    #[serde(default)]
    pub ahead_of: Option<LeaseId>,
}

/// A lease message that makes no sense; says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator sent a lease that cannot be carried out: {0}")]
pub struct BadLease(&'static str);

impl Lease {
    /// Checks a message. `holds_weights` says whether the request named weights to start from.
    pub fn from_wire(m: &wire::Lease, holds_weights: bool) -> Result<Self, BadLease> {
        let kind = LeaseKind::from_wire(m.kind).ok_or(BadLease("its kind is unknown"))?;
        let named = |blob| BlobRef::from_wire(blob).ok_or(BadLease("a blob has no name"));
        let updates = m.updates.iter().map(|u| {
            let blob = u.update.as_ref().ok_or(BadLease("an update has no name"))?;
            Ok(UpdateStep { blob: named(blob)?, redefines: u.redefines })
        });
        let lease = Lease {
            id: LeaseId(m.id),
            generation: Generation(m.generation),
            kind,
            base_version: Version(m.base_version),
            base_digest: BlobHash::from_bytes(&m.base_digest).ok_or(BadLease("its base has no digest"))?,
            keyframe: m.keyframe.as_ref().map(named).transpose()?,
            updates: updates.collect::<Result<_, _>>()?,
            shard: named(m.shard.as_ref().ok_or(BadLease("it names no shard"))?)?,
            shard_samples: m.shard_samples,
            first_sample: m.first_sample,
            samples: m.samples,
            steps: m.steps,
            progress_tokens: m.progress_tokens,
            progress_tokens_per_step: m.progress_tokens_per_step,
            codec: m.codec,
            ahead_steps: m.ahead_steps,
            ahead_of: (m.ahead_of != 0).then_some(LeaseId(m.ahead_of)),
        };
        let end = u64::from(lease.first_sample) + u64::from(lease.samples);
        let is_too_long = |blob: BlobRef| blob.bytes > limits::BLOB_BYTES_MAX;
        let faults = [
            (lease.blobs().any(is_too_long), "a blob is larger than any may be"),
            (lease.keyframe.is_none() && !holds_weights, "it starts from weights that this device does not have"),
            (lease.updates.len() > limits::UPDATE_STEPS_MAX, "its path has too many updates"),
            (lease.samples == 0 || end > u64::from(lease.shard_samples), "its samples are not in its shard"),
            (kind.trains() && lease.steps == 0, "it has no steps"),
            (kind.trains() && CodecId::from_number(lease.codec).is_none(), "its codec is unknown"),
        ];
        match faults.into_iter().find(|(fault, _)| *fault) {
            Some((_, why)) => Err(BadLease(why)),
            None => Ok(lease),
        }
    }

    /// All blobs that carrying it out needs, in the order to fetch them.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        self.keyframe.into_iter().chain(self.updates.iter().map(|u| u.blob)).chain([self.shard])
    }
}
