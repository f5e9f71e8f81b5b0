//! What the ledger keeps: one type a fact. Records are only ever added; the engine is rebuilt from them.

use nightjar_shared::{
    blob::BlobRef,
    ids::{DeviceId, Generation, LeaseId, Version},
    lease::LeaseKind,
    public_name::PublicName,
    time::Wall,
    wire::Role,
};

/// A fact to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A device enrolled, or changed its name or speed.
    Device(DeviceRecord),
    /// A lease was issued.
    LeaseIssued(LeaseRecord),
    /// A lease ended.
    LeaseClosed {
        /// Which.
        id: LeaseId,
        /// How.
        outcome: LeaseOutcome,
        /// Samples trained on and merged, from the range's start; the rest went back to the pool.
        samples_used: u32,
        /// When.
        at: Wall,
    },
    /// A delta was merged.
    Delta(DeltaRecord),
    /// A version was published.
    Version(VersionRecord),
    /// Held-out loss was measured.
    Evaluation(EvaluationRecord),
    /// A series was begun, cut short or ended: as it stands now.
    Series(SeriesRecord),
    /// A device is no part of the run any more.
    DeviceRevoked {
        /// Which.
        id: DeviceId,
        /// When.
        at: Wall,
    },
    /// Nobody enrols with an invite any more.
    InviteRevoked {
        /// What tells it from others.
        nonce: Vec<u8>,
        /// When.
        at: Wall,
    },
    /// Since when the run is paused; `None`: it goes on.
    Paused(Option<Wall>),
    /// The run goes on for longer than its file says.
    Extended {
        /// Until so many tokens are merged.
        token_budget: u64,
    },
    /// Somebody did something to the run.
    Audit(AuditRecord),
}

/// Who did what, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// When.
    pub at: Wall,
    /// Who: the name of a token, or where the command was given on the coordinator's computer.
    pub name: String,
    /// From which address.
    pub from: String,
    /// What: two words, as a command has them.
    pub action: String,
    /// To what: a device, an invite, a token; empty for the run.
    pub subject: String,
    /// What came of it.
    pub outcome: String,
}

/// A device of the roster.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRecord {
    /// Who.
    pub id: DeviceId,
    /// As its owner calls it.
    pub name: String,
    /// What trains.
    pub device: String,
    /// What its invite made it.
    pub role: Role,
    /// The invite that it came with.
    pub invite_nonce: Vec<u8>,
    /// When it first came.
    pub enrolled_at: Wall,
    /// Measured speed, tokens a second; 0 before its first delta.
    pub tokens_per_s: f64,
    /// Whether it has left.
    pub left: bool,
    /// As its owner wants to be called where everybody reads it; `None`: not at all.
    pub public_name: Option<PublicName>,
    /// Whether an operator has taken that name from the public page.
    pub name_hidden: bool,
}

impl DeviceRecord {
    /// The name by which everybody may know who helps.
    pub fn shown_name(&self) -> Option<&PublicName> {
        self.public_name.as_ref().filter(|_| !self.left && !self.name_hidden)
    }
}

/// A lease as it was issued.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseRecord {
    /// Its number.
    pub id: LeaseId,
    /// Of the coordinator that issued it.
    pub generation: Generation,
    /// Whose.
    pub device: DeviceId,
    /// What for.
    pub kind: LeaseKind,
    /// The version that it starts from.
    pub base_version: Version,
    /// Pass over the data that its samples belong to, from 0.
    pub epoch: u32,
    /// Position of the shard in the manifest's list.
    pub shard: u32,
    /// First sample within the shard.
    pub first_sample: u32,
    /// Number of samples.
    pub samples: u32,
    /// Inner steps.
    pub steps: u32,
    /// When it was issued.
    pub issued_at: Wall,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseOutcome {
    /// Its delta was merged.
    Merged,
    /// Its delta was screened out; its samples went back.
    ScreenedOut,
    /// The device gave it back.
    Returned,
    /// Its deadline passed.
    Expired,
    /// Its loss was recorded.
    Evaluated,
}

impl LeaseOutcome {
    /// Every outcome.
    pub const ALL: [LeaseOutcome; 5] = [
        LeaseOutcome::Merged,
        LeaseOutcome::ScreenedOut,
        LeaseOutcome::Returned,
        LeaseOutcome::Expired,
        LeaseOutcome::Evaluated,
    ];

    /// The outcome's word in the ledger and on pages.
    pub const fn name(self) -> &'static str {
        match self {
            LeaseOutcome::Merged => "merged",
            LeaseOutcome::ScreenedOut => "screened_out",
            LeaseOutcome::Returned => "returned",
            LeaseOutcome::Expired => "expired",
            LeaseOutcome::Evaluated => "evaluated",
        }
    }
}

/// A merged delta. Replaying all of them in order of `seq` gives the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaRecord {
    /// Position among all merged deltas, from 1.
    pub seq: u64,
    /// The lease.
    pub lease: LeaseId,
    /// The device.
    pub device: DeviceId,
    /// Its blob.
    pub blob: BlobRef,
    /// Inner steps taken.
    pub steps: u32,
    /// Tokens trained on.
    pub tokens: u64,
    /// Versions published since its base.
    pub staleness: u64,
    /// Staleness weight, as applied.
    pub weight: f64,
    /// Norm of the pseudo-gradient.
    pub norm: f64,
    /// Time in inner steps, as the device says.
    pub train_ms: u64,
    /// From grant to commit, as the coordinator saw it.
    pub wall_ms: u64,
    /// Loss of the first inner step, nats a token.
    pub loss_first: f64,
    /// Loss of the last inner step.
    pub loss_last: f64,
    /// When it was committed.
    pub merged_at: Wall,
}

/// A published version.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionRecord {
    /// Its number.
    pub version: Version,
    /// The change from the version before; `None` for the first.
    pub update: Option<BlobRef>,
    /// The whole, where it was published.
    pub keyframe: Option<BlobRef>,
    /// The weights that an operator gave and that it was made of, with no update; `None`: it follows from deltas.
    pub given: Option<BlobRef>,
    /// Digest of the weights.
    pub digest: [u8; 32],
    /// All deltas up to this one are in it.
    pub through_seq: u64,
    /// When.
    pub published_at: Wall,
    /// Changes from earlier versions, each of several updates in one; the shortest first.
    pub squashes: Vec<Squash>,
}

/// Several updates in one, for a device that was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squash {
    /// The version that it starts from.
    pub from: Version,
    /// The blob.
    pub blob: BlobRef,
}

impl VersionRecord {
    /// All that it was published as.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let own = [self.update, self.keyframe, self.given];
        own.into_iter().flatten().chain(self.squashes.iter().map(|s| s.blob))
    }

    /// Those of them that devices fetch.
    pub fn published(&self) -> impl Iterator<Item = BlobRef> + '_ {
        self.update.into_iter().chain(self.keyframe).chain(self.squashes.iter().map(|s| s.blob))
    }
}

/// Rounds in a row from weights that an operator gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesRecord {
    /// Position among all series, from 1.
    pub number: u64,
    /// As the operator calls it; no two in a row have the same.
    pub name: String,
    /// The weights: f32, little-endian, in flat order.
    pub weights: BlobRef,
    /// The version that is made of them.
    pub first: Version,
    /// Versions that are made after it; 0: it is only evaluated.
    pub rounds: u32,
    /// Whether it ends at once, with whatever is there.
    pub is_cut: bool,
    /// Deltas up to this one were merged before it, and count for nothing in it.
    pub after_seq: u64,
    /// Leases and deltas that were on their way when it began or ended, from weights that were no longer wanted.
    pub left_out: u64,
    /// When it was begun.
    pub begun_at: Wall,
}

impl SeriesRecord {
    /// The version that answers it.
    pub fn last(&self) -> Version {
        Version(self.first.0.saturating_add(self.rounds.into()))
    }
}

/// A measured held-out loss.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationRecord {
    /// Of which version.
    pub version: Version,
    /// Under which lease.
    pub lease: LeaseId,
    /// Summed over all predicted tokens, nats.
    pub nats: f64,
    /// Predicted tokens.
    pub tokens: u64,
    /// Bytes of text behind them.
    pub text_bytes: u64,
    /// When.
    pub measured_at: Wall,
}

impl EvaluationRecord {
    /// The loss in nats a byte of text: comparable between vocabularies.
    pub fn nats_per_byte(&self) -> f64 {
        self.nats / self.text_bytes.max(1) as f64
    }
}
