//! All that can happen to the engine, and all that it can want done. The shell (`server/`) and the simulator perform
//! the actions **in order**; if one fails, what follows is dropped and the engine is built anew from the ledger.

use super::{
    orders::{Giver, NotDone, Obeyed, Order},
    record::{Record, Squash},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, DeviceId, Generation, LeaseId, Version},
    lease::Offer,
    run_spec::RunSpec,
    wire::{self, coordinator_message, device_message},
};

/// Which request an answer belongs to. The shell makes them up; the engine only hands them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyTo(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A device asks. The shell has checked the connection's key (that is the id) and, in a hello, the invite's
    /// signature and expiry.
    Asked {
        /// Who.
        device: DeviceId,
        /// Where the answer goes.
        reply_to: ReplyTo,
        /// What.
        body: device_message::Body,
        /// In a hello that brought a token: the invite, signed by this coordinator and not expired.
        invite: Option<wire::Invite>,
    },
    /// The answer to [`Action::MeasureDelta`]: the blob is stored, whole and verified, and was decoded once.
    DeltaMeasured {
        /// Where the answer goes.
        reply_to: ReplyTo,
        /// Who offered it.
        device: DeviceId,
        /// The offer.
        offer: Offer,
        /// What was seen, or the reason why it is no delta for this run.
        measured: Result<Measured, String>,
    },
    /// The answer to [`Action::Publish`]: the blobs of a version are stored and synced.
    Published(Published),
    /// A blob that a version was published as, or a shard, is damaged, and cannot be made anew: no device is sent for
    /// it any more.
    BlobLost(BlobHash),
    /// A shard that was lost is whole again.
    BlobFound(BlobHash),
    /// Versions before this one are given up by the rule `[keep]`: no device is led over them any more.
    GivenUp(Version),
    /// What a device uploaded for a lease was not what it named, again and again.
    UploadsDamaged {
        /// Whose.
        device: DeviceId,
        /// Which.
        lease: LeaseId,
        /// The coordinator's, when it was issued.
        generation: Generation,
    },
    /// The coordinator is about to stop: no more leases are granted. What is on its way is still taken.
    Drain,
    /// What may change in a run that exists was changed ([`RunSpec::changed_to`]), and the ledger has it.
    SpecChanged(Box<RunSpec>),
    /// An operator orders something.
    Ordered {
        /// Where the answer goes.
        reply_to: ReplyTo,
        /// What.
        order: Order,
        /// Who.
        giver: Giver,
    },
    /// Time passed; `Engine::next_deadline` says when this is due.
    Tick,
}

/// What one pass over a delta shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Euclidean norm of the pseudo-gradient.
    pub norm: f64,
    /// Its largest value, without sign; 0 where nobody looked.
    pub largest: f64,
}

/// A version whose blobs are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Its number.
    pub version: Version,
    /// The change from the version before; `None` for the run's first.
    pub update: Option<BlobRef>,
    /// The whole, where one was asked for.
    pub keyframe: Option<BlobRef>,
    /// Digest of the weights (after the keyframe's rounding, where there is one).
    pub digest: [u8; 32],
    /// All deltas up to this sequence number are in it.
    pub through_seq: u64,
    /// The share of signal in the deltas of late, 0 to 1, where it is known.
    pub agreement: Option<f64>,
    /// Changes from earlier versions, each of several updates in one; the shortest first.
    pub squashes: Vec<Squash>,
    /// What it was made of, if that was given.
    pub given: Option<BlobRef>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Write these records in one transaction, conditional on this process's generation. Nothing after it happens
    /// unless it is durable.
    Commit(Vec<Record>),
    /// Answer a device.
    Reply {
        /// Which request.
        to: ReplyTo,
        /// The answer.
        body: coordinator_message::Body,
    },
    /// Answer whoever gave an order.
    Obeyed {
        /// Which one.
        to: ReplyTo,
        /// What came of it.
        done: Result<Obeyed, NotDone>,
    },
    /// If the offered blob is stored, decode it once and come back with [`Event::DeltaMeasured`]; if not, answer the
    /// request with `UploadFrom` and the length that is there already.
    MeasureDelta {
        /// Which request.
        to: ReplyTo,
        /// Who offered it.
        device: DeviceId,
        /// The offer.
        offer: Offer,
    },
    /// Add a delta to the merge buffer. It is in the ledger already.
    Merge(MergeOrder),
    /// Make a version, store its blobs, and come back with [`Event::Published`].
    Publish {
        /// The new version's number.
        version: Version,
        /// Whether it is to be a keyframe too.
        keyframe: bool,
        /// All deltas up to this one are in it.
        through_seq: u64,
        /// The weights that it is made of; `None`: it is made of what is in the buffer. What is in there is dropped.
        given: Option<BlobRef>,
    },
}

/// One delta's place in the merge: what replaying the ledger needs.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeOrder {
    /// Position among all merged deltas, from 1.
    pub seq: u64,
    /// The lease that it was trained for.
    pub lease: LeaseId,
    /// The blob.
    pub delta: BlobHash,
    /// Tokens that it was trained on: its share of the mean.
    pub tokens: u64,
    /// Its staleness weight.
    pub weight: f64,
}
