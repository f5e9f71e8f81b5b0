//! How far something is that carries rows or blobs, for the person who waits for it.

use crate::{dataset::progress, store::carry::Progress};
use std::{pin::pin, sync::atomic::Ordering, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Does it, and shows meanwhile how far it is.
pub async fn shown<T>(bar: progress::Progress, progress: &Progress, work: impl Future<Output = T>) -> T {
    let mut due = interval(LOOK_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = due.tick() => {
                // Each is counted twice: as it is copied, and as it is compared.
                bar.set_length(progress.all.load(Ordering::Relaxed) / 2);
                bar.set_position(progress.done.load(Ordering::Relaxed) / 2);
            }
        }
    }
}
