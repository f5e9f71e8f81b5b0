//! The local training state: what a device needs to go on with a lease after it was killed.
//!
//! Two slots, written in turn, each as a whole: whatever happens to the newer one, the older is still there. A file
//! ends with the BLAKE3 hash of what precedes it. Where a step takes longer than the time between two checkpoints, what
//! is done of it is in the file too.

use crate::{Moments, StateSizes};
use nightjar_shared::{
    bytes::{Reader, Truncated},
    disk::Disk,
    ids::BlobHash,
    wire::worker::Trained,
};
use std::io;

const MAGIC: &[u8; 8] = b"NJSTATE1";
/// Magic, sequence, five counters, four floats, moments' `t`, number of parameters.
const HEADER_BYTES: usize = 8 + 8 + 5 * 8 + 4 * 8 + 8 + 8;
/// Samples and nats of a step that was begun.
const BEGUN_BYTES: usize = 8 + 8;
const HASH_BYTES: usize = 32;

/// Why a checkpoint was not saved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk failed.
    #[error("saving the training state failed: {0}")]
    Write(#[source] io::Error),
    /// The disk failed.
    #[error("reading the training state failed: {0}")]
    Read(#[source] io::Error),
    /// Weights and moments are not those of the model.
    #[error("weights and moments do not fit the model: {weights}, {m} and {v} values")]
    Lengths {
        /// Length of the weights.
        weights: usize,
        /// Length of the first moments.
        m: usize,
        /// Length of the second moments.
        v: usize,
    },
    /// Nor is what is done of a step.
    #[error("a step's gradient has {gradient} values for {parameters} parameters")]
    Begun {
        /// Parameters of the model.
        parameters: usize,
        /// Length of the gradient.
        gradient: usize,
    },
}

/// How far a lease has been trained.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LeaseProgress {
    /// The lease.
    pub lease_id: u64,
    /// The version it started from.
    pub base_version: u64,
    /// Inner steps made.
    pub steps: u64,
    /// Samples trained on.
    pub samples: u64,
    /// Tokens predicted.
    pub tokens: u64,
    /// Time spent training, in seconds.
    pub train_s: f64,
    /// Sum of the steps' losses.
    pub loss_sum: f64,
    /// The first step's loss.
    pub loss_first: f64,
    /// The last step's loss.
    pub loss_last: f64,
}

impl LeaseProgress {
    /// One more step, on so many samples and tokens, with this loss.
    pub fn count(&mut self, loss: f64, samples: u64, tokens: u64) {
        if self.steps == 0 {
            self.loss_first = loss;
        }
        self.loss_last = loss;
        self.loss_sum += loss;
        self.steps += 1;
        self.samples += samples;
        self.tokens += tokens;
    }

    /// What is reported of it, with no file yet.
    pub fn trained(&self) -> Trained {
        Trained {
            lease_id: self.lease_id,
            steps: self.steps as u32,
            samples: self.samples as u32,
            train_ms: (self.train_s * 1000.0) as u64,
            loss_first: self.loss_first,
            loss_last: self.loss_last,
            ..Trained::default()
        }
    }
}

/// The part of a step that is done: what its first samples give of its gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begun {
    /// So many samples.
    pub samples: usize,
    /// The sum of their nats.
    pub nats: f64,
    /// Their part of the batch's gradient, as a flat vector.
    pub gradient: Vec<f32>,
}

/// Everything that a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// How far it is.
    pub progress: LeaseProgress,
    /// The weights as a flat vector.
    pub weights: Vec<f32>,
    /// The optimizer's state.
    pub moments: Moments,
    /// What is done of the next step, if any of it is.
    pub begun: Option<Begun>,
}

/// Where a process keeps its training state.
pub struct CheckpointStore<'a> {
    disk: &'a dyn Disk,
    name: String,
    sizes: StateSizes,
    /// Of the checkpoint to write next.
    sequence: u64,
    /// Number and place of the newest that is whole: it takes reading all of both to find out.
    newest: Option<(u64, LeaseProgress)>,
}

impl<'a> CheckpointStore<'a> {
    /// Uses the files `name.0` and `name.1`; the sizes bound what is read.
    pub fn open(disk: &'a dyn Disk, name: &str, sizes: StateSizes) -> Result<Self, CheckpointError> {
        let mut store = CheckpointStore { disk, name: name.into(), sizes, sequence: 0, newest: None };
        store.newest = store.find_newest()?;
        store.sequence = store.newest.map_or(0, |(sequence, _)| sequence + 1);
        Ok(store)
    }

    /// Saves; on return it is durable. The checkpoint before it is kept. Takes it, since each vector is let go as soon
    /// as it is encoded: a quarter of what training takes would else be in memory twice.
    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        let progress = checkpoint.progress;
        let bytes = encode(checkpoint, self.sequence, self.sizes)?;
        self.disk.write(&self.slot(self.sequence), &bytes).map_err(CheckpointError::Write)?;
        self.newest = Some((self.sequence, progress));
        self.sequence += 1;
        Ok(())
    }

    /// The newest checkpoint that is whole and fits the model; `None` if there is none. A damaged one is passed over.
    pub fn load(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        let read = |newest: Option<(u64, LeaseProgress)>| {
            let Some((sequence, _)) = newest else { return Ok(None) };
            let bytes = self.disk.read(&self.slot(sequence)).map_err(CheckpointError::Read)?;
            Ok(bytes.and_then(|bytes| decode(&bytes, self.sizes)))
        };
        match read(self.newest)? {
            // Damaged since it was looked at: then the one before it.
            None => read(self.find_newest()?),
            whole => Ok(whole),
        }
    }

    /// How far the checkpoint is that [`CheckpointStore::load`] gives.
    pub fn progress(&self) -> Option<LeaseProgress> {
        self.newest.map(|(_, progress)| progress)
    }

    /// Removes both slots: the lease is done.
    pub fn clear(&mut self) -> Result<(), CheckpointError> {
        self.newest = None;
        for slot in 0..2 {
            self.disk.remove(&self.slot(slot)).map_err(CheckpointError::Write)?;
        }
        Ok(())
    }

    fn slot(&self, sequence: u64) -> String {
        format!("{}.{}", self.name, sequence % 2)
    }

    /// Number and place of the newest that is whole. Of two checkpoints in memory one would be for nothing, so their
    /// vectors are left where they are.
    fn find_newest(&self) -> Result<Option<(u64, LeaseProgress)>, CheckpointError> {
        let mut newest: Option<(u64, LeaseProgress)> = None;
        for slot in 0..2 {
            let name = self.slot(slot);
            let StateSizes { parameters, second_moments } = self.sizes;
            let plain = HEADER_BYTES + 4 * (2 * parameters + second_moments) + HASH_BYTES;
            let with_begun = plain + BEGUN_BYTES + 4 * parameters;
            let length = self.disk.length(&name).map_err(CheckpointError::Read)?;
            if ![plain, with_begun].iter().any(|want| length == Some(*want as u64)) {
                continue;
            }
            let Some(bytes) = self.disk.read(&name).map_err(CheckpointError::Read)? else { continue };
            let Some(found) = whole(&bytes).and_then(|mut r| header(&mut r, parameters)) else {
                tracing::warn!("{name} is damaged; using the checkpoint before it");
                continue;
            };
            if newest.as_ref().is_none_or(|(sequence, _)| *sequence < found.sequence) {
                newest = Some((found.sequence, found.progress));
            }
        }
        Ok(newest)
    }
}

fn encode(c: Checkpoint, sequence: u64, sizes: StateSizes) -> Result<Vec<u8>, CheckpointError> {
    let StateSizes { parameters, second_moments } = sizes;
    let (weights, m, v) = (c.weights.len(), c.moments.m.len(), c.moments.v.len());
    if [weights, m, v] != [parameters, parameters, second_moments] {
        return Err(CheckpointError::Lengths { weights, m, v });
    }
    if let Some(begun) = c.begun.as_ref().filter(|begun| begun.gradient.len() != parameters) {
        return Err(CheckpointError::Begun { parameters, gradient: begun.gradient.len() });
    }
    let values = if c.begun.is_some() { 3 } else { 2 } * parameters + second_moments;
    let mut out = Vec::with_capacity(HEADER_BYTES + BEGUN_BYTES + 4 * values + HASH_BYTES);
    out.extend_from_slice(MAGIC);
    let p = &c.progress;
    for number in [sequence, p.lease_id, p.base_version, p.steps, p.samples, p.tokens] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [p.train_s, p.loss_sum, p.loss_first, p.loss_last] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&c.moments.t.to_le_bytes());
    out.extend_from_slice(&(parameters as u64).to_le_bytes());
    for values in [c.weights, c.moments.m, c.moments.v] {
        out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }
    if let Some(begun) = c.begun {
        out.extend_from_slice(&(begun.samples as u64).to_le_bytes());
        out.extend_from_slice(&begun.nats.to_le_bytes());
        out.extend(begun.gradient.iter().flat_map(|x| x.to_le_bytes()));
    }
    let hash = BlobHash::of(&out);
    out.extend_from_slice(&hash.0);
    Ok(out)
}

/// What precedes the hash, if that fits.
fn whole(bytes: &[u8]) -> Option<Reader<'_>> {
    let (body, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    (BlobHash::of(body).0 == hash).then(|| Reader::new(body))
}

/// What precedes the vectors.
struct Header {
    sequence: u64,
    progress: LeaseProgress,
    t: u64,
}

/// `None` where it is none, or another model's.
fn header(r: &mut Reader<'_>, parameters: usize) -> Option<Header> {
    let mut read = || -> Result<Option<Header>, Truncated> {
        if &r.array::<8>()? != MAGIC {
            return Ok(None);
        }
        let sequence = r.u64()?;
        let [lease_id, base_version, steps, samples, tokens] = [r.u64()?, r.u64()?, r.u64()?, r.u64()?, r.u64()?];
        let mut float = || Ok::<f64, Truncated>(f64::from_bits(r.u64()?));
        let [train_s, loss_sum, loss_first, loss_last] = [float()?, float()?, float()?, float()?];
        let t = r.u64()?;
        let progress =
            LeaseProgress { lease_id, base_version, steps, samples, tokens, train_s, loss_sum, loss_first, loss_last };
        Ok((r.u64()? == parameters as u64).then_some(Header { sequence, progress, t }))
    };
    read().ok().flatten()
}

/// `None` for anything but a whole checkpoint of this model.
fn decode(bytes: &[u8], sizes: StateSizes) -> Option<Checkpoint> {
    let StateSizes { parameters, second_moments } = sizes;
    let mut r = whole(bytes)?;
    let Header { progress, t, .. } = header(&mut r, parameters)?;
    let vector = |r: &mut Reader<'_>, values: usize| -> Result<Vec<f32>, Truncated> {
        let bytes = r.take(4 * values)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let mut read = || -> Result<Checkpoint, Truncated> {
        let [weights, m, v] =
            [vector(&mut r, parameters)?, vector(&mut r, parameters)?, vector(&mut r, second_moments)?];
        let begun = if r.remaining() == 0 {
            None
        } else {
            Some(Begun {
                samples: r.u64()? as usize,
                nats: f64::from_bits(r.u64()?),
                gradient: vector(&mut r, parameters)?,
            })
        };
        Ok(Checkpoint { progress, weights, moments: Moments { m, v, t }, begun })
    };
    read().ok()
}
