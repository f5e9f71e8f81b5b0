//! The worker as the agent sees it: something that takes framed messages, answers in kind, and can be frozen or ended
//! at any instant. Here it is a child process of the same binary; where a system has none, a thread can stand in.

#[cfg(target_os = "linux")]
mod cgroup;
mod crash;
pub mod crashes;
mod environment;
mod group;
mod log;
mod process;

pub use crash::{Crash, End};
pub use process::Processes;

use crate::policy::Limits;
use nightjar_shared::wire::worker::{from_worker, to_worker};
use std::io;
use tokio::sync::mpsc;

/// What a worker says or does.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A message.
    Says(from_worker::Body),
    /// It is gone, and nobody asked it to.
    Exited(Crash),
}

/// What a worker is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// What computes: `auto`, `flex`, `wgpu` or `wgpu:N`.
    pub device: String,
    /// GPUs that `auto` passes over, by the names that workers gave them (see [`crashes`]).
    pub avoid: Vec<String>,
    /// What it may take of the computer.
    pub limits: Limits,
    /// No file that it writes may be longer (Linux); `None`: nobody knows how long they have to be.
    pub file_bytes_max: Option<u64>,
}

/// Something that trains. Dropping it ends it at once, frozen or not, and all that it has taken is free again.
pub trait Worker: Send {
    /// Passes a message on; `false` if it takes none, being stuck or gone.
    fn send(&mut self, message: to_worker::Body) -> bool;
    /// Stops it where it stands, whatever it is doing: within moments none of its threads runs, until [`Worker::thaw`].
    /// Returns at once.
    fn freeze(&mut self);
    /// Lets a frozen one go on.
    fn thaw(&mut self);
    /// Gives it new limits while it works. `false` if only a new worker can keep them (its threads were counted at its
    /// start): end this one and start another, which goes on from the last checkpoint.
    fn allow(&mut self, limits: &Limits) -> bool;
    /// The number of its process, where it has one.
    fn pid(&self) -> Option<u32>;
}

/// Starts workers.
pub trait Launcher: Send {
    /// Starts one, which reports to `events`.
    fn start(&mut self, order: &Order, events: mpsc::Sender<WorkerEvent>) -> io::Result<Box<dyn Worker>>;
}
