//! A worker as a child process, in a process group of its own, so that it and whatever its driver may start are stopped
//! and killed together; framed messages on its pipes.

#[cfg(target_os = "linux")]
use super::cgroup::Cgroup;
use super::{
    Crash, End, Launcher, Order, Worker, WorkerEvent, environment,
    group::{Act, Group},
    log,
};
use crate::policy::Limits;
use nightjar_shared::wire::{
    frame, limits,
    worker::{self, FromWorker, ToWorker, from_worker, to_worker},
};
use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::AbortHandle,
    time::Instant,
};

/// A worker that has closed its pipe is given this long to end.
const ENDING_MAX: Duration = Duration::from_secs(2);

const SECOND: Duration = Duration::from_secs(1);
/// A worker that trains says something twice a second, and after each checkpoint.
const MESSAGES_A_SECOND_MAX: u32 = 100;

/// Starts a process for each worker.
pub struct Processes {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments; those of the [`Order`] follow.
    pub arguments: Vec<OsString>,
    /// Where its errors are kept.
    pub log: PathBuf,
}

struct Process {
    group: Arc<Group>,
    threads: usize,
    /// Whether it said that a GPU does the work.
    gpu: Arc<AtomicBool>,
    messages: mpsc::Sender<Vec<u8>>,
    tasks: [AbortHandle; 2],
    #[cfg(target_os = "linux")]
    cgroup: Option<Cgroup>,
}

impl Launcher for Processes {
    fn start(&mut self, order: &Order, events: mpsc::Sender<WorkerEvent>) -> io::Result<Box<dyn Worker>> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(["--device", &order.device, "--threads", &order.limits.threads.to_string()]);
        for name in &order.avoid {
            command.args(["--avoid", name]);
        }
        #[cfg(target_os = "linux")]
        let cgroup = match Cgroup::for_worker() {
            Ok(cgroup) => {
                cgroup.limit(order.limits.memory_bytes)?;
                // It joins by itself, so that not a byte of it counts as the agent's.
                command.arg("--cgroup").arg(cgroup.folder());
                Some(cgroup)
            }
            Err(why) => {
                tracing::debug!("the worker gets no control group: {why}");
                None
            }
        };
        command.env_clear().envs(environment::handed_on()).kill_on_drop(true);
        environment::keep_files()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        #[cfg(target_os = "linux")]
        bound_files(&child, order.file_bytes_max);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the worker has no pipes"));
        };
        let group = Arc::new(Group::of(child.id().unwrap_or(0)));
        let gpu = Arc::new(AtomicBool::new(false));
        let (messages, waiting) = mpsc::channel(8);
        let tell = tokio::spawn(tell(stdin, waiting)).abort_handle();
        let voice = Voice { stdout, stderr, log: self.log.clone(), gpu: gpu.clone(), events: events.clone() };
        let hear = tokio::spawn(voice.hear(child, group.clone())).abort_handle();
        let mut process = Process {
            group,
            threads: order.limits.threads,
            gpu,
            messages,
            tasks: [tell, hear],
            #[cfg(target_os = "linux")]
            cgroup,
        };
        process.allow(&order.limits);
        Ok(Box::new(process))
    }
}

/// Has the system end a worker that writes a file longer than any it needs; it is given nothing to do before.
#[cfg(target_os = "linux")]
fn bound_files(child: &Child, bytes_max: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let (Some(pid), Some(_)) = (pid, bytes_max)
        && let Err(e) = prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes_max, maximum: bytes_max })
    {
        tracing::debug!("the length of the worker's files is not bounded by the system: {e}");
    }
}

impl Worker for Process {
    fn send(&mut self, message: to_worker::Body) -> bool {
        self.messages.try_send(frame::encode(&ToWorker { body: Some(message) })).is_ok()
    }

    fn freeze(&mut self) {
        self.group.act(Act::Stop);
    }

    fn thaw(&mut self) {
        self.group.act(Act::Continue);
    }

    fn allow(&mut self, limits: &Limits) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(cgroup) = &self.cgroup
            && let Err(e) = cgroup.limit(limits.memory_bytes)
        {
            tracing::warn!("the worker's memory limit was not changed: {e}");
        }
        let memory_bytes = if limits.memory_bytes == u64::MAX { 0 } else { limits.memory_bytes };
        let message = worker::Limits {
            duty: limits.duty,
            threads: limits.threads as u32,
            memory_bytes,
            tokens_per_s_max: limits.tokens_per_s_max,
        };
        let heard = self.send(to_worker::Body::Limits(message));
        // Threads compute on the processor; a GPU has no use for them.
        heard && (self.threads == limits.threads || self.gpu.load(Ordering::Relaxed))
    }

    fn pid(&self) -> Option<u32> {
        self.group.leader()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.group.act(Act::Kill);
        // The child is dropped with the task that owns it, and killed with that where the group was not.
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn tell(mut stdin: ChildStdin, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = waiting.recv().await {
        if stdin.write_all(&frame).await.is_err() || stdin.flush().await.is_err() {
            // Its end is reported by who listens.
            return;
        }
    }
}

/// All that is heard of a worker, and who is told.
struct Voice {
    stdout: ChildStdout,
    stderr: ChildStderr,
    log: PathBuf,
    gpu: Arc<AtomicBool>,
    events: mpsc::Sender<WorkerEvent>,
}

impl Voice {
    async fn hear(self, mut child: Child, group: Arc<Group>) {
        let Voice { stdout, stderr, log, gpu, events } = self;
        let log = tokio::spawn(log::keep(stderr, log));
        let fault = pass_messages(stdout, &gpu, &events).await;
        if fault.is_some() {
            group.act(Act::Kill);
        }
        group.gone();
        let end = match tokio::time::timeout(ENDING_MAX, child.wait()).await {
            Ok(Ok(status)) => End::Status(status),
            Ok(Err(e)) => End::Unknown(e),
            Err(_) => {
                let _ = child.start_kill(); // it fails only if the process is gone, which is what is wanted
                End::PipeOnly
            }
        };
        let crash = match fault {
            Some(fault) => fault,
            None => Crash::Exited { end, last_words: log.await.unwrap_or_default() },
        };
        // Nobody listens any more only when the agent ends.
        let _ = events.send(WorkerEvent::Exited(crash)).await;
    }
}

/// Passes messages on until the pipe ends; says what was wrong if it did not end well.
async fn pass_messages(stdout: ChildStdout, gpu: &AtomicBool, events: &mpsc::Sender<WorkerEvent>) -> Option<Crash> {
    let mut stdout = BufReader::new(stdout);
    let (mut since, mut said) = (Instant::now(), 0);
    loop {
        // Who says more waits: its pipe fills up, and the agent has time for its owner.
        if said >= MESSAGES_A_SECOND_MAX {
            tokio::time::sleep_until(since + SECOND).await;
        }
        if since.elapsed() >= SECOND {
            (since, said) = (Instant::now(), 0);
        }
        said += 1;
        let mut prefix = [0; 4];
        if stdout.read_exact(&mut prefix).await.is_err() {
            return None;
        }
        let mut body = match frame::length(prefix, limits::WORKER_SAYS_BYTES_MAX) {
            Ok(length) => vec![0; length],
            Err(e) => return Some(e.into()),
        };
        if stdout.read_exact(&mut body).await.is_err() {
            return None;
        }
        match frame::decode::<FromWorker>(&body) {
            Ok(FromWorker { body: Some(body) }) => {
                if let from_worker::Body::Ready(ready) = &body {
                    gpu.store(ready.gpu, Ordering::Relaxed);
                }
                if events.send(WorkerEvent::Says(body)).await.is_err() {
                    return None;
                }
            }
            Ok(FromWorker { body: None }) => return Some(Crash::Empty),
            Err(e) => return Some(e.into()),
        }
    }
}

#[cfg(all(test, unix))]
mod tests;
