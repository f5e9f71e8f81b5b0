//! How a run goes, written down for the tools that labs look at: TensorBoard's event files and CSV. Each file is its own
//! memory: after a start, what it has is not written again, and what it lacks is taken from the ledger. So a kill leaves
//! neither gaps nor doubles, and nothing waits for a disk that is slow.

mod csv;
mod points;
mod tensorboard;

pub use points::{Point, Points};

use crate::engine::record::Record;
use csv::Csv;
use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};
use tensorboard::TensorBoard;

/// Turns whose points may wait for the disk; more are left to the next start.
const WAITING_MAX: usize = 1024;

/// Where it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The folder for TensorBoard.
    pub tensorboard: Option<PathBuf>,
    /// The CSV file.
    pub csv: Option<PathBuf>,
}

/// A place that cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// By the file system.
    #[error("[track] {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is somebody's.
    #[error("[track] {path} is not what this coordinator writes there: move it away, or name another file")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl TrackError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> TrackError {
        let path = path.into();
        move |source| TrackError::Io { path, source }
    }
}

/// What a file has already: names of numbers, and the tokens that they are of.
type Seen = HashSet<(String, u64)>;

/// A file that points are added to.
trait Sink: Send {
    /// Adds them, and hands them to the system.
    fn add(&mut self, points: &[Point]) -> io::Result<()>;
    /// What it is, for messages.
    fn path(&self) -> PathBuf;
}

/// Writes down how a run goes, beside the event loop. Without any place it does nothing.
#[derive(Default)]
pub struct Tracker {
    points: Points,
    writer: Option<Writer>,
    is_late: bool,
}

/// A thread that writes, and the way to it.
struct Writer {
    queue: SyncSender<Vec<Point>>,
    thread: JoinHandle<()>,
}

impl Tracker {
    /// Opens the files, and adds what they lack. `run` names the run in file names.
    pub fn open(places: &Places, run: &str, mut points: Points) -> Result<Self, TrackError> {
        let mut sinks: Vec<Box<dyn Sink>> = vec![];
        let so_far = points.so_far();
        if let Some(folder) = &places.tensorboard {
            let (mut file, seen) = TensorBoard::open(folder, run, points.begun())?;
            catch_up(&mut file, &so_far, &seen)?;
            sinks.push(Box::new(file));
        }
        if let Some(path) = &places.csv {
            let (mut file, seen) = Csv::open(path)?;
            catch_up(&mut file, &so_far, &seen)?;
            sinks.push(Box::new(file));
        }
        if sinks.is_empty() {
            return Ok(Tracker { points, writer: None, is_late: false });
        }
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let named = thread::Builder::new().name("tracker".into());
        let thread = named.spawn(move || write_down(sinks, &waiting)).map_err(TrackError::io("a thread"))?;
        Ok(Tracker { points, writer: Some(Writer { queue, thread }), is_late: false })
    }

    /// Takes in what is now in the ledger.
    pub fn committed(&mut self, records: &[Record]) {
        let Some(Writer { queue, .. }) = &self.writer else { return };
        let points = self.points.take(records);
        if points.is_empty() {
            return;
        }
        let is_late = queue.try_send(points).is_err();
        if is_late && !self.is_late {
            tracing::warn!("[track] files are written too slowly: points are left out until the next start adds them");
        }
        self.is_late = is_late;
    }
}

impl Drop for Tracker {
    /// What was told is written before anybody else opens the files.
    fn drop(&mut self) {
        if let Some(Writer { queue, thread }) = self.writer.take() {
            drop(queue);
            // It has told what went wrong.
            let _ = thread.join();
        }
    }
}

fn catch_up(sink: &mut dyn Sink, points: &[Point], seen: &Seen) -> Result<(), TrackError> {
    let is_new = |point: &&Point| !seen.contains(&(point.name.to_owned(), point.tokens));
    let missing: Vec<Point> = points.iter().filter(is_new).cloned().collect();
    sink.add(&missing).map_err(TrackError::io(sink.path()))
}

/// Until whoever sends is gone.
fn write_down(mut sinks: Vec<Box<dyn Sink>>, waiting: &Receiver<Vec<Point>>) {
    for points in waiting {
        // What is broken stays as it is: the next start adds what it lacks.
        sinks.retain_mut(|sink| match sink.add(&points) {
            Ok(()) => true,
            Err(error) => {
                let path = sink.path();
                tracing::warn!(%error, "[track] {} is not written any more until the next start", path.display());
                false
            }
        });
    }
}

#[cfg(test)]
mod tests;
