//! Cost mode's ledger and blobs: what was committed, counted, with the invariants that need no tensor checked as it
//! goes; and the lengths that blobs would have.

use crate::dataset::made_up_hash;
use nightjar_coordinator::{
    engine::{
        epoch_samples,
        event::{Measured, Published},
        record::{LeaseOutcome, Record, Squash},
    },
    store::{Measure, squasher},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{BlobHash, DeviceId, Generation, LeaseId, Version},
    lease::Offer,
    run_spec::RunSpec,
    shard::Manifest,
    version::{keyframe, update},
};
use std::collections::{BTreeMap, HashMap};

/// Faults told one by one; the rest would say the same.
const FAULTS_MAX: usize = 20;

/// An open lease's samples and owner.
struct Open {
    device: DeviceId,
    range: Range,
    has_delta: bool,
    /// Merged in the whole run when it was issued.
    tokens: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    epoch: u32,
    shard: u32,
    first: u32,
    samples: u32,
}

/// See the module's words.
pub struct Tally {
    generation: Generation,
    epoch_samples: u64,
    spec: RunSpec,
    /// The root of the number of weights.
    root_weights: f64,
    /// Merged.
    tokens: u64,
    update_bytes: u64,
    keyframe_bytes: u64,
    /// What one bit a parameter takes. A squash of n updates needs about log2 n and a half more bits a value than one
    /// of them (as the squasher measured it: 4.5 bits for 4 of 2 bits each, 6.5 for 16).
    bit_bytes: f64,
    /// The newest version that a keyframe redefined.
    redefined: Version,
    /// Blobs that devices may fetch.
    blobs: HashMap<BlobHash, u64>,
    uploads: HashMap<BlobHash, u64>,
    open: HashMap<LeaseId, Open>,
    last_lease: LeaseId,
    merged: Vec<Range>,
    /// One bit a lease: whether it was merged.
    is_merged: Vec<u64>,
    last_seq: u64,
    closed: BTreeMap<&'static str, u64>,
    faults: Vec<String>,
}

impl Tally {
    /// Of a run that has not begun.
    pub fn new(spec: &RunSpec, manifest: &Manifest) -> Self {
        let shards = manifest.train.iter().chain(&manifest.heldout);
        Tally {
            generation: Generation(0),
            epoch_samples: epoch_samples(manifest, spec.inner.batch_samples),
            spec: spec.clone(),
            root_weights: (spec.model.parameters() as f64).sqrt(),
            tokens: 0,
            update_bytes: update::bytes_most(&spec.model, spec.publish.codec),
            keyframe_bytes: keyframe::encoded_bytes(&spec.model),
            bit_bytes: spec.model.parameters() as f64 / 8.0,
            redefined: Version(0),
            blobs: shards.map(|s| (s.hash, s.bytes)).collect(),
            uploads: HashMap::new(),
            open: HashMap::new(),
            last_lease: LeaseId(0),
            merged: vec![],
            is_merged: vec![],
            last_seq: 0,
            closed: BTreeMap::new(),
            faults: vec![],
        }
    }

    /// A coordinator starts.
    pub fn raise(&mut self, unix_s: u64) -> Generation {
        self.generation = Generation(unix_s.max(self.generation.0 + 1));
        self.generation
    }

    /// Counts records, and notes what contradicts those before.
    pub fn commit(&mut self, records: &[Record]) {
        for record in records {
            if let Err(fault) = self.take(record) {
                self.fault(fault);
            }
        }
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn take(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Device(_) | Record::Version(_) | Record::Evaluation(_) => Ok(()),
            Record::DeviceRevoked { .. } | Record::InviteRevoked { .. } => Ok(()),
            Record::Paused(_) | Record::Extended { .. } | Record::Series(_) | Record::Audit(_) => Ok(()),
            Record::LeaseIssued(l) => {
                let range = Range { epoch: l.epoch, shard: l.shard, first: l.first_sample, samples: l.samples };
                let range = if l.kind.trains() { range } else { Range { samples: 0, ..range } };
                self.open.insert(l.id, Open { device: l.device, range, has_delta: false, tokens: self.tokens });
                let is_next = l.id > self.last_lease;
                self.last_lease = l.id;
                if is_next { Ok(()) } else { Err(format!("lease {} was issued twice", l.id)) }
            }
            Record::Delta(d) => {
                let lease = self.open.get_mut(&d.lease).filter(|l| l.device == d.device && !l.has_delta);
                let lease = lease.ok_or_else(|| format!("invariant 1: delta {} has no lease of its own", d.seq))?;
                lease.has_delta = true;
                self.last_seq += 1;
                self.tokens += d.tokens;
                if d.seq != self.last_seq {
                    return Err(format!("invariant 1: delta {} follows {}", d.seq, self.last_seq - 1));
                }
                Ok(())
            }
            Record::LeaseClosed { id, outcome, samples_used, .. } => {
                let lease = self.open.remove(id).ok_or_else(|| format!("invariant 3: lease {id} ended twice"))?;
                *self.closed.entry(word(*outcome)).or_default() += 1;
                if (*outcome == LeaseOutcome::Merged) != lease.has_delta || *samples_used > lease.range.samples {
                    return Err(format!("invariant 3: lease {id} ended as {}, which does not fit it", word(*outcome)));
                }
                if *outcome == LeaseOutcome::Merged {
                    self.merged.push(Range { samples: *samples_used, ..lease.range });
                    let (word, bit) = ((id.0 / 64) as usize, id.0 % 64);
                    if self.is_merged.len() <= word {
                        self.is_merged.resize(word + 1, 0);
                    }
                    self.is_merged[word] |= 1 << bit;
                }
                Ok(())
            }
        }
    }

    /// Whether a lease's delta was merged.
    pub fn was_merged(&self, id: LeaseId) -> bool {
        self.is_merged.get((id.0 / 64) as usize).is_some_and(|bits| bits >> (id.0 % 64) & 1 == 1)
    }

    /// Leases by how they ended.
    pub fn leases(&self) -> BTreeMap<String, u64> {
        let mut leases: BTreeMap<String, u64> = self.closed.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
        if !self.open.is_empty() {
            leases.insert("open".into(), self.open.len() as u64);
        }
        leases
    }

    /// What is wrong, if anything: what was noted, and samples merged twice in an epoch.
    pub fn examine(&mut self) -> Vec<String> {
        self.merged.sort_unstable();
        let twice = self
            .merged
            .windows(2)
            .filter(|w| (w[0].epoch, w[0].shard) == (w[1].epoch, w[1].shard) && w[0].first + w[0].samples > w[1].first);
        let twice = twice.count();
        let mut by_epoch: BTreeMap<u32, u64> = BTreeMap::new();
        for range in &self.merged {
            *by_epoch.entry(range.epoch).or_default() += u64::from(range.samples);
        }
        let over = by_epoch.values().filter(|n| **n > self.epoch_samples).count();
        let mut faults = std::mem::take(&mut self.faults);
        if twice > 0 {
            faults.push(format!("invariant 3: {twice} ranges of samples were merged twice in an epoch"));
        }
        if over > 0 {
            faults.push(format!("invariant 3: {over} epochs have more samples than the dataset"));
        }
        faults
    }

    /// The length of a blob that a device may fetch.
    pub fn length(&self, hash: BlobHash) -> Option<u64> {
        self.blobs.get(&hash).copied()
    }

    /// Bytes of an upload that are here.
    pub fn incoming(&self, hash: BlobHash) -> u64 {
        self.uploads.get(&hash).copied().unwrap_or(0)
    }

    /// An upload has arrived up to `end`.
    pub fn receive(&mut self, hash: BlobHash, end: u64) {
        self.uploads.insert(hash, end);
    }

    /// What decoding an offered delta shows: a norm that is typical for its steps.
    pub fn measure(&mut self, offer: &Offer) -> Measure {
        let BlobRef { hash, bytes } = offer.trained.delta;
        let have = self.incoming(hash);
        if have < bytes {
            return Measure::Missing { have };
        }
        self.uploads.remove(&hash);
        Measure::Done(Ok(Measured { norm: self.norm(offer), largest: 0.0 }))
    }

    /// As far as steps were measured to lead in honest runs: a third of the way that they could, and of many the root.
    fn norm(&self, offer: &Offer) -> f64 {
        let tokens = self.open.get(&offer.lease).map_or(self.tokens, |lease| lease.tokens);
        let rate = self.spec.inner.learning_rate_at(tokens as f64 / self.spec.token_budget as f64);
        let steps = f64::from(offer.trained.steps);
        0.3 * rate * self.root_weights * steps.min((64.0 * steps).sqrt())
    }

    /// A version without bytes.
    pub fn publish(&mut self, version: Version, is_keyframe: bool, through_seq: u64) -> Published {
        let redefined = self.redefined;
        if is_keyframe {
            self.redefined = version;
        }
        let mut put = |kind: &str, bytes: u64| {
            let hash = made_up_hash(kind, version.0);
            self.blobs.insert(hash, bytes);
            BlobRef { hash, bytes }
        };
        let update = (version.0 > 0).then(|| put("update", self.update_bytes));
        let keyframe = (is_keyframe || version.0 == 0).then(|| put("keyframe", self.keyframe_bytes));
        // None leads across a redefined version.
        let spans = squasher::due(version).take_while(|span| version.0 - span >= redefined.0);
        let squashes = spans.map(|span| Squash {
            from: Version(version.0 - span),
            blob: put(
                &format!("squash {span}"),
                self.update_bytes + (self.bit_bytes * (0.5 + libm::log2(span as f64))) as u64,
            ),
        });
        Published {
            version,
            squashes: squashes.collect(),
            update,
            keyframe,
            digest: made_up_hash("weights", version.0).0,
            through_seq,
            agreement: None,
            given: None,
        }
    }
}

/// The word for a lease's end.
pub fn word(outcome: LeaseOutcome) -> &'static str {
    match outcome {
        LeaseOutcome::Merged => "merged",
        LeaseOutcome::ScreenedOut => "screened out",
        LeaseOutcome::Returned => "returned",
        LeaseOutcome::Expired => "expired",
        LeaseOutcome::Evaluated => "evaluated",
    }
}

#[cfg(test)]
mod tests;
