//! The long parts of a start, with how far they are and how long they will take: adding up a ledger of an earlier version,
//! drawing a run's first weights, and coming back to the ledger's tip.

use super::trouble::Say;
use crate::store::{Blobs, Ledger, LedgerError, Lineage, Shards};
use nightjar_shared::{ids::Version, model_spec::ModelSpec};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval_at};

/// How often the person at the terminal hears of it.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// How far something is.
#[derive(Clone, Default)]
pub struct Progress {
    done: Arc<AtomicU64>,
}

impl Progress {
    /// So much of it is done.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// How much of it is done.
    pub fn get(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

/// A model's initial weights as one flat vector: those of [`ModelSpec::draw_all`].
pub fn draw(model: &ModelSpec, seed: u64, progress: &Progress) -> Vec<f32> {
    let mut flat = Vec::with_capacity(model.parameters());
    for tensor in model.tensors() {
        flat.extend(model.draw(&tensor, seed));
        progress.set(flat.len() as u64);
    }
    flat
}

/// Makes sure of the sums that a start goes by. After an upgrade, or where they are damaged, all deltas are added up.
pub async fn add_up(ledger: &dyn Ledger, shards: &Shards, say: &Say) -> Result<(), LedgerError> {
    const ALL: u64 = 10_000;
    let share = Progress::default();
    let told = |done: u64, all: u64| share.set((u128::from(done) * u128::from(ALL) / u128::from(all.max(1))) as u64);
    tokio::select! {
        // Without room for sums a start takes longer, and comes to the same.
        done = ledger.catch_up(shards, &told) => match done {
            Err(error @ LedgerError::DiskFull) => {
                tracing::warn!("{error}; the next start will add up more");
                Ok(())
            }
            done => done,
        },
        never = tell("adding up the ledger", ALL, || share.get(), say) => match never {},
    }
}

/// Deltas that are to be merged again to come back to the ledger's tip, if the newest checkpoint is sound.
pub fn deltas_to_replay(lineage: &Lineage, blobs: &Blobs) -> u64 {
    let newest = blobs.checkpoints().ok().and_then(|checkpoints| checkpoints.first().copied());
    let version = newest.and_then(|newest| lineage.place(Version(newest)));
    let through_seq = version.map_or(0, |at| lineage.versions[at].through_seq);
    lineage.after(through_seq).unwrap_or(&lineage.deltas).len() as u64
}

/// Says how far something is, until what is awaited beside it is done. Nothing is said of what takes a moment.
pub async fn tell(what: &str, all: u64, done: impl Fn() -> u64, say: &Say) -> Infallible {
    let begun = Instant::now();
    let mut due = interval_at(tokio::time::Instant::now() + SAY_EVERY, SAY_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        say(&line(what, all, done(), begun.elapsed()));
    }
}

fn line(what: &str, all: u64, done: u64, elapsed: Duration) -> String {
    let share = done.min(all) as f64 / all.max(1) as f64;
    let left = if share > 0.0 { left(elapsed.mul_f64((1.0 - share) / share)) } else { "just begun".into() };
    format!("starting  {what}: {:.0} %, {left}", 100.0 * share)
}

fn left(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..100 => format!("about {} s left", s + 1),
        s @ 100..6000 => format!("about {} min left", s.div_ceil(60)),
        s => format!("about {} h left", s.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_are_those_of_the_model() {
        let (model, progress) = (ModelSpec::tiny(), Progress::default());
        assert_eq!(draw(&model, 7, &progress), model.draw_all(7));
        assert_eq!(progress.get(), model.parameters() as u64);
    }

    #[test]
    fn the_time_left_follows_from_what_is_done() {
        assert_eq!(line("merging", 200, 50, Duration::from_secs(10)), "starting  merging: 25 %, about 31 s left");
        assert_eq!(line("merging", 200, 0, Duration::from_secs(10)), "starting  merging: 0 %, just begun");
        assert_eq!(left(Duration::from_secs(7200)), "about 2 h left");
        assert_eq!(line("merging", 0, 9, Duration::from_secs(1)), "starting  merging: 0 %, just begun");
    }
}
