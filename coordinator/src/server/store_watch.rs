//! Watches the object store that a run's blobs are in: people are told while it is away, no work is given out, and all
//! goes on once it is back.

use super::trouble::{Say, Troubles, Who};
use crate::store::{BlobError, Blobs, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, interval, sleep};

/// How often it is looked whether somebody could not use the store.
const LOOK: Duration = Duration::from_secs(1);
/// How often the store is asked, where nobody else does.
const ASK: Duration = Duration::from_secs(15);
/// How long a start waits for a store that is away.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// Watches for as long as the run is served; a folder needs no watching.
pub async fn run(blobs: Blobs, troubles: Arc<Troubles>) {
    if blobs.bucket().is_none() {
        return;
    }
    let (mut due, mut asked) = (interval(LOOK), Instant::now());
    loop {
        due.tick().await;
        if blobs.trouble().is_some() || asked.elapsed() >= ASK {
            // What it says is known as the blobs' trouble.
            let _ = probe(&blobs).await;
            asked = Instant::now();
        }
        troubles.set(Who::Store, blobs.trouble().map(|trouble| trouble.to_string()));
    }
}

/// Waits for the store at a start. One that refuses is an error at once.
pub async fn reached(blobs: &Blobs, say: &Say) -> Result<(), BlobError> {
    let (begun, mut is_told) = (Instant::now(), false);
    loop {
        match probe(blobs).await {
            Err(BlobError::Store(error @ StoreError::Away { .. })) if begun.elapsed() < AWAY_MAX => {
                if !std::mem::replace(&mut is_told, true) {
                    say(&format!("waiting   {error}"));
                }
                sleep(LOOK).await;
            }
            probed => return probed,
        }
    }
}

async fn probe(blobs: &Blobs) -> Result<(), BlobError> {
    let blobs = blobs.clone();
    // Should it panic, the next look tells.
    tokio::task::spawn_blocking(move || blobs.probe()).await.unwrap_or(Ok(()))
}
