//! Whether leases can be granted, and if not why, without asking the event loop: it may be the one that waits.
//! Time is an argument.

use super::{
    disk_reserve::DiskReserve,
    trouble::{Troubles, Who},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The event loop turns every second, or says what it waits for. After so long without either, something is wrong with
/// it.
const TURN_MAX: Duration = Duration::from_secs(30);

/// How far a coordinator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Its run has no version yet.
    Starting,
    /// Leases are granted.
    Serving,
    /// It was asked to end: what is on its way is finished.
    Draining,
}

/// See the module.
pub struct Health {
    stage: AtomicU8,
    /// Milliseconds after `origin`.
    turned: AtomicU64,
    origin: Instant,
    reserve: Arc<DiskReserve>,
    troubles: Arc<Troubles>,
}

impl Health {
    /// Of a coordinator that starts.
    pub fn new(reserve: Arc<DiskReserve>, troubles: Arc<Troubles>, now: Instant) -> Self {
        let (stage, turned) = (AtomicU8::new(Stage::Starting as u8), AtomicU64::new(0));
        Health { stage, turned, origin: now, reserve, troubles }
    }

    /// It has come so far, and never goes back.
    pub fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
    }

    /// Whether it has come so far.
    pub fn has_reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Relaxed) >= stage as u8
    }

    /// The event loop is about to look what is to be done.
    pub fn turned(&self, now: Instant) {
        self.turned.store(now.saturating_duration_since(self.origin).as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the event loop does what it should: it turns, or says what it waits for.
    pub fn is_turning(&self, now: Instant) -> bool {
        self.still(now).is_none() || self.troubles.all().is_some()
    }

    /// How long the event loop has stood still, where that is too long.
    fn still(&self, now: Instant) -> Option<Duration> {
        let turned = self.origin + Duration::from_millis(self.turned.load(Ordering::Relaxed));
        let still = now.saturating_duration_since(turned);
        (still > TURN_MAX).then_some(still)
    }

    /// What holds the coordinator up, as one sentence, whether or not leases are granted all the same.
    pub fn trouble(&self) -> Option<String> {
        self.troubles.sentence(self.reserve.is_full())
    }

    /// Whether somebody waits for something.
    pub fn has_trouble(&self, who: Who) -> bool {
        self.troubles.has(who)
    }

    /// Why no lease can be granted now, as one sentence; `None` where leases can be granted.
    pub fn not_ready(&self, now: Instant) -> Option<String> {
        if self.has_reached(Stage::Draining) {
            return Some(
                "the coordinator is stopping: it finishes what is on its way, and grants no new leases".into(),
            );
        }
        // Lost shards alone hold nothing up: there are others.
        let waits = [Who::Ledger, Who::Publisher, Who::Store].into_iter().any(|who| self.has_trouble(who));
        let holds_up = self.reserve.is_full() || waits;
        if holds_up {
            return self.trouble();
        }
        if !self.has_reached(Stage::Serving) {
            return Some("the run has no first version yet: it is being made".into());
        }
        self.still(now).map(|still| format!("the event loop has not turned for {} seconds", still.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::disk_reserve::FolderSpace;
    use nightjar_shared::{disk::FolderDisk, run_spec::RunSpec};

    #[test]
    fn it_is_ready_where_leases_can_be_granted_and_says_why_where_not() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FolderDisk::open(root.path()).unwrap());
        let spec: RunSpec = serde_json::from_str(r#"{"name": "x", "token_budget": 1000}"#).unwrap();
        let reserve = Arc::new(DiskReserve::open(disk.clone(), Box::new(FolderSpace(disk)), &spec));
        let (troubles, start) = (Arc::new(Troubles::default()), Instant::now());
        let health = Health::new(reserve.clone(), troubles.clone(), start);
        let says = |now, words: &str| {
            let said = health.not_ready(now).unwrap();
            assert!(said.contains(words), "{said}");
        };
        says(start, "no first version");
        health.enter(Stage::Serving);
        assert_eq!(health.not_ready(start), None);
        troubles.set(Who::Data, Some("a shard is gone".into()));
        assert_eq!((health.not_ready(start), health.trouble()), (None, Some("a shard is gone".into())));
        troubles.set(Who::Ledger, Some("the database does not answer".into()));
        says(start, "the database does not answer; a shard is gone");
        // Whoever says what it waits for does not hang.
        let later = start + 10 * TURN_MAX;
        assert!(health.is_turning(later));
        troubles.set(Who::Ledger, None);
        troubles.set(Who::Data, None);
        says(later, "has not turned for 300 seconds");
        assert!(!health.is_turning(later));
        health.turned(later);
        assert!(health.is_turning(later) && health.not_ready(later).is_none());
        reserve.fill();
        says(later, "the disk is full");
        health.enter(Stage::Draining);
        health.enter(Stage::Serving);
        says(later, "is stopping");
    }
}
