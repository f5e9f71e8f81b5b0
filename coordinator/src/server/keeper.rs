//! The rule `[keep]` in a run that is served: beside the event loop, a page at a time, whenever a keyframe was published
//! and every few minutes. Devices are led away from a version before it is given up, and the catalog forgets a blob before
//! it is removed.

use super::{catalog::Catalog, clock::wall_now, handle::ShellHandle};
use crate::store::{
    Blobs, Ledger,
    keeping::{
        chain,
        pass::{self, KeepError},
    },
};
use nightjar_shared::run_spec::KeepSpec;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

/// How often it looks, besides: leases may have ended, and days passed.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Between two pages: whoever serves devices comes first.
const PAUSE: Duration = Duration::from_millis(100);

/// What it takes.
pub struct Keeper {
    /// What there is, and what is given up.
    pub ledger: Arc<dyn Ledger>,
    /// What is removed.
    pub blobs: Blobs,
    /// Who sends blobs to devices.
    pub catalog: Arc<Catalog>,
    /// Who leads devices over versions.
    pub handle: ShellHandle,
    /// The rule: told by the event loop anew whenever something may be given up, and when it has changed.
    pub rule: watch::Receiver<KeepSpec>,
}

/// Looks again and again, until the ledger is closed.
pub async fn run(mut keeper: Keeper) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            told = keeper.rule.changed() => if told.is_err() {
                return;
            },
        }
        match keeper.pass().await {
            Ok(()) => {}
            Err(KeepError::Ledger(error)) if error.is_closed() => return,
            Err(error) => tracing::warn!(%error, "old blobs stay for now"),
        }
    }
}

impl Keeper {
    async fn pass(&self) -> Result<(), KeepError> {
        let (ledger, rule) = (&*self.ledger, self.rule.borrow().clone());
        let rule = &rule;
        chain::extend(ledger, &self.blobs).await?;
        let due = pass::due(ledger, &self.blobs, rule, wall_now()).await?;
        let kept = ledger.kept().await?;
        if due.first_version > kept.first_version && self.handle.versions_are_given_up(due.first_version).await.is_err()
        {
            // The event loop has ended, or waits for something itself: there is another time.
            return Ok(());
        }
        if due.is_more_than(&kept) {
            pass::give_up(ledger, &due).await?;
            tracing::info!("given up: versions before {}, deltas up to {}", due.first_version, due.after_seq);
        }
        pass::remove_checkpoints(&self.blobs, due.checkpoints).await?;
        while pass::remove_page(ledger, &self.blobs, rule, |blobs| self.catalog.forget(blobs)).await? {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}
