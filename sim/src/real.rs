//! Real training: each simulated device takes the inner steps that ship, by the worker's own code, on a pool of
//! threads. A job is begun when its virtual time begins and waited for when that ends, so several devices train side by
//! side; what comes out depends on seed and job alone.

mod job_disk;
mod pool;

#[cfg(test)]
mod tests;

use crate::training::{Job, JobId, Losses, Training};
use job_disk::{Files, JobDisk};
use nightjar_shared::{
    disk::Disk,
    model_spec::ModelSpec,
    version::Weights,
    wire::worker::{Failed, from_worker, to_worker},
};
use nightjar_train::{
    Batch,
    work::{BaseError, Environment, LeaseEnd, LeaseError, LeaseRunner, Live, WorkError},
};
use pool::{Pool, Promise};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Every simulated device has this much memory to train in. What it truly has decides only whether it is given leases:
/// micro-batches of another size would add the same gradient up in another order.
const MEMORY_FREE: u64 = 8 << 30;

/// What versions are measured on.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Held-out samples.
    pub heldout: Batch,
    /// Out-of-domain samples.
    pub ood: Option<Batch>,
}

impl Measure {
    /// `samples` windows of each text, evenly spaced, as the reference measures; of bytes as tokens.
    pub fn of_texts(heldout: &[u8], ood: Option<&[u8]>, context: usize, samples: usize) -> Self {
        let windows = |text: &[u8]| Batch::spaced_windows(&crate::text::tokens(text), context, samples);
        Measure { heldout: windows(heldout), ood: ood.map(windows) }
    }
}

/// Trains for all devices.
pub struct Real {
    pool: Pool,
    open: BTreeMap<JobId, Open>,
    /// Where each device's last lease ended, for what it trains ahead.
    ends: BTreeMap<u32, LeaseEnd>,
    measuring: BTreeMap<JobId, Promise<Result<Losses, WorkError>>>,
    next: u64,
    model: ModelSpec,
    measure: Option<Arc<Measure>>,
}

/// A job under way.
struct Open {
    job: Job,
    end: Option<LeaseEnd>,
    stop: Arc<AtomicBool>,
    promise: Promise<Done>,
}

/// What a worker says, the files that it leaves, and where its lease ended.
type Done = (Result<from_worker::Body, WorkError>, Files, Option<LeaseEnd>);

impl Real {
    /// On `threads` threads; 0: one a core. Without a `measure`, versions are not measured.
    pub fn new(model: &ModelSpec, measure: Option<Measure>, threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Real {
            pool: Pool::new(if threads == 0 { cores() } else { threads }),
            open: BTreeMap::new(),
            ends: BTreeMap::new(),
            measuring: BTreeMap::new(),
            next: 0,
            model: model.clone(),
            measure: measure.map(Arc::new),
        }
    }

    fn id(&mut self) -> JobId {
        self.next += 1;
        JobId(self.next)
    }

    fn start(
        &mut self,
        body: to_worker::Body,
        end: Option<LeaseEnd>,
        given: Files,
    ) -> (Arc<AtomicBool>, Promise<Done>) {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let promise = self.pool.begin(move |runner| work(runner, &body, end, given, &stopped));
        (stop, promise)
    }
}

/// One job, start to end, after the steps that were taken ahead of it.
fn work(
    runner: &mut LeaseRunner,
    body: &to_worker::Body,
    end: Option<LeaseEnd>,
    given: Files,
    stop: &AtomicBool,
) -> Done {
    let disk = JobDisk::new(given);
    let live = Live::default();
    let env = Environment {
        disk: &disk,
        checkpoint: "work/checkpoint",
        memory_free: MEMORY_FREE,
        live: &live,
        stop,
        say: &|_| {},
    };
    runner.take_end();
    let ahead = end.map_or(Ok(()), |end| runner.resume_from(end, &env));
    runner.train_ahead(&env, &|| false);
    let said = ahead.and_then(|()| match body {
        to_worker::Body::Train(job) => runner.train(job, &env).map(from_worker::Body::Trained),
        to_worker::Body::Evaluate(job) => runner.evaluate(job, &env).map(from_worker::Body::Evaluated),
        to_worker::Body::Stop(_) | to_worker::Body::Limits(_) | to_worker::Body::Checkpoint(_) => {
            Err(LeaseError::Incomplete.into())
        }
    });
    (said, disk.into_left(), runner.take_end())
}

fn gather(job: &Job) -> Files {
    job_disk::gather(&*job.disk, &job.body).expect("the simulated disk never fails")
}

/// The job as the threads get it: real time means nothing to it.
fn timeless(body: &to_worker::Body, steps: Option<u32>) -> to_worker::Body {
    let mut body = body.clone();
    if let to_worker::Body::Train(job) = &mut body {
        job.checkpoint_ms = u64::MAX;
        job.steps = steps.unwrap_or(job.steps);
    }
    body
}

impl Training for Real {
    fn begin(&mut self, job: Job) -> JobId {
        let end = self.ends.remove(&job.device).and_then(|end| Some(end.for_steps(job.ahead?)));
        let (stop, promise) = self.start(timeless(&job.body, None), end.clone(), gather(&job));
        let id = self.id();
        self.open.insert(id, Open { job, end, stop, promise });
        id
    }

    fn finish(&mut self, id: JobId, steps: u32, train_ms: u64) -> from_worker::Body {
        let Some(Open { job, end, stop, mut promise }) = self.open.remove(&id) else {
            return failed("no such job".into(), false);
        };
        let planned = if let to_worker::Body::Train(job) = &job.body { job.steps } else { steps };
        if steps < planned {
            // It may be past them already: from the start again, and no further. Its files are still there: what a
            // lease at hand was begun with, a journal names to its end.
            stop.store(true, Ordering::Relaxed);
            self.pool.forget(&promise);
            promise = self.start(timeless(&job.body, Some(steps)), end, gather(&job)).1;
        }
        let (said, files, end) = self.pool.wait(promise);
        self.ends.extend(end.map(|end| (job.device, end)));
        match said {
            Ok(mut body) => {
                for (name, bytes) in files {
                    job.disk.write(&name, &bytes).expect("the simulated disk never fails");
                }
                if let from_worker::Body::Trained(trained) = &mut body {
                    trained.train_ms = train_ms;
                }
                body
            }
            Err(WorkError::Lease(LeaseError::Base(
                error @ (BaseError::WrongDigest(_) | BaseError::WrongVersion { .. }),
            ))) => {
                // Every file on the way was whole, so the coordinator's way leads elsewhere.
                panic!("invariant 5: device {}: {error}", job.device)
            }
            Err(error) => {
                // State that a power cut took: the worker says so, and a keyframe comes.
                let base_is_wrong = error.is_of_base();
                failed(error.to_string(), base_is_wrong)
            }
        }
    }

    fn abandon(&mut self, id: JobId) {
        if let Some(open) = self.open.remove(&id) {
            open.stop.store(true, Ordering::Relaxed);
            self.pool.forget(&open.promise);
        }
    }

    fn measure(&mut self, weights: &Weights) -> Option<JobId> {
        let (measure, model, flat) = (self.measure.clone()?, self.model.clone(), weights.flat());
        let promise = self.pool.begin(move |runner| {
            let heldout = runner.loss_on(&model, &flat, &measure.heldout)?;
            let ood = measure.ood.as_ref().map(|ood| runner.loss_on(&model, &flat, ood)).transpose()?;
            Ok(Losses { heldout, ood })
        });
        let id = self.id();
        self.measuring.insert(id, promise);
        Some(id)
    }

    fn measured(&mut self, id: JobId) -> Losses {
        let losses = self.measuring.remove(&id).map(|promise| self.pool.wait(promise));
        // Weights that blew up have no loss.
        let none = Losses { heldout: f64::NAN, ood: None };
        losses.and_then(Result::ok).unwrap_or(none)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.open.values().for_each(|open| open.stop.store(true, Ordering::Relaxed));
    }
}

fn failed(sentence: String, base_is_wrong: bool) -> from_worker::Body {
    from_worker::Body::Failed(Failed { sentence, base_is_wrong, ..Failed::default() })
}

/// Mean loss of weights on some samples, nats a token.
pub fn loss_on(model: &ModelSpec, flat: &[f32], samples: &Batch) -> Result<f64, WorkError> {
    LeaseRunner::on_processor().loss_on(model, flat, samples)
}
