//! Training without tensors: the weights are built from the very blobs and files that a real worker reads, by
//! the same code; only the gradient is made up. It points away from a target drawn from the seed, so merging many of
//! them must come nearer to it.

use super::{Job, JobId, Losses, Training};
use nightjar_shared::{
    bytes::Reader,
    delta,
    disk::Disk,
    ids::{BlobHash, LeaseId, Version},
    rng,
    run_spec::RunSpec,
    version::{Weights, keyframe, update},
    wire::worker::{Base, Evaluate, Evaluated, Failed, Train, Trained, from_worker, to_worker},
    work_files,
};
use std::{collections::BTreeMap, io};

/// Jobs that are open: nothing is done before they end.
#[derive(Default)]
pub struct Synthetic {
    jobs: BTreeMap<JobId, Job>,
    measured: BTreeMap<JobId, Losses>,
    next: u64,
    seed: u64,
}

impl Synthetic {
    /// Whose target is drawn from the run's seed.
    pub fn new(seed: u64) -> Self {
        Synthetic { seed, ..Self::default() }
    }

    fn id(&mut self) -> JobId {
        self.next += 1;
        JobId(self.next)
    }
}

impl Training for Synthetic {
    fn begin(&mut self, job: Job) -> JobId {
        let id = self.id();
        self.jobs.insert(id, job);
        id
    }

    fn finish(&mut self, id: JobId, steps: u32, train_ms: u64) -> from_worker::Body {
        let done = match self.jobs.remove(&id) {
            Some(Job { body: to_worker::Body::Train(train_job), disk, spec, device, .. }) => {
                train(&*disk, &spec, device, &train_job, steps, train_ms).map(from_worker::Body::Trained)
            }
            Some(Job { body: to_worker::Body::Evaluate(job), disk, spec, .. }) => {
                evaluate(&*disk, &spec, &job).map(from_worker::Body::Evaluated)
            }
            _ => Err(io::Error::other("no such job")),
        };
        // Weights that a power cut took: the worker says so, and a keyframe comes.
        done.unwrap_or_else(|error| {
            from_worker::Body::Failed(Failed { sentence: error.to_string(), base_is_wrong: true, ..Failed::default() })
        })
    }

    fn abandon(&mut self, id: JobId) {
        self.jobs.remove(&id);
    }

    fn measure(&mut self, weights: &Weights) -> Option<JobId> {
        let id = self.id();
        self.measured.insert(id, Losses { heldout: distance(self.seed, &weights.flat()), ood: None });
        Some(id)
    }

    fn measured(&mut self, id: JobId) -> Losses {
        self.measured.remove(&id).unwrap_or_default()
    }
}

/// A value of the target that training approaches.
pub fn target(seed: u64, i: usize) -> f32 {
    rng::normal(seed, rng::stream::SIM + 80, i as u64) as f32 * 0.5
}

/// Euclidean distance of flat weights to the target.
pub fn distance(seed: u64, flat: &[f32]) -> f64 {
    let squares = flat.iter().enumerate().map(|(i, w)| f64::from(w - target(seed, i)).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Trains `steps` of a lease and leaves the files that a worker leaves.
fn train(disk: &dyn Disk, spec: &RunSpec, device: u32, job: &Train, steps: u32, train_ms: u64) -> io::Result<Trained> {
    let weights = base(disk, spec, job.base.as_ref())?;
    let flat = weights.flat();
    let mut residual = match job.residual_file.as_str() {
        "" => vec![0.0; flat.len()],
        file => floats(&whole(disk, file)?).iter().map(|r| r * job.residual_scale as f32).collect(),
    };
    let who = u64::from(device);
    let pull = 0.01 * steps as f32;
    let gradient: Vec<f32> = flat
        .iter()
        .enumerate()
        .map(|(i, w)| {
            pull.min(0.5) * (w - target(spec.seed, i)) + rng::normal(job.lease_id, who, i as u64) as f32 * 1e-3
        })
        .collect();
    let bytes = delta::encode(&spec.model, &spec.delta, &gradient, &mut residual);
    let (lease, id) = (job.lease_id, LeaseId(job.lease_id));
    let files = [
        work_files::delta(id),
        work_files::residual(id),
        work_files::optimizer(id),
        work_files::weights(weights.version),
    ];
    disk.write(&files[0], &bytes)?;
    disk.write(&files[1], &residual.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    disk.write(&files[2], &lease.to_le_bytes())?;
    disk.write(&files[3], &write_weights(&weights))?;
    let [delta_file, residual_file, optimizer_file, weights_file] = files;
    Ok(Trained {
        lease_id: lease,
        delta_hash: BlobHash::of(&bytes).0.to_vec(),
        delta_bytes: bytes.len() as u64,
        delta_file,
        residual_file,
        optimizer_file,
        weights_file,
        steps,
        samples: steps * spec.inner.batch_samples,
        train_ms,
        loss_first: 2.0,
        loss_last: 1.0,
        ..Default::default()
    })
}

/// Measures a version; the "loss" is the distance to the target.
fn evaluate(disk: &dyn Disk, spec: &RunSpec, job: &Evaluate) -> io::Result<Evaluated> {
    let weights = base(disk, spec, job.base.as_ref())?;
    let samples = job.slice.as_ref().map_or(0, |s| s.samples);
    let weights_file = work_files::weights(weights.version);
    disk.write(&weights_file, &write_weights(&weights))?;
    Ok(Evaluated {
        lease_id: job.lease_id,
        nats: distance(spec.seed, &weights.flat()),
        tokens: u64::from(samples) * spec.tokens_per_sample(),
        weights_file,
    })
}

fn whole(disk: &dyn Disk, file: &str) -> io::Result<Vec<u8>> {
    disk.read(file)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, file.to_owned()))
}

/// The weights at a job's base version, checked against its digest: invariant 5.
fn base(disk: &dyn Disk, spec: &RunSpec, base: Option<&Base>) -> io::Result<Weights> {
    let base = base.ok_or_else(|| io::Error::other("a job without weights"))?;
    let mut weights = match (base.keyframe_file.as_str(), base.weights_file.as_str()) {
        ("", file) => Weights::read(&spec.model, &mut Reader::new(&whole(disk, file)?)).map_err(io::Error::other)?,
        (file, _) => keyframe::decode(&spec.model, &whole(disk, file)?).map_err(io::Error::other)?,
    };
    for step in &base.updates {
        update::apply(&spec.model, &mut weights, &whole(disk, &step.file)?).map_err(io::Error::other)?;
        if step.redefines {
            keyframe::redefine(&mut weights, &mut vec![0.0; spec.model.parameters()]);
        }
    }
    assert_eq!(weights.version, Version(base.version), "invariant 5: the path ends elsewhere");
    assert_eq!(
        weights.digest(),
        base.digest[..],
        "invariant 5: not the coordinator's bits at version {}",
        base.version
    );
    Ok(weights)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn write_weights(weights: &Weights) -> Vec<u8> {
    let mut bytes = vec![];
    weights.write(&mut bytes);
    bytes
}
