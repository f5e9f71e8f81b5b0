//! One of the runs that are compared: what its ledger says of its versions and losses.

use crate::cli::{Failure, serve_file::STATE_FOLDER};
use nightjar_coordinator::{
    engine::record::EvaluationRecord,
    server::{history::LossPoint, state::StateFolder},
    store::{Counters, Facts, LedgerError, OpenLedger},
};
use nightjar_shared::{run_spec::RunSpec, time::Wall};
use std::path::Path;

/// A version, and what had been merged by then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mark {
    pub version: u64,
    pub at: Wall,
    through_seq: u64,
    pub tokens: u64,
    pub delta_bytes: u64,
}

/// Where on its way a run came to a loss; between two measurements a straight line is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub tokens: f64,
    pub delta_bytes: f64,
    /// Since its first version.
    pub seconds: f64,
}

/// See the module.
pub struct Side {
    pub name: String,
    pub spec: RunSpec,
    /// Every version, by number.
    pub marks: Vec<Mark>,
    /// Every measurement, by version.
    pub losses: Vec<LossPoint>,
    pub counters: Counters,
}

impl Side {
    /// Of a run's folder or state folder.
    pub async fn read(folder: &Path) -> Result<Self, Failure> {
        let state = folder.join(STATE_FOLDER);
        let state = StateFolder::open(if state.is_dir() { &state } else { folder }).map_err(Failure::input)?;
        let place = state.ledger(None).map_err(Failure::input)?;
        let OpenLedger { ledger, identity, .. } = place.open_to_read().await.map_err(Failure::input)?;
        let spec: RunSpec = serde_json::from_str(&identity.spec_json)
            .map_err(|_| Failure::input(LedgerError::Damaged("its run spec cannot be read")))?;
        let mut counting = Counting::default();
        ledger.go_through(&mut |piece| counting.take(&piece)).await.map_err(Failure::midway)?;
        let counters = ledger.counters().await.map_err(Failure::midway)?;
        ledger.close().await;
        let name = format!("{} ({})", spec.name, folder.display());
        Ok(counting.finished(name, spec, counters))
    }

    /// Tokens in its newest version.
    pub fn tokens(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.tokens)
    }

    /// Bytes of the deltas in its newest version.
    pub fn delta_bytes(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.delta_bytes)
    }

    /// The least loss that was measured.
    pub fn least(&self) -> Option<f64> {
        self.losses.iter().map(|loss| loss.loss).reduce(f64::min)
    }

    /// Where it first came to a loss.
    pub fn place_of(&self, loss: f64) -> Option<Place> {
        let at = self.losses.iter().position(|point| point.loss <= loss)?;
        let (here, point) = (self.mark(&self.losses[at])?, &self.losses[at]);
        let before = at.checked_sub(1).map(|before| &self.losses[before]);
        let (from, share) = match before {
            Some(before) => (self.mark(before)?, (before.loss - loss) / (before.loss - point.loss)),
            None => (here, 1.0),
        };
        let between = |from: u64, to: u64| from as f64 + share * (to as f64 - from as f64);
        let begun = self.marks.first()?.at.unix_ms;
        let since = |at: Wall| at.unix_ms.saturating_sub(begun);
        Some(Place {
            tokens: between(from.tokens, here.tokens),
            delta_bytes: between(from.delta_bytes, here.delta_bytes),
            seconds: between(since(from.at), since(here.at)) / 1e3,
        })
    }

    /// The version that a loss is of.
    fn mark(&self, loss: &LossPoint) -> Option<&Mark> {
        self.marks.binary_search_by_key(&loss.version, |mark| mark.version).ok().map(|at| &self.marks[at])
    }
}

/// A ledger on its way through: versions come before all deltas.
#[derive(Default)]
struct Counting {
    marks: Vec<Mark>,
    evaluations: Vec<EvaluationRecord>,
}

impl Counting {
    fn take(&mut self, piece: &Facts) {
        self.marks.extend(piece.lineage.versions.iter().map(|version| Mark {
            version: version.version.0,
            at: version.published_at,
            through_seq: version.through_seq,
            ..Mark::default()
        }));
        for delta in &piece.lineage.deltas {
            let of = self.marks.partition_point(|mark| mark.through_seq < delta.seq);
            if let Some(mark) = self.marks.get_mut(of) {
                mark.tokens += delta.tokens;
                mark.delta_bytes += delta.blob.bytes;
            }
        }
        self.evaluations.extend(piece.evaluations.iter().cloned());
    }

    fn finished(mut self, name: String, spec: RunSpec, counters: Counters) -> Side {
        let (mut tokens, mut delta_bytes) = (0, 0);
        for mark in &mut self.marks {
            tokens += mark.tokens;
            delta_bytes += mark.delta_bytes;
            (mark.tokens, mark.delta_bytes) = (tokens, delta_bytes);
        }
        let marks = self.marks;
        let tokens_of = |version| marks.binary_search_by_key(&version, |mark| mark.version).map(|at| marks[at].tokens);
        let point = |record: &EvaluationRecord| Some(LossPoint::of(record, tokens_of(record.version.0).ok()?));
        let mut losses: Vec<LossPoint> = self.evaluations.iter().filter_map(point).collect();
        losses.sort_by_key(|loss| loss.version);
        Side { name, spec, marks, losses, counters }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Three versions, a minute and 1000 tokens apart, whose loss falls from 4 by a step a version.
    pub fn side(name: &str, step: f64) -> Side {
        let mark = |version: u64| Mark {
            version,
            at: Wall { unix_ms: 60_000 * (version + 5) },
            through_seq: version,
            tokens: 1000 * version,
            delta_bytes: 10 * version,
        };
        let loss = |version: u64| LossPoint {
            version,
            wall: Wall::default(),
            tokens: 1000 * version,
            loss: 4.0 - step * version as f64,
        };
        Side {
            name: name.to_owned(),
            spec: RunSpec::new(name, 10_000),
            marks: (0..3).map(mark).collect(),
            losses: (0..3).map(loss).collect(),
            counters: Counters::default(),
        }
    }

    #[test]
    fn the_place_of_a_loss_is_between_its_neighbours() {
        let fast = side("fast", 1.0);
        let place = |tokens, delta_bytes, seconds| Some(Place { tokens, delta_bytes, seconds });
        assert_eq!(fast.place_of(3.0), place(1000.0, 10.0, 60.0));
        assert_eq!(fast.place_of(2.5), place(1500.0, 15.0, 90.0));
        assert_eq!((fast.place_of(4.0), fast.place_of(1.9)), (place(0.0, 0.0, 0.0), None));
        assert_eq!((fast.least(), fast.tokens()), (Some(2.0), 2000));
    }
}
