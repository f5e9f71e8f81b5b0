//! What is told of a run: numbers with a name, at a version and its tokens.

use crate::{
    engine::record::{DeltaRecord, Record},
    server::history::{History, LossPoint, VersionPoint},
    store::Lineage,
};
use nightjar_shared::{ids::Version, time::Wall};
use std::collections::VecDeque;

/// Newest versions and losses that are looked at when a measurement comes late.
const NEWEST_KEPT: usize = 1024;

/// A number.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// When it came to be.
    pub at: Wall,
    /// Of which version.
    pub version: u64,
    /// Tokens merged into that version.
    pub tokens: u64,
    /// What it is.
    pub name: &'static str,
    /// The number itself.
    pub value: f64,
}

/// A merged delta, as far as it counts.
#[derive(Clone)]
struct Part {
    seq: u64,
    tokens: u64,
    loss: f64,
    staleness: u64,
}

impl Part {
    fn of(delta: &DeltaRecord) -> Self {
        Part { seq: delta.seq, tokens: delta.tokens, loss: delta.loss_last, staleness: delta.staleness }
    }
}

/// Makes points of what is written to the ledger.
#[derive(Default)]
pub struct Points {
    history: History,
    /// Merged deltas that no version has yet.
    parts: VecDeque<Part>,
    before: Option<VersionPoint>,
    /// What a start knows.
    so_far: Vec<Point>,
}

impl Points {
    /// Of what a start reads. Of versions whose deltas it does not read, no more is told than the curves have.
    pub fn taken_up(history: &History, lineage: &Lineage) -> Self {
        let mut points = Points { history: history.clone(), parts: VecDeque::new(), before: None, so_far: vec![] };
        for version in &history.versions {
            let deltas = deltas_of(lineage, Version(version.version)).iter().map(Part::of);
            let told = points.of_version(version, &deltas.collect::<Vec<_>>());
            points.so_far.extend(told);
        }
        points.so_far.extend(history.losses.iter().map(of_loss));
        let through = lineage.versions.last().map_or(0, |version| version.through_seq);
        points.parts.extend(lineage.deltas.iter().filter(|delta| delta.seq > through).map(Part::of));
        points
    }

    /// When the run began, as far as is known.
    pub fn begun(&self) -> Wall {
        self.history.versions.first().map(|version| version.wall).unwrap_or_default()
    }

    /// What was known at the start; it is told once.
    pub fn so_far(&mut self) -> Vec<Point> {
        std::mem::take(&mut self.so_far)
    }

    /// What records tell.
    pub fn take(&mut self, records: &[Record]) -> Vec<Point> {
        let mut points = vec![];
        for record in records {
            self.history.add(record);
            match record {
                Record::Delta(delta) => self.parts.push_back(Part::of(delta)),
                Record::Version(version) => {
                    let deltas = self.merged(version.through_seq);
                    if let Some(point) = self.history.versions.last().cloned() {
                        points.extend(self.of_version(&point, &deltas));
                    }
                }
                Record::Evaluation(_) => points.extend(self.history.losses.last().map(of_loss)),
                Record::Device(_)
                | Record::LeaseIssued(_)
                | Record::LeaseClosed { .. }
                | Record::DeviceRevoked { .. }
                | Record::InviteRevoked { .. }
                | Record::Paused(_)
                | Record::Extended { .. }
                | Record::Series(_)
                | Record::Audit(_) => {}
            }
            self.history.keep_newest(NEWEST_KEPT);
        }
        points
    }

    /// The deltas up to one, which are then a version's.
    fn merged(&mut self, through_seq: u64) -> Vec<Part> {
        let count = self.parts.partition_point(|part| part.seq <= through_seq);
        self.parts.drain(..count).collect()
    }

    fn of_version(&mut self, version: &VersionPoint, deltas: &[Part]) -> Vec<Point> {
        let point =
            |name, value| Point { at: version.wall, version: version.version, tokens: version.tokens, name, value };
        let mut points = vec![point("version/update_bytes", version.update_bytes as f64)];
        if let Some(before) = self.before.replace(version.clone())
            && before.version + 1 == version.version
        {
            let round_s = version.wall.unix_ms.saturating_sub(before.wall.unix_ms) as f64 / 1e3;
            points.push(point("version/round_s", round_s));
            if round_s > 0.0 {
                let tokens = version.tokens.saturating_sub(before.tokens) as f64;
                points.push(point("train/tokens_per_s", tokens / round_s));
            }
        }
        let tokens: u64 = deltas.iter().map(|delta| delta.tokens).sum();
        if tokens > 0 {
            let loss: f64 = deltas.iter().map(|delta| delta.tokens as f64 * delta.loss).sum();
            let staleness: u64 = deltas.iter().map(|delta| delta.staleness).sum();
            points.push(point("train/loss", loss / tokens as f64));
            points.push(point("version/deltas", deltas.len() as f64));
            points.push(point("version/staleness", staleness as f64 / deltas.len() as f64));
        }
        points
    }
}

/// The deltas of a version; none where not all of them were read.
fn deltas_of(lineage: &Lineage, version: Version) -> &[DeltaRecord] {
    let record = |version: Version| lineage.place(version).map(|at| &lineage.versions[at]);
    let before = version.0.checked_sub(1).and_then(|before| record(Version(before)));
    let (Some(before), Some(this)) = (before, record(version)) else { return &[] };
    let behind = lineage.after(before.through_seq).unwrap_or_default();
    &behind[..behind.partition_point(|delta| delta.seq <= this.through_seq)]
}

fn of_loss(loss: &LossPoint) -> Point {
    Point { at: loss.wall, version: loss.version, tokens: loss.tokens, name: "heldout/loss", value: loss.loss }
}
