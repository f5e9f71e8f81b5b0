//! Cost mode: no tensors and no files. A delta is a name and a length, so that a million devices fit into memory and
//! the coordinator's own cost shows.

use super::{Job, JobId, Training};
use crate::dataset::made_up_hash;
use nightjar_shared::{
    delta,
    ids::{LeaseId, Version},
    run_spec::RunSpec,
    wire::worker::{Evaluated, Failed, Trained, from_worker, to_worker},
    work_files,
};
use std::collections::HashMap;

/// What is remembered of an open job.
struct Open {
    is_training: bool,
    lease_id: u64,
    base_version: u64,
    samples: u32,
}

/// Trains nothing.
pub struct Cost {
    jobs: HashMap<JobId, Open>,
    next: u64,
    delta_bytes: u64,
    batch_samples: u32,
    tokens_per_sample: u64,
}

impl Cost {
    /// Of a run whose deltas are as long as they may be.
    pub fn new(spec: &RunSpec) -> Self {
        Cost {
            jobs: HashMap::new(),
            next: 0,
            delta_bytes: *delta::bytes_allowed(&spec.model, &spec.delta).end(),
            batch_samples: spec.inner.batch_samples,
            tokens_per_sample: spec.tokens_per_sample(),
        }
    }
}

impl Training for Cost {
    fn has_bytes(&self) -> bool {
        false
    }

    fn begin(&mut self, job: Job) -> JobId {
        self.next += 1;
        let open = match job.body {
            to_worker::Body::Train(t) => Open {
                is_training: true,
                lease_id: t.lease_id,
                base_version: t.base.map_or(0, |b| b.version),
                samples: t.slice.map_or(0, |s| s.samples),
            },
            to_worker::Body::Evaluate(e) => Open {
                is_training: false,
                lease_id: e.lease_id,
                base_version: e.base.map_or(0, |b| b.version),
                samples: e.slice.map_or(0, |s| s.samples),
            },
            to_worker::Body::Stop(_) | to_worker::Body::Limits(_) | to_worker::Body::Checkpoint(_) => {
                return JobId(self.next);
            }
        };
        self.jobs.insert(JobId(self.next), open);
        JobId(self.next)
    }

    fn finish(&mut self, id: JobId, steps: u32, train_ms: u64) -> from_worker::Body {
        let Some(Open { is_training, lease_id, base_version, samples }) = self.jobs.remove(&id) else {
            return from_worker::Body::Failed(Failed { sentence: "no such job".into(), ..Failed::default() });
        };
        let weights_file = work_files::weights(Version(base_version));
        if !is_training {
            let tokens = u64::from(samples) * self.tokens_per_sample;
            return from_worker::Body::Evaluated(Evaluated { lease_id, nats: tokens as f64, tokens, weights_file });
        }
        from_worker::Body::Trained(Trained {
            lease_id,
            delta_file: work_files::delta(LeaseId(lease_id)),
            delta_hash: made_up_hash("delta", lease_id).0.to_vec(),
            delta_bytes: self.delta_bytes,
            weights_file,
            steps,
            samples: steps * self.batch_samples,
            train_ms,
            loss_first: 1.0,
            loss_last: 1.0,
            ..Default::default()
        })
    }

    fn abandon(&mut self, id: JobId) {
        self.jobs.remove(&id);
    }
}
