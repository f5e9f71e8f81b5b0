//! The run so far, as curves: held-out losses and versions, each with the tokens that had been merged. Begun
//! with what a start reads, and kept up to date record by record.

use crate::{
    engine::record::{DeltaRecord, EvaluationRecord, Record, VersionRecord},
    store::{Curves, Lineage},
};
use nightjar_shared::{blob::BlobRef, time::Wall};
use serde::Serialize;
use std::collections::VecDeque;

/// A measurement of held-out loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LossPoint {
    /// Of which version.
    pub version: u64,
    /// When it was measured, in milliseconds since the Unix epoch.
    pub wall: Wall,
    /// Tokens merged into that version.
    pub tokens: u64,
    /// Nats a byte.
    pub loss: f64,
}

impl LossPoint {
    /// Of a measurement, with the tokens merged into its version.
    pub fn of(record: &EvaluationRecord, tokens: u64) -> Self {
        let EvaluationRecord { version, measured_at: wall, .. } = *record;
        LossPoint { version: version.0, wall, tokens, loss: record.nats_per_byte() }
    }
}

/// A published version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionPoint {
    /// Its number.
    pub version: u64,
    /// When it was published, in milliseconds since the Unix epoch.
    pub wall: Wall,
    /// Tokens merged into it.
    pub tokens: u64,
    /// Length of the update; 0 if there is none.
    pub update_bytes: u64,
    /// Length of the keyframe; 0 if there is none.
    pub keyframe_bytes: u64,
}

impl VersionPoint {
    /// Of a version, with the tokens merged into it.
    pub fn of(record: &VersionRecord, tokens: u64) -> Self {
        let bytes = |blob: Option<BlobRef>| blob.map_or(0, |blob| blob.bytes);
        VersionPoint {
            version: record.version.0,
            wall: record.published_at,
            tokens,
            update_bytes: bytes(record.update),
            keyframe_bytes: bytes(record.keyframe),
        }
    }
}

/// Both curves. A long run's are thinned, but for the newest points: their number does not follow its length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// In the order in which they were measured.
    pub losses: Vec<LossPoint>,
    /// In order.
    pub versions: Vec<VersionPoint>,
    tokens_published: u64,
    /// Sequence numbers and tokens of deltas that no version includes yet.
    unpublished: VecDeque<(u64, u64)>,
}

impl History {
    /// Of what a start reads.
    pub fn taken_up(lineage: &Lineage, curves: &Curves) -> Self {
        let mut history = History::default();
        history.versions.extend(curves.versions.iter().map(|(version, tokens)| VersionPoint::of(version, *tokens)));
        history.losses.extend(curves.evaluations.iter().map(|(evaluation, tokens)| LossPoint::of(evaluation, *tokens)));
        history.tokens_published = history.versions.last().map_or(0, |v| v.tokens);
        let through_seq = lineage.versions.last().map_or(0, |v| v.through_seq);
        lineage.deltas.iter().filter(|d| d.seq > through_seq).for_each(|delta| history.add_delta(delta));
        history
    }

    /// Takes in what was written to the ledger.
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::Delta(delta) => self.add_delta(delta),
            Record::Version(version) => self.add_version(version),
            Record::Evaluation(evaluation) => self.add_evaluation(evaluation),
            _ => {}
        }
    }

    /// Forgets all but the newest points: whoever draws a long run keeps its curves elsewhere.
    pub fn keep_newest(&mut self, most: usize) {
        // Now and then, rather than a little each time.
        if self.versions.len() > 2 * most {
            self.versions.drain(..self.versions.len() - most);
        }
        if self.losses.len() > 2 * most {
            self.losses.drain(..self.losses.len() - most);
        }
    }

    fn add_delta(&mut self, delta: &DeltaRecord) {
        self.unpublished.push_back((delta.seq, delta.tokens));
    }

    fn add_version(&mut self, record: &VersionRecord) {
        while let Some((_, tokens)) = self.unpublished.pop_front_if(|(seq, _)| *seq <= record.through_seq) {
            self.tokens_published += tokens;
        }
        self.versions.push(VersionPoint::of(record, self.tokens_published));
    }

    fn add_evaluation(&mut self, record: &EvaluationRecord) {
        let tokens = self.versions.iter().rev().find(|v| v.version <= record.version.0).map_or(0, |v| v.tokens);
        self.losses.push(LossPoint::of(record, tokens));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::ids::{DeviceId, LeaseId, Version};

    fn delta(seq: u64, tokens: u64) -> DeltaRecord {
        DeltaRecord {
            seq,
            lease: LeaseId(seq),
            device: DeviceId([0; 32]),
            blob: BlobRef::of(b"delta"),
            steps: 1,
            tokens,
            staleness: 0,
            weight: 1.0,
            norm: 1.0,
            train_ms: 1,
            wall_ms: 1,
            loss_first: 1.0,
            loss_last: 1.0,
            merged_at: Wall::default(),
        }
    }

    fn version(n: u64, through_seq: u64) -> VersionRecord {
        let update = (n > 0).then_some(BlobRef::of(b"update"));
        VersionRecord {
            version: Version(n),
            update,
            given: None,
            keyframe: None,
            digest: [0; 32],
            through_seq,
            published_at: Wall { unix_ms: n },
            squashes: vec![],
        }
    }

    #[test]
    fn a_version_counts_the_tokens_that_are_in_it() {
        let evaluation = EvaluationRecord {
            version: Version(1),
            lease: LeaseId(9),
            nats: 6.0,
            tokens: 3,
            text_bytes: 4,
            measured_at: Wall { unix_ms: 5 },
        };
        let (deltas, versions) = ([delta(1, 10), delta(2, 20), delta(3, 40)], [version(0, 0), version(1, 2)]);
        let mut history = History::default();
        deltas.iter().for_each(|d| history.add(&Record::Delta(d.clone())));
        versions.iter().for_each(|v| history.add(&Record::Version(v.clone())));
        history.add(&Record::Evaluation(evaluation.clone()));
        let lately =
            Lineage { deltas: vec![delta(3, 40)], after_seq: 2, versions: versions.to_vec(), ..Lineage::default() };
        let tokens = [0, 30];
        let curves =
            Curves { versions: versions.into_iter().zip(tokens).collect(), evaluations: vec![(evaluation, 30)] };
        assert_eq!(History::taken_up(&lately, &curves), history, "from what a start reads");
        assert_eq!(history.versions.iter().map(|v| v.tokens).collect::<Vec<_>>(), [0, 30]);
        assert_eq!(history.losses, [LossPoint { version: 1, wall: Wall { unix_ms: 5 }, tokens: 30, loss: 1.5 }]);
        history.add(&Record::Version(version(2, 3)));
        assert_eq!(history.versions[2].tokens, 70);
    }

    #[test]
    fn of_a_long_run_the_newest_points_stay() {
        let mut history = History::default();
        for n in 0..100 {
            history.add(&Record::Version(version(n, 0)));
            history.keep_newest(10);
            assert!(history.versions.len() <= 20 && history.versions.last().is_some_and(|v| v.version == n));
        }
        assert!(history.versions.len() >= 10);
    }
}
