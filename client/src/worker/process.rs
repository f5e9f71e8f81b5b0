//! The worker's process: framed messages in on stdin, out on stdout. A thread of its own reads stdin, so that Stop is
//! heard in the middle of a step, and the process ends at once when the agent is gone.

use crate::cli::Serve;
use anyhow::Result;
use nightjar_agent::{journal::CHECKPOINT, policy::Reading, sensor::MemorySensor};
use nightjar_shared::{
    disk::FolderDisk,
    wire::{
        frame, limits,
        worker::{Failed, FromWorker, Ready, ToWorker, from_worker, to_worker},
    },
};
use nightjar_train::work::{Bench, Room, WorkError};
use std::{
    io::{self, Read, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
};

/// Free memory where the system does not say how much there is.
const MEMORY_ASSUMED: u64 = 1 << 30;

/// Works until stdin closes.
pub(crate) fn serve(args: &Serve) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let (jobs, waiting) = mpsc::sync_channel(1);
    let heard = stop.clone();
    std::thread::spawn(move || listen(&jobs, &heard));
    // Training must never be felt; where the system refuses, it trains at the usual priority. On Linux this holds for
    // this thread and those that it will start: not for the one above, which must hear the end of the pipe at any load.
    #[cfg(unix)]
    let _ = rustix::process::nice(19);
    let ended = work(args, &waiting, &stop);
    if let Err(e) = &ended {
        say(from_worker::Body::Failed(Failed { sentence: crate::in_one_line(e), base_is_wrong: false }));
    }
    ended.map(|()| ExitCode::SUCCESS)
}

fn work(args: &Serve, jobs: &Receiver<to_worker::Body>, stop: &AtomicBool) -> Result<()> {
    let disk = FolderDisk::open(&args.state)?;
    let device = args.compute.open()?;
    say(from_worker::Body::Ready(Ready { device: device.name.clone() }));
    let mut bench = Bench::new(device.device);
    let mut memory = MemorySensor::default();
    for job in jobs {
        let memory_free = match memory.read() {
            Reading::Known(bytes) => bytes,
            Reading::Unknown(_) => MEMORY_ASSUMED,
        };
        let room = Room { disk: &disk, checkpoint: CHECKPOINT, memory_free, stop, say: &say };
        let done = match job {
            to_worker::Body::Train(job) => bench.train(&job, &room).map(from_worker::Body::Trained),
            to_worker::Body::Evaluate(job) => bench.evaluate(&job, &room).map(from_worker::Body::Evaluated),
            to_worker::Body::Stop(_) => continue,
        };
        say(done.unwrap_or_else(|e| {
            let base_is_wrong = matches!(e, WorkError::Base(_));
            from_worker::Body::Failed(Failed { sentence: e.to_string(), base_is_wrong })
        }));
    }
    Ok(())
}

/// Reads messages until stdin closes, and ends the process then: there is nobody left to train for.
fn listen(jobs: &SyncSender<to_worker::Body>, stop: &AtomicBool) {
    let mut stdin = io::stdin().lock();
    loop {
        match receive(&mut stdin) {
            Ok(to_worker::Body::Stop(_)) => stop.store(true, Ordering::Relaxed),
            Ok(job) => {
                // A Stop that came before this job was not about it.
                stop.store(false, Ordering::Relaxed);
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

fn say(body: from_worker::Body) {
    let mut stdout = io::stdout().lock();
    let frame = frame::encode(&FromWorker { body: Some(body) });
    if stdout.write_all(&frame).and_then(|()| stdout.flush()).is_err() {
        // The agent is gone.
        std::process::exit(0);
    }
}
