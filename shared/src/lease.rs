//! What a lease is for, in one word on the wire, in the ledger, in the journal and on every page.

use crate::wire;
use serde::{Deserialize, Serialize};

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
}
