//! What a run adds up to while it goes on: bytes, tokens, the curve, and who did what.

use crate::{
    population::Traits,
    results::{Agreement, BytesByKind, Point, Timelines},
    training::JobId,
    transfer::{Kind, Settled, Transfer},
};
use nightjar_coordinator::engine::record::{DeltaRecord, EvaluationRecord, VersionRecord};
use nightjar_shared::ids::BlobHash;
use std::collections::BTreeMap;

/// Points kept of the curve.
const POINTS_MAX: usize = 20_000;

/// Sums of a run so far.
pub struct Account {
    /// Bytes that travelled.
    pub bytes: BytesByKind,
    /// Deltas merged.
    pub merged: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Time in their inner steps, in milliseconds.
    pub useful_ms: u64,
    /// Their staleness.
    pub staleness: BTreeMap<u64, u64>,
    /// Versions published, and deltas that are in them.
    pub versions: u64,
    /// The newest delta that is in a version.
    pub through_seq: u64,
    /// What every version had cost, by number.
    pub points: BTreeMap<u64, Point>,
    /// Versions being measured.
    pub measuring: Vec<(u64, JobId)>,
    /// The newest measured loss.
    pub loss: Option<f64>,
    /// How far deltas agreed, by version.
    pub agreement: Vec<Agreement>,
    /// Who does what.
    pub timelines: Timelines,
    /// Merged deltas that no version holds yet, by sequence number.
    pub unpublished: BTreeMap<u64, BlobHash>,
}

impl Account {
    /// At the start, with these devices.
    pub fn new(devices: &[Traits]) -> Self {
        Account {
            bytes: BytesByKind::default(),
            merged: 0,
            tokens: 0,
            useful_ms: 0,
            staleness: BTreeMap::new(),
            versions: 0,
            through_seq: 0,
            points: BTreeMap::new(),
            measuring: vec![],
            loss: None,
            agreement: vec![],
            timelines: Timelines::new(devices.iter().map(|t| (t.name(), t.tokens_per_s))),
            unpublished: BTreeMap::new(),
        }
    }

    /// A transfer ended, or broke.
    pub fn moved(&mut self, transfer: &Transfer, settled: Settled) {
        let bytes = &mut self.bytes;
        *match transfer.kind {
            Kind::Keyframe => &mut bytes.keyframes,
            Kind::Update => &mut bytes.updates,
            Kind::Shard => &mut bytes.shards,
            Kind::Delta(_) => &mut bytes.deltas,
        } += settled.kept;
        *if transfer.is_up() { &mut bytes.resent_up } else { &mut bytes.resent_down } += settled.lost;
    }

    /// A delta was committed.
    pub fn merged(&mut self, delta: &DeltaRecord) {
        self.merged += 1;
        self.tokens += delta.tokens;
        self.useful_ms += delta.train_ms;
        *self.staleness.entry(delta.staleness).or_default() += 1;
        self.unpublished.insert(delta.seq, delta.blob.hash);
    }

    /// A version was committed. Gives the deltas that are in it.
    pub fn published(&mut self, version: &VersionRecord, now_s: f64) -> Vec<BlobHash> {
        let later = self.unpublished.split_off(&(version.through_seq + 1));
        let inside = std::mem::replace(&mut self.unpublished, later);
        self.versions = version.version.0;
        self.through_seq = version.through_seq;
        if self.points.len() < POINTS_MAX {
            let point = Point {
                virtual_s: now_s,
                tokens: self.tokens,
                bytes_up: self.bytes.up(),
                bytes_down: self.bytes.down(),
                version: version.version.0,
                ..Point::default()
            };
            self.points.insert(version.version.0, point);
        }
        inside.into_values().collect()
    }

    /// A device measured a version.
    pub fn evaluated(&mut self, evaluation: &EvaluationRecord) {
        self.measured(evaluation.version.0, evaluation.nats / evaluation.tokens.max(1) as f64, None);
    }

    /// A version's loss is known.
    pub fn measured(&mut self, version: u64, loss: f64, loss_ood: Option<f64>) {
        if let Some(point) = self.points.get_mut(&version) {
            (point.loss, point.loss_ood) = (Some(loss), loss_ood);
        }
        self.loss = Some(loss);
    }
}
