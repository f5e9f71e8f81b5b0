//! The publisher on its thread: orders in, in their order; versions out. It never waits for the event loop, so the loop
//! may wait for it.

use super::{
    disk_reserve::DiskReserve,
    metrics::Metrics,
    traces::Traces,
    trouble::{Troubles, Who},
};
use crate::{
    engine::event::{MergeOrder, Published},
    store::{BlobError, PublishError, Publisher},
};
use nightjar_shared::{blob::BlobRef, ids::Version};
use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Orders that wait; more hold up the event loop.
const ORDERS_MAX: usize = 256;
/// One version is made at a time, and one failure ends the thread: neither ever waits for a place.
const RESULTS_MAX: usize = 2;

/// How long the publisher waits before it tries again what may pass, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// How often it looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(100);
/// A blob that is missing or reads as damaged is read again so many times: it may be the way from the disk that is.
const LOST_AGAIN_MAX: u32 = 4;

/// What the publisher is to do.
pub enum Order {
    /// Add a delta to the buffer.
    Merge(MergeOrder),
    /// Make a version.
    Publish {
        /// Its number.
        version: Version,
        /// Whether as a keyframe too.
        keyframe: bool,
        /// What to make it of, if not of the buffer.
        given: Option<BlobRef>,
    },
}

type Outcome = Result<Published, PublishError>;

/// Starts the thread; it ends when no more orders can come, or after a failure.
pub fn start(
    mut publisher: Publisher,
    troubles: Arc<Troubles>,
    reserve: Arc<DiskReserve>,
    metrics: Arc<Metrics>,
    traces: Traces,
) -> (JoinHandle<()>, mpsc::Sender<Order>, mpsc::Receiver<Outcome>) {
    let (orders, mut queue) = mpsc::channel(ORDERS_MAX);
    let (outcomes, published) = mpsc::channel(RESULTS_MAX);
    let work = move || {
        // Once nobody waits for versions any more, what is left in the queue is left to the next start.
        while let Some(order) = queue.blocking_recv().filter(|_| !outcomes.is_closed()) {
            let begun = Instant::now();
            let Some(outcome) = carry_out(&mut publisher, &order, &troubles, &reserve, || outcomes.is_closed()) else {
                return;
            };
            match order {
                Order::Merge(order) => {
                    metrics.merged(begun.elapsed());
                    traces.merged(order.seq, begun);
                }
                Order::Publish { .. } => {
                    metrics.published(begun.elapsed());
                    traces.publishes(begun);
                }
            }
            let failed = outcome.is_err();
            if let Some(outcome) = outcome.transpose()
                && (outcomes.blocking_send(outcome).is_err() || failed)
            {
                return;
            }
        }
    };
    (std::thread::spawn(work), orders, published)
}

/// Carries out an order, again and again where what is in the way may pass; `None` once nobody waits for it.
fn carry_out(
    publisher: &mut Publisher,
    order: &Order,
    troubles: &Troubles,
    reserve: &DiskReserve,
    is_over: impl Fn() -> bool,
) -> Option<Result<Option<Published>, PublishError>> {
    let (mut wait, mut lost) = (AGAIN[0], 0);
    loop {
        let outcome = match order {
            Order::Merge(order) => publisher.merge(order).map(|()| None),
            // What does not fit is not begun: its first part would take the room that deltas need.
            Order::Publish { keyframe, .. } if !reserve.fits(publisher.version_bytes(*keyframe)) => {
                Err(PublishError::Blob(BlobError::DiskFull))
            }
            Order::Publish { version, keyframe, given } => publisher.publish(*version, *keyframe, *given).map(Some),
        };
        let error = match outcome {
            Err(error) if error.may_pass() => error,
            // Where all are gone, it is the disk that is: whoever has taken it away may bring it back.
            Err(error) if error.is_loss() && (lost < LOST_AGAIN_MAX || !publisher.has_blobs()) => {
                lost += 1;
                error
            }
            outcome => {
                troubles.set(Who::Publisher, None);
                return Some(outcome);
            }
        };
        tracing::warn!(%error, "the publisher tries again");
        troubles.set(Who::Publisher, Some(format!("no version can be made: {error}")));
        let mut waited = Duration::ZERO;
        while waited < wait {
            if is_over() {
                return None;
            }
            std::thread::sleep(LOOK);
            waited += LOOK;
        }
        wait = (wait * 2).min(AGAIN[1]);
    }
}

/// Waits for the order at hand.
pub async fn join(thread: JoinHandle<()>) {
    // A panic has been printed by the thread itself.
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::merge::Merger,
        server::disk_reserve::{Bytes, FolderSpace, Space},
        store::Blobs,
    };
    use nightjar_shared::{disk::FolderDisk, model_spec::ModelSpec, run_spec::RunSpec};
    use std::{
        fs, io,
        sync::atomic::{AtomicU64, Ordering},
    };

    /// A disk with as many free bytes as the test says.
    struct Told(Arc<AtomicU64>);

    impl Space for Told {
        fn bytes(&self) -> io::Result<Bytes> {
            Ok(Bytes { free: self.0.load(Ordering::Relaxed), total: 1 << 30 })
        }
    }

    /// A publisher is to make version 0, and something is in its way: it waits, says so, and makes it once the way is
    /// free.
    fn waits_and_goes_on(disk: Arc<FolderDisk>, space: Box<dyn Space>, clear_the_way: impl FnOnce()) {
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap();
        spec.model = ModelSpec { hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, ..ModelSpec::tiny() };
        let publisher = Publisher::new(Merger::start(spec.clone(), &spec.model.draw_all(1)), Blobs::new(disk.clone()));
        let (troubles, reserve) = (Arc::new(Troubles::default()), Arc::new(DiskReserve::open(disk, space, &spec)));
        let (thread, orders, mut published) =
            start(publisher, troubles.clone(), reserve, Arc::default(), Traces::default());
        orders.blocking_send(Order::Publish { version: Version(0), keyframe: true, given: None }).unwrap();
        while troubles.of(Who::Publisher).is_none() && published.is_empty() && !published.is_closed() {
            std::thread::sleep(LOOK);
        }
        assert!(published.is_empty(), "it gave up: {:?}", published.try_recv());
        clear_the_way();
        assert_eq!(published.blocking_recv().unwrap().unwrap().version, Version(0));
        assert_eq!(troubles.of(Who::Publisher), None);
        drop(orders);
        thread.join().unwrap();
    }

    #[test]
    fn blobs_that_cannot_be_written_for_a_moment_end_nothing() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(root.path()).unwrap());
        let in_the_way = root.path().join("blobs");
        fs::write(&in_the_way, b"no folder").unwrap();
        waits_and_goes_on(disk.clone(), Box::new(FolderSpace(disk)), || fs::remove_file(in_the_way).unwrap());
    }

    #[test]
    fn a_version_that_would_not_fit_is_begun_once_there_is_room() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(root.path()).unwrap());
        let free = Arc::new(AtomicU64::new(1000));
        waits_and_goes_on(disk, Box::new(Told(free.clone())), || {
            let stored = fs::read_dir(root.path().join("blobs")).map_or(0, |entries| entries.count());
            assert_eq!(stored, 0, "its first part would take the room that deltas need");
            free.store(1 << 30, Ordering::Relaxed);
        });
    }
}
