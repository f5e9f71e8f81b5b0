//! A blob on its way: how fast it comes, and what of it has arrived when the connection breaks.

use nightjar_shared::{blob::BlobRef, ids::LeaseId, wire::limits::CHUNK_BYTES};

/// What a blob is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The whole model.
    Keyframe,
    /// A change of it.
    Update,
    /// Data.
    Shard,
    /// What a device trained.
    Delta(LeaseId),
}

/// A blob on its way.
#[derive(Debug)]
pub struct Transfer {
    /// What for.
    pub kind: Kind,
    /// Which.
    pub blob: BlobRef,
    /// A delta's bytes, where there are any.
    pub delta: Vec<u8>,
    /// Bytes that were there before.
    pub offset: u64,
    /// When the first byte arrives, in virtual seconds.
    pub from_s: f64,
    /// When the last byte does.
    pub to_s: f64,
    /// Bytes that were sent but not yet taken in: lost when the connection breaks.
    pub in_flight: u64,
}

/// What of a transfer counts when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Bytes that are there now, from the blob's start.
    pub end: u64,
    /// Bytes that travelled and stay.
    pub kept: u64,
    /// Bytes that travelled in vain: they will travel again.
    pub lost: u64,
}

impl Transfer {
    /// Begins now, over a link of `bytes_per_s` that is free from `free_s` on; the first byte takes a round trip.
    pub fn begin(kind: Kind, blob: BlobRef, offset: u64, now_s: f64, latency_s: f64, bytes_per_s: f64) -> Self {
        let from_s = now_s + 2.0 * latency_s;
        let to_s = from_s + (blob.bytes - offset) as f64 / bytes_per_s;
        let in_flight = (bytes_per_s * 2.0 * latency_s) as u64 + CHUNK_BYTES as u64;
        Transfer { kind, blob, delta: vec![], offset, from_s, to_s, in_flight }
    }

    /// Whether it goes to the coordinator.
    pub fn is_up(&self) -> bool {
        matches!(self.kind, Kind::Delta(_))
    }

    /// It has arrived.
    pub fn whole(&self) -> Settled {
        Settled { end: self.blob.bytes, kept: self.blob.bytes - self.offset, lost: 0 }
    }

    /// The connection breaks: what had come stays, but for what was in flight.
    pub fn broken(&self, now_s: f64) -> Settled {
        let share = ((now_s - self.from_s) / (self.to_s - self.from_s).max(1e-9)).clamp(0.0, 1.0);
        let moved = (share * (self.blob.bytes - self.offset) as f64) as u64;
        let lost = moved.min(self.in_flight);
        Settled { end: self.offset + moved - lost, kept: moved - lost, lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::ids::BlobHash;

    fn transfer(bytes: u64, offset: u64) -> Transfer {
        let blob = BlobRef { hash: BlobHash([1; 32]), bytes };
        // 1 MB/s, 50 ms one way.
        Transfer::begin(Kind::Shard, blob, offset, 10.0, 0.05, 1e6)
    }

    #[test]
    fn time_is_bytes_by_rate_and_a_round_trip() {
        let t = transfer(2_000_000, 0);
        assert!((t.to_s - 12.1).abs() < 1e-9);
        assert_eq!(t.whole(), Settled { end: 2_000_000, kept: 2_000_000, lost: 0 });
    }

    #[test]
    fn a_broken_one_goes_on_where_it_was_less_what_was_in_flight() {
        let t = transfer(2_000_000, 0);
        let lost = 100_000 + CHUNK_BYTES as u64;
        assert_eq!(t.broken(11.1), Settled { end: 1_000_000 - lost, kept: 1_000_000 - lost, lost });
        assert_eq!(t.broken(10.05), Settled { end: 0, kept: 0, lost: 0 });
        let again = transfer(2_000_000, 1_000_000 - lost);
        assert_eq!(again.whole().kept + t.broken(11.1).kept, 2_000_000, "each byte stays once");
        assert!((again.to_s - (11.1 + lost as f64 / 1e6)).abs() < 1e-9);
    }
}
