//! One lease, trained or measured: base weights, shard, inner steps at no more than the allowed rate, checkpoints on the
//! way, and at the end a delta with the state that belongs to it, all synced before it is reported.

use super::{
    base::{self, BaseError},
    files::{self, FileError},
};
use nightjar_agent::{journal::CHECKPOINT, policy::Reading, sensor::MemorySensor};
use nightjar_shared::{
    delta::{self, CodecId},
    disk::Disk,
    ids::BlobHash,
    model_spec::ModelSpec,
    run_spec::RunSpec,
    version::Weights,
    wire::worker::{Base, Evaluate, Evaluated, Progress, Slice, Train, Trained, from_worker},
};
use nightjar_train::{
    AdamWConfig, Batch, BatchError, Checkpoint, CheckpointError, CheckpointStore, LeaseProgress, Model, ModelError, Moments,
    OpenDevice, Shard, TrainError, Trainer,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Progress is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// A worker that sleeps looks this often whether it is to stop.
const NAP: Duration = Duration::from_millis(20);
/// Samples that go through the model together when it is measured.
const EVALUATED_AT_ONCE: usize = 16;

/// A lease that could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the run spec is not understood: {0}")]
    Spec(String),
    #[error("the lease is incomplete")]
    Incomplete,
    #[error("codec {0} is unknown")]
    Codec(u32),
    #[error("the shard is unusable: {0}")]
    Shard(#[from] BatchError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("training gave weights that are not finite")]
    NotFinite,
}

/// Where leases are worked on. The device, and a trainer for the model last trained, stay from one to the next.
pub(super) struct Bench<'a> {
    disk: &'a dyn Disk,
    device: OpenDevice,
    stop: &'a AtomicBool,
    say: fn(from_worker::Body),
    trainer: Option<(ModelSpec, AdamWConfig, Trainer)>,
}

impl<'a> Bench<'a> {
    pub fn new(disk: &'a dyn Disk, device: OpenDevice, stop: &'a AtomicBool, say: fn(from_worker::Body)) -> Self {
        Bench { disk, device, stop, say, trainer: None }
    }

    /// Trains a lease until its steps are done or Stop comes.
    pub fn train(&mut self, job: &Train) -> Result<Trained, WorkError> {
        let spec = parse_spec(&job.run_spec_json)?;
        let codec = CodecId::from_number(job.codec).ok_or(WorkError::Codec(job.codec))?;
        let (base, slice) = (job.base.as_ref().ok_or(WorkError::Incomplete)?, job.slice.as_ref().ok_or(WorkError::Incomplete)?);
        let weights = base::build(self.disk, &spec.model, base)?;
        let flat = weights.flat();
        let batches = self.batches(&spec, slice)?;
        let mut store = CheckpointStore::open(self.disk, CHECKPOINT, flat.len())?;
        let (mut trainer, mut progress) = self.take_up(&spec, job, &flat, &store)?;
        self.steps(&spec, job, &batches, &mut trainer, &mut progress, &mut store)?;
        let mut trained = Trained {
            lease_id: job.lease_id,
            steps: progress.steps as u32,
            samples: progress.samples as u32,
            train_ms: (progress.train_s * 1000.0) as u64,
            loss_first: progress.loss_first,
            loss_last: progress.loss_last,
            ..Default::default()
        };
        if progress.steps > 0 {
            trained.weights_file = self.keep_weights(base, &weights)?;
            self.finish(&spec, job, codec, &flat, &trainer, &mut trained)?;
        }
        self.trainer = Some((spec.model.clone(), AdamWConfig::from(&spec.inner), trainer));
        Ok(trained)
    }

    /// Measures the loss on a lease's samples.
    pub fn evaluate(&mut self, job: &Evaluate) -> Result<Evaluated, WorkError> {
        let spec = parse_spec(&job.run_spec_json)?;
        let (base, slice) = (job.base.as_ref().ok_or(WorkError::Incomplete)?, job.slice.as_ref().ok_or(WorkError::Incomplete)?);
        let weights = base::build(self.disk, &spec.model, base)?;
        let model = Model::new(&spec.model, &weights.flat(), &self.device.device)?;
        let samples = self.shard(&spec, slice)?.range(range(slice))?;
        let (nats, tokens) = nightjar_train::evaluate(&model, &samples, EVALUATED_AT_ONCE)?;
        let weights_file = self.keep_weights(base, &weights)?;
        Ok(Evaluated { lease_id: job.lease_id, nats, tokens, weights_file })
    }

    fn shard(&self, spec: &RunSpec, slice: &Slice) -> Result<Shard, WorkError> {
        let (context, vocab_size) = (spec.model.max_position_embeddings as usize, spec.model.vocab_size);
        Ok(Shard::read(&files::read(self.disk, &slice.shard_file)?, slice.shard_samples as usize, context, vocab_size)?)
    }

    fn batches(&self, spec: &RunSpec, slice: &Slice) -> Result<Vec<Batch>, WorkError> {
        let (first, samples) = (slice.first_sample as usize, slice.samples as usize);
        Ok(self.shard(spec, slice)?.batches(first, samples, spec.inner.batch_samples as usize)?)
    }

    /// A trainer at the lease's start, or at its last checkpoint.
    fn take_up(
        &mut self,
        spec: &RunSpec,
        job: &Train,
        flat: &[f32],
        store: &CheckpointStore<'_>,
    ) -> Result<(Trainer, LeaseProgress), WorkError> {
        let config = AdamWConfig::from(&spec.inner);
        let base_version = job.base.as_ref().map_or(0, |b| b.version);
        let checkpoint = store.load()?.filter(|c| (c.progress.lease_id, c.progress.base_version) == (job.lease_id, base_version));
        let Checkpoint { progress, weights, moments } = match checkpoint {
            Some(checkpoint) => checkpoint,
            None => Checkpoint {
                progress: LeaseProgress { lease_id: job.lease_id, base_version, ..Default::default() },
                weights: flat.to_vec(),
                moments: self.moments(job, flat.len())?,
            },
        };
        let mut trainer = match self.trainer.take() {
            Some((model, settings, mut trainer)) if model == spec.model && settings == config => {
                trainer.load_weights(&weights)?;
                trainer
            }
            _ => Trainer::new(&spec.model, &weights, config, micro_batch(spec), &self.device.device)?,
        };
        trainer.load_moments(&moments)?;
        Ok((trainer, progress))
    }

    fn moments(&self, job: &Train, parameters: usize) -> Result<Moments, WorkError> {
        if job.optimizer_file.is_empty() {
            return Ok(Moments { m: vec![0.0; parameters], v: vec![0.0; parameters], t: 0 });
        }
        Ok(files::read_moments(self.disk, &job.optimizer_file, parameters)?)
    }

    fn steps(
        &self,
        spec: &RunSpec,
        job: &Train,
        batches: &[Batch],
        trainer: &mut Trainer,
        progress: &mut LeaseProgress,
        store: &mut CheckpointStore<'_>,
    ) -> Result<(), WorkError> {
        let (start, tokens_before, train_s_before) = (Instant::now(), progress.tokens, progress.train_s);
        let (mut told, mut saved) = (start, start);
        let todo = batches.iter().take(job.steps as usize).enumerate().skip(progress.steps as usize);
        for (k, batch) in todo {
            let tokens = job.progress_tokens as f64 + k as f64 * job.progress_tokens_per_step as f64;
            let rate = spec.inner.learning_rate_at(tokens / spec.token_budget as f64);
            let report = match trainer.step_while(batch, rate, || !self.stopped()) {
                Ok(report) => report,
                Err(TrainError::Stopped) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            if k == 0 {
                progress.loss_first = report.loss;
            }
            progress.loss_last = report.loss;
            progress.loss_sum += report.loss;
            progress.steps += 1;
            progress.samples += batch.samples() as u64;
            progress.tokens += report.tokens;
            self.pace(start, progress.tokens - tokens_before, job.tokens_per_s_max);
            // The pauses that the owner's cap asks for belong to the work: it goes as fast as it may.
            progress.train_s = train_s_before + start.elapsed().as_secs_f64();
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                (self.say)(from_worker::Body::Progress(Progress {
                    lease_id: job.lease_id,
                    steps: progress.steps as u32,
                    loss: report.loss,
                    tokens: progress.tokens,
                    train_ms: (progress.train_s * 1000.0) as u64,
                }));
            }
            if saved.elapsed() >= Duration::from_millis(job.checkpoint_ms) && progress.steps < u64::from(job.steps) {
                store.save(&Checkpoint { progress: *progress, weights: trainer.weights()?, moments: trainer.moments()? })?;
                saved = Instant::now();
            }
        }
        Ok(())
    }

    /// Sleeps until `tokens` since `start` are no more than the allowed rate gives, or Stop comes.
    fn pace(&self, start: Instant, tokens: u64, tokens_per_s_max: f64) {
        if tokens_per_s_max <= 0.0 {
            return;
        }
        let due = Duration::try_from_secs_f64(tokens as f64 / tokens_per_s_max).unwrap_or(Duration::MAX);
        while !self.stopped() {
            let left = due.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The file of the base weights, for later leases: the one that they came from, or a new one.
    fn keep_weights(&self, base: &Base, weights: &Weights) -> Result<String, WorkError> {
        if base.keyframe_file.is_empty() && base.updates.is_empty() {
            return Ok(base.weights_file.clone());
        }
        let file = format!("work/weights-{}", weights.version);
        files::write_weights(self.disk, &file, weights)?;
        Ok(file)
    }

    /// Encodes the delta and writes it with the state that belongs to it.
    fn finish(
        &self,
        spec: &RunSpec,
        job: &Train,
        codec: CodecId,
        base: &[f32],
        trainer: &Trainer,
        trained: &mut Trained,
    ) -> Result<(), WorkError> {
        let after = trainer.weights()?;
        let pseudo_gradient: Vec<f32> = base.iter().zip(&after).map(|(base, after)| base - after).collect();
        if !pseudo_gradient.iter().all(|v| v.is_finite()) {
            return Err(WorkError::NotFinite);
        }
        let mut residual = match job.residual_file.as_str() {
            "" => vec![0.0; base.len()],
            file => files::read_residual(self.disk, file, base.len())?,
        };
        let delta = delta::encode(&spec.model, codec, &pseudo_gradient, &mut residual);
        let file = |kind: &str| format!("work/lease-{}.{kind}", job.lease_id);
        trained.delta_file = file("delta");
        trained.delta_hash = BlobHash::of(&delta).0.to_vec();
        trained.delta_bytes = delta.len() as u64;
        trained.residual_file = file("residual");
        trained.optimizer_file = file("optimizer");
        files::write(self.disk, &trained.delta_file, &delta)?;
        files::write_residual(self.disk, &trained.residual_file, &residual)?;
        files::write_moments(self.disk, &trained.optimizer_file, &trainer.moments()?)?;
        Ok(())
    }
}

fn range(slice: &Slice) -> std::ops::Range<usize> {
    slice.first_sample as usize..slice.first_sample as usize + slice.samples as usize
}

fn parse_spec(json: &str) -> Result<RunSpec, WorkError> {
    let spec: RunSpec = serde_json::from_str(json).map_err(|e| WorkError::Spec(e.to_string()))?;
    spec.validate().map_err(|e| WorkError::Spec(e.to_string()))?;
    Ok(spec)
}

/// Samples that go through the model at once: as many of a step's as a quarter of the free memory holds. A GPU's own
/// memory cannot be asked through `wgpu`; the computer's stands in for it.
fn micro_batch(spec: &RunSpec) -> usize {
    let model = &spec.model;
    let [context, hidden, intermediate, layers, heads, vocab] = [
        model.max_position_embeddings,
        model.hidden_size,
        model.intermediate_size,
        model.num_hidden_layers,
        model.num_attention_heads,
        model.vocab_size,
    ]
    .map(u64::from);
    // What the backward pass keeps of a sample, counted in f32: per layer about twelve vectors of the residual stream's
    // width and four of the feed-forward block's, the attention scores twice, and the logits twice.
    let floats = context * (layers * (12 * hidden + 4 * intermediate + 2 * heads * context) + 2 * vocab);
    let free = match MemorySensor::default().read() {
        Reading::Known(bytes) => bytes,
        Reading::Unknown(_) => 1 << 30,
    };
    (free / 4 / (4 * floats)).clamp(1, u64::from(spec.inner.batch_samples)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{disk::FolderDisk, rng, version::keyframe};
    use nightjar_train::{DeviceSettings, open_device};

    const STEPS: u32 = 4;

    /// A folder with version 0 as a keyframe and a shard of random tokens, and a lease on both.
    fn scene() -> (tempfile::TempDir, FolderDisk, Train, ModelSpec) {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let model = ModelSpec {
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            max_position_embeddings: 8,
            ..ModelSpec::tiny()
        };
        let spec = serde_json::json!({ "name": "x", "token_budget": 1000, "model": model, "inner": { "batch_samples": 2 } });
        let weights = Weights::start(&model, &model.draw_all(1));
        disk.write("blobs/keyframe", &keyframe::encode(&model, &weights)).unwrap();
        let tokens = (0..20 * 9).flat_map(|i| (rng::below(1, 0, i, 256) as u16).to_le_bytes()).collect::<Vec<u8>>();
        disk.write("blobs/shard", &zstd::encode_all(&tokens[..], 1).unwrap()).unwrap();
        let digest = weights.digest().to_vec();
        let job = Train {
            lease_id: 7,
            run_spec_json: spec.to_string(),
            base: Some(Base { keyframe_file: "blobs/keyframe".into(), digest, ..Default::default() }),
            slice: Some(Slice { shard_file: "blobs/shard".into(), shard_samples: 20, first_sample: 3, samples: 2 * STEPS }),
            steps: STEPS,
            progress_tokens_per_step: 50,
            codec: 1,
            ..Default::default()
        };
        (folder, disk, job, model)
    }

    fn train(disk: &FolderDisk, job: &Train, stop: bool) -> Result<Trained, WorkError> {
        let device = open_device(&DeviceSettings { choice: "flex".parse().unwrap(), threads: 1, cache: None }).unwrap();
        Bench::new(disk, device, &AtomicBool::new(stop), |_| {}).train(job)
    }

    #[test]
    fn a_lease_becomes_a_delta_with_its_state() {
        let (_folder, disk, job, model) = scene();
        let trained = train(&disk, &Train { checkpoint_ms: 60_000, ..job.clone() }, false).unwrap();
        assert_eq!((trained.steps, trained.samples), (STEPS, 2 * STEPS));
        assert_eq!(trained.weights_file, "work/weights-0");
        let delta = disk.read(&trained.delta_file).unwrap().unwrap();
        assert_eq!(trained.delta_hash, BlobHash::of(&delta).0);
        let mut norm = 0.0;
        delta::decode(&model, &delta, |_, values| norm += values.iter().map(|v| f64::from(v * v)).sum::<f64>()).unwrap();
        assert!(norm > 0.0);
        // The next lease goes on from that state.
        let base = Base { keyframe_file: String::new(), weights_file: trained.weights_file, ..job.base.clone().unwrap() };
        let (residual_file, optimizer_file) = (trained.residual_file, trained.optimizer_file);
        let next = Train { lease_id: 8, base: Some(base), residual_file, optimizer_file, ..job };
        let next = train(&disk, &next, false).unwrap();
        assert_eq!(next.weights_file, "work/weights-0");
        assert_ne!(next.delta_hash, trained.delta_hash, "the moments make a difference");
    }

    #[test]
    fn a_lease_goes_on_from_its_checkpoint_as_if_never_interrupted() {
        let (_folder, disk, job, _) = scene();
        let whole = train(&disk, &Train { checkpoint_ms: 60_000, ..job.clone() }, false).unwrap();
        assert_eq!(disk.list("work").unwrap().iter().filter(|n| n.starts_with("checkpoint")).count(), 0);
        // With a checkpoint after every step, the last is of the step before the last: as after a kill.
        train(&disk, &job, false).unwrap();
        let again = train(&disk, &job, false).unwrap();
        assert_eq!(again.delta_hash, whole.delta_hash);
        assert_eq!((again.steps, again.loss_first, again.loss_last), (whole.steps, whole.loss_first, whole.loss_last));
        // Stopped at once, it reports the steps of the checkpoint.
        let stopped = train(&disk, &job, true).unwrap();
        assert_eq!((stopped.steps, stopped.samples), (STEPS - 1, 2 * (STEPS - 1)));
        // A checkpoint is good for its own lease only.
        let other = train(&disk, &Train { lease_id: 9, ..job }, true).unwrap();
        assert_eq!((other.steps, other.delta_file.as_str()), (0, ""));
    }

    #[test]
    fn a_wrong_base_is_told_apart_from_other_faults() {
        let (_folder, disk, job, _) = scene();
        let base = Base { digest: vec![1; 32], ..job.base.clone().unwrap() };
        assert!(matches!(train(&disk, &Train { base: Some(base), ..job.clone() }, false), Err(WorkError::Base(_))));
        let slice = Slice { shard_samples: 19, ..job.slice.clone().unwrap() };
        assert!(matches!(train(&disk, &Train { slice: Some(slice), ..job.clone() }, false), Err(WorkError::Shard(_))));
        assert!(matches!(train(&disk, &Train { codec: 9, ..job }, false), Err(WorkError::Codec(9))));
    }

    #[test]
    fn the_rate_is_kept() {
        let (_folder, disk, job, _) = scene();
        let start = Instant::now();
        // 4 steps of 2 samples of 8 tokens at 160 tokens a second.
        train(&disk, &Train { tokens_per_s_max: 160.0, checkpoint_ms: 60_000, ..job }, false).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(400));
    }
}
