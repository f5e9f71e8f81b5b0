//! The worker's process: confined before anything else, then framed messages in on stdin, out on stdout. A thread of
//! its own reads stdin, so that Stop and new limits are heard in the middle of a step, and the process ends at once
//! when the agent is gone.

use super::{device, faults, priority, sandbox, written::Written};
use crate::cli::Serve;
use anyhow::{Context, Result};
use nightjar_agent::{journal::CHECKPOINT, policy::Reading, sensor::MemorySensor};
use nightjar_shared::{
    disk::FolderDisk,
    wire::{
        frame, limits,
        worker::{AheadOver, Failed, FromWorker, Ready, Saved, ToWorker, from_worker, to_worker},
    },
};
use nightjar_train::work::{Environment, LeaseRunner, Live};
use std::{
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
};

/// Free memory where the system does not say how much there is.
const MEMORY_ASSUMED: u64 = 1 << 30;

/// What the listening thread tells the training one.
#[derive(Default)]
struct Heard {
    stop: AtomicBool,
    live: Arc<Live>,
    /// Whether a lease is at hand, so that somebody will answer.
    busy: AtomicBool,
}

/// Works until stdin closes.
pub(crate) fn serve(args: &Serve) -> Result<ExitCode> {
    let state = std::path::absolute(&args.state).context("cannot tell where the home folder is")?;
    priority::offer_memory();
    let notes = sandbox::enter(&state, args.cgroup.as_deref()).iter().map(ToString::to_string).collect();
    let heard = Arc::new(Heard::default());
    let (jobs, waiting) = mpsc::sync_channel(1);
    let listener = heard.clone();
    std::thread::spawn(move || listen(&jobs, &listener));
    priority::lower();
    faults::watch(heard.live.clone(), |words| {
        device_failed(format!("the graphics driver has failed: {words}"));
        std::process::exit(1);
    });
    let ended = work(args, &state, notes, &waiting, &heard);
    if let Err(e) = &ended {
        device_failed(crate::in_one_line(e));
    }
    ended.map(|()| ExitCode::SUCCESS)
}

fn work(
    args: &Serve,
    state: &Path,
    sandbox: Vec<String>,
    jobs: &Receiver<to_worker::Body>,
    heard: &Heard,
) -> Result<()> {
    let disk = Written::to(FolderDisk::open(state)?);
    // What was written goes with whatever is said.
    let say = |body: from_worker::Body| say(disk.counted_in(body));
    let device = device::open(args, state)?;
    say(from_worker::Body::Ready(Ready { device: device.name.clone(), sandbox, gpu: !device.software }));
    let mut runner = LeaseRunner::of(device);
    let mut memory = MemorySensor::default();
    for job in jobs {
        let memory_free = match memory.read() {
            Reading::Known(bytes) => bytes,
            Reading::Unknown(_) => MEMORY_ASSUMED,
        };
        let (stop, live) = (&heard.stop, &heard.live);
        let env = Environment { disk: &disk, checkpoint: CHECKPOINT, memory_free, live, stop, say: &say };
        let done = match job {
            to_worker::Body::Train(job) => runner.train(&job, &env).map(from_worker::Body::Trained),
            to_worker::Body::Evaluate(job) => runner.evaluate(&job, &env).map(from_worker::Body::Evaluated),
            to_worker::Body::Stop(_) | to_worker::Body::Limits(_) | to_worker::Body::Checkpoint(_) => continue,
        };
        heard.busy.store(false, Ordering::Release);
        if heard.live.take_checkpoint() {
            // It came too late to be answered on the way.
            say(from_worker::Body::Saved(Saved::default()));
        }
        say(done.unwrap_or_else(|e| {
            let (base_is_wrong, device_failed) = (e.is_of_base(), e.is_of_device());
            from_worker::Body::Failed(Failed {
                sentence: e.to_string(),
                base_is_wrong,
                device_failed,
                disk_failed: e.is_of_disk(),
            })
        }));
        if let Some(lease_id) = runner.train_ahead(&env, &|| heard.busy.load(Ordering::Acquire)) {
            say(from_worker::Body::AheadOver(AheadOver { lease_id }));
        }
    }
    Ok(())
}

/// Reads messages until stdin closes, and ends the process then: there is nobody left to train for.
fn listen(jobs: &SyncSender<to_worker::Body>, heard: &Heard) {
    let mut stdin = io::stdin().lock();
    loop {
        match receive(&mut stdin) {
            Ok(to_worker::Body::Stop(_)) => heard.stop.store(true, Ordering::Relaxed),
            Ok(to_worker::Body::Limits(limits)) => {
                heard.live.allow(limits.duty, limits.memory_bytes);
                heard.live.cap(limits.tokens_per_s_max);
            }
            Ok(to_worker::Body::Checkpoint(_)) => {
                heard.live.ask_checkpoint();
                // With nothing being trained nobody else will answer; if both do, the second finds nothing asked for.
                if !heard.busy.load(Ordering::Acquire) && heard.live.take_checkpoint() {
                    say(from_worker::Body::Saved(Saved::default()));
                }
            }
            Ok(job) => {
                // A Stop that came before this job was not about it.
                heard.stop.store(false, Ordering::Relaxed);
                heard.busy.store(true, Ordering::Release);
                if jobs.send(job).is_err() {
                    return;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => std::process::exit(0),
            Err(e) => {
                eprintln!("the agent's message is not understood: {e}");
                std::process::exit(1);
            }
        }
    }
}

fn receive(from: &mut impl Read) -> io::Result<to_worker::Body> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix)?;
    let length = frame::length(prefix, limits::WORKER_MESSAGE_BYTES_MAX).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let message: ToWorker = frame::decode(&body).map_err(io::Error::other)?;
    message.body.ok_or_else(|| io::Error::other("it is empty"))
}

fn device_failed(sentence: String) {
    say(from_worker::Body::Failed(Failed { sentence, device_failed: true, ..Failed::default() }));
}

fn say(body: from_worker::Body) {
    let mut stdout = io::stdout().lock();
    let frame = frame::encode(&FromWorker { body: Some(body) });
    if stdout.write_all(&frame).and_then(|()| stdout.flush()).is_err() {
        // The agent is gone.
        std::process::exit(0);
    }
}
