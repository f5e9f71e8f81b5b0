//! Opening what a run has: its ledger, once it was looked at and nobody else holds it, and its bucket.

use super::{
    clock::wall_now,
    disk_reserve::DiskReserve,
    setup::ServeError,
    state::{Found, StateFolder},
    trouble::Say,
};
use crate::{
    engine::snapshot::Standing,
    identity::{self, Identity},
    store::{Blobs, LedgerError, LedgerPlace, OpenLedger, RunIdentity, look::Depth},
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, RunId},
    run_spec::RunSpec,
    shard::Manifest,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a start waits for a ledger that another program has locked, or for a database that is away.
pub const LOCKED_MAX: Duration = Duration::from_secs(60);
/// How often it tries.
pub const LOCKED_AGAIN: Duration = Duration::from_millis(250);

/// What operators ordered that is otherwise than the run file says, in words.
pub fn ordered(standing: &Standing, spec: &RunSpec) -> Vec<String> {
    let raised = standing.token_budget.filter(|raised| *raised > spec.token_budget);
    let raised = raised.map(|raised| {
        format!("token_budget is {raised}, as `run extend` raised it; run.toml says {}", spec.token_budget)
    });
    let paused = standing.paused_at.map(|_| "the run is paused: `run resume` gives out leases again".to_owned());
    raised.into_iter().chain(paused).collect()
}

/// What a ledger belongs to: the run's name is the hash of the spec that it begins with and of its data.
pub fn run_identity(spec: &RunSpec, manifest: &Manifest) -> RunIdentity {
    // Neither can fail: both are plain data.
    let spec_json = serde_json::to_string(spec).unwrap_or_default();
    let manifest_hash = BlobHash::of(serde_json::to_string(manifest).unwrap_or_default().as_bytes());
    let run_id = RunId(BlobHash::of(&[spec_json.as_bytes(), &manifest_hash.0].concat()).0);
    RunIdentity { run_id, spec_json, manifest_hash }
}

/// Marks the bucket, where there is one, as this run's.
pub async fn claim(blobs: &Blobs, run: RunId, key: DeviceId) -> Result<(), ServeError> {
    let blobs = blobs.clone();
    let claimed = tokio::task::spawn_blocking(move || blobs.bucket().map_or(Ok(()), |bucket| bucket.claim(run, key)));
    Ok(claimed.await??)
}

/// The ledger of a run that is about to be served.
pub struct LedgerOfRun<'a> {
    /// What else the run has.
    pub state: &'a StateFolder,
    /// Its blobs.
    pub blobs: &'a Blobs,
    /// Where the ledger is.
    pub place: &'a LedgerPlace,
    /// What it belongs to.
    pub run: &'a RunIdentity,
    /// Whether there is a run.
    pub found: Found,
    /// The coordinator's key.
    pub key: DeviceId,
}

impl LedgerOfRun<'_> {
    /// Opens it, waiting for a lock that another program holds, or for a database that is starting. A disk without room
    /// is made some: the reserve is for this.
    pub async fn open(&self, reserve: &DiskReserve, say: &Say) -> Result<OpenLedger, ServeError> {
        let (begun, mut is_told) = (Instant::now(), false);
        loop {
            let error = match self.look_and_open().await {
                Err(ServeError::Ledger(error)) if error.may_pass() => error,
                opened => return opened,
            };
            let waits_for = match &error {
                LedgerError::Locked => Some("the ledger is locked by another program; close it, or wait".to_owned()),
                LedgerError::Away { .. } => Some(error.to_string()),
                _ => None,
            };
            if !(waits_for.is_some() || reserve.give_up_for_start()) || begun.elapsed() > LOCKED_MAX {
                return Err(error.into());
            }
            if let Some(waits_for) = waits_for {
                if !std::mem::replace(&mut is_told, true) {
                    say(&format!("waiting   {waits_for}"));
                }
                sleep(LOCKED_AGAIN).await;
            }
        }
    }

    /// Nothing is written before the ledger that is there was looked at: whether it is whole, of this folder, and of
    /// this key.
    async fn look_and_open(&self) -> Result<OpenLedger, ServeError> {
        match self.found {
            Found::Run => {
                self.place.check(Depth::Quick).await?;
                let looked = self.place.look().await?;
                self.state.check_ledger(&looked, self.blobs)?;
                if let Some(known) = looked.key.map(DeviceId).filter(|known| *known != self.key) {
                    let pins = Identity::open(&*self.state.disk)?.pins();
                    let is_spare = pins.iter().any(|pin| identity::id_of(pin) == known);
                    let other = || LedgerError::OtherKey(known.short()).into();
                    return Err(if is_spare { ServeError::RotationCutShort } else { other() });
                }
            }
            Found::New => self.place.check_free(self.key).await?,
        }
        Ok(self.place.take_over(self.run, self.key, wall_now().unix_ms / 1000).await?)
    }
}
