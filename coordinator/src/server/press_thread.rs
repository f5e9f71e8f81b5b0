//! The press on its thread: orders in, in their order; versions out. It never waits for the event loop, so the loop may
//! wait for it.

use crate::{
    engine::event::{MergeOrder, Published},
    store::{Press, PressError},
};
use nightjar_shared::ids::Version;
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Orders that wait; more hold up the event loop.
const ORDERS_MAX: usize = 256;
/// One version is made at a time, and one failure ends the thread: neither ever waits for a place.
const RESULTS_MAX: usize = 2;

/// What the press is to do.
pub enum Order {
    /// Add a delta to the buffer.
    Merge(MergeOrder),
    /// Make a version of the buffer.
    Publish {
        /// Its number.
        version: Version,
        /// Whether as a keyframe too.
        keyframe: bool,
    },
}

type Outcome = Result<Published, PressError>;

/// Starts the thread; it ends when no more orders can come, or after a failure.
pub fn start(mut press: Press) -> (JoinHandle<()>, mpsc::Sender<Order>, mpsc::Receiver<Outcome>) {
    let (orders, mut queue) = mpsc::channel(ORDERS_MAX);
    let (outcomes, published) = mpsc::channel(RESULTS_MAX);
    let work = move || {
        // Once nobody waits for versions any more, what is left in the queue is left to the next start.
        while let Some(order) = queue.blocking_recv().filter(|_| !outcomes.is_closed()) {
            let outcome = match order {
                Order::Merge(order) => press.merge(&order).map(|()| None),
                Order::Publish { version, keyframe } => press.publish(version, keyframe).map(Some),
            };
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

/// Waits for the order at hand.
pub async fn join(thread: JoinHandle<()>) {
    // A panic has been printed by the thread itself.
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
}
