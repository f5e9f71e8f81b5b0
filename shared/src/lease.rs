//! A lease's vocabulary: what it is for, and what was trained under it. The wire, the ledger, the journal and the pages
//! all speak it.

use crate::{
    blob::BlobRef,
    ids::{BlobHash, Generation, LeaseId},
    wire::{self, worker},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseKind {
    /// Inner steps on a range of samples, from which a delta comes.
    Train,
    /// Held-out loss of a version.
    Evaluate,
}

impl LeaseKind {
    /// Every kind.
    pub const ALL: [LeaseKind; 2] = [LeaseKind::Train, LeaseKind::Evaluate];

    /// The kind's word in ledgers, journals and pages.
    pub const fn name(self) -> &'static str {
        match self {
            LeaseKind::Train => "train",
            LeaseKind::Evaluate => "evaluate",
        }
    }

    /// The kind's number in a message.
    pub const fn to_wire(self) -> i32 {
        let kind = match self {
            LeaseKind::Train => wire::LeaseKind::Train,
            LeaseKind::Evaluate => wire::LeaseKind::Evaluate,
        };
        kind as i32
    }

    /// The kind with this number in a message; `None` if it is not one that this version knows.
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_wire() == number)
    }

    /// Whether a lease of this kind takes samples from the pool and ends in a delta. Only then does it have steps, a
    /// codec and an upload, and only then can it be stopped half-way and still be of use.
    pub const fn trains(self) -> bool {
        match self {
            LeaseKind::Train => true,
            LeaseKind::Evaluate => false,
        }
    }
}

/// What was trained under a lease. A worker reports it, its agent journals and offers it, and the coordinator merges
/// it; each holds it against the lease before it believes a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Inner steps taken.
    pub steps: u32,
    /// Samples used, from the start of the lease's range.
    pub samples: u32,
    /// Time in inner steps, in milliseconds, with the pauses that the owner's cap asks for.
    pub train_ms: u64,
    /// Loss of the first inner step, nats a token.
    pub loss_first: f64,
    /// Loss of the last inner step, nats a token.
    pub loss_last: f64,
    /// The delta; a journal calls it `blob`.
    #[serde(rename = "blob")]
    pub delta: BlobRef,
}

impl Trained {
    /// Reads a worker's report; `None` if its delta has no hash.
    pub fn from_worker(said: &worker::Trained) -> Option<Self> {
        let delta = BlobRef { hash: BlobHash::from_bytes(&said.delta_hash)?, bytes: said.delta_bytes };
        let worker::Trained { steps, samples, train_ms, loss_first, loss_last, .. } = *said;
        Some(Trained { steps, samples, train_ms, loss_first, loss_last, delta })
    }

    /// Time in inner steps.
    pub const fn time(&self) -> Duration {
        Duration::from_millis(self.train_ms)
    }
}

/// What a device offers for a lease of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// The lease's number.
    pub lease: LeaseId,
    /// The generation of the coordinator that issued it.
    pub generation: Generation,
    /// What was trained.
    pub trained: Trained,
}

impl Offer {
    /// Reads a message; `None` if it names no delta.
    pub fn from_wire(offer: &wire::DeltaOffer) -> Option<Self> {
        let delta = BlobRef::from_wire(offer.delta.as_ref()?)?;
        let wire::DeltaOffer { lease_id, generation, steps, samples, train_ms, loss_first, loss_last, .. } = *offer;
        let trained = Trained { steps, samples, train_ms, loss_first, loss_last, delta };
        Some(Offer { lease: LeaseId(lease_id), generation: Generation(generation), trained })
    }

    /// As a message.
    pub fn to_wire(&self) -> wire::DeltaOffer {
        let Trained { steps, samples, train_ms, loss_first, loss_last, delta } = self.trained;
        let (lease_id, generation, delta) = (self.lease.0, self.generation.0, Some(delta.to_wire()));
        wire::DeltaOffer { lease_id, generation, delta, steps, samples, train_ms, loss_first, loss_last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The match makes whoever adds a kind put it here, and this test makes them put it in the list.
    #[test]
    fn the_list_holds_every_kind() {
        let next = |kind| match kind {
            LeaseKind::Train => Some(LeaseKind::Evaluate),
            LeaseKind::Evaluate => None,
        };
        let kinds: Vec<LeaseKind> = std::iter::successors(Some(LeaseKind::Train), |kind| next(*kind)).collect();
        assert_eq!(kinds, LeaseKind::ALL);
    }

    #[test]
    fn a_kind_has_one_word_and_one_number() {
        for kind in LeaseKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(LeaseKind::from_wire(kind.to_wire()), Some(kind));
        }
        assert_eq!(LeaseKind::ALL.map(LeaseKind::name), ["train", "evaluate"], "written down for ever");
        for unknown in [-1, wire::LeaseKind::Unspecified as i32, wire::LeaseKind::Audit as i32, 9] {
            assert_eq!(LeaseKind::from_wire(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn an_offer_survives_a_message_and_needs_a_delta() {
        let delta = BlobRef::of(b"delta");
        let trained = Trained { steps: 1, samples: 2, train_ms: 3, loss_first: 5.0, loss_last: 4.0, delta };
        let offer = Offer { lease: LeaseId(6), generation: Generation(7), trained };
        assert_eq!(Offer::from_wire(&offer.to_wire()), Some(offer));
        let nameless = wire::Blob { hash: vec![1; 31], bytes: 5 };
        for delta in [None, Some(nameless)] {
            assert_eq!(Offer::from_wire(&wire::DeltaOffer { delta, ..offer.to_wire() }), None);
        }
        let said = worker::Trained {
            delta_hash: delta.hash.0.to_vec(),
            delta_bytes: 5,
            steps: 1,
            samples: 2,
            train_ms: 3,
            loss_first: 5.0,
            loss_last: 4.0,
            ..Default::default()
        };
        assert_eq!(Trained::from_worker(&said), Some(trained));
        assert_eq!(Trained::from_worker(&worker::Trained { delta_hash: vec![], ..said }), None);
    }
}
