//! A run's ledger, opened to be looked at: while it is served, or after.

use super::{Failure, blobs::BlobsFlag, ledger::LedgerFlag};
use clap::Args;
use nightjar_coordinator::{
    dataset::Dataset,
    replay::Check,
    server::{
        disk_reserve::{self, DiskStatus},
        run_identity,
        state::StateFolder,
    },
    store::{Blobs, Ledger, LedgerError, OpenLedger, Weight, keeping::pass, look::Depth},
};
use nightjar_shared::run_spec::RunSpec;
use std::{path::PathBuf, sync::Arc};

/// Where a run is.
#[derive(Args)]
pub struct RunFolders {
    /// The run's state folder, as given to `serve`
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The dataset that it trains on, as given to `serve`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    ledger: LedgerFlag,
    #[command(flatten)]
    blobs: BlobsFlag,
}

/// A run, read.
pub struct Opened {
    /// What it is.
    pub spec: RunSpec,
    /// Its state folder.
    pub state: StateFolder,
    /// What it trains on.
    pub dataset: Dataset,
    /// Everything that happened.
    pub ledger: Arc<dyn Ledger>,
    /// Deltas and versions.
    pub blobs: Blobs,
    /// What is kept of them.
    pub kept: Weight,
    /// Room on the disk of the state folder.
    pub disk: DiskStatus,
}

impl RunFolders {
    /// Of a run whose state folder says where all else is.
    pub fn of(state: PathBuf, data: PathBuf) -> Self {
        RunFolders { state, data, ledger: LedgerFlag::default(), blobs: BlobsFlag::default() }
    }

    /// Has the ledger checked, thoroughly; an error where there is none.
    pub async fn check_ledger(&self) -> Result<Check, Failure> {
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        let place = state.ledger(self.ledger.database()?.as_ref()).map_err(Failure::input)?;
        let (passed, detail) = match place.check(Depth::Full).await {
            Ok(detail) => (true, detail),
            Err(error @ (LedgerError::Broken(_) | LedgerError::Damaged(_))) => (false, error.to_string()),
            Err(error) => return Err(Failure::input(error)),
        };
        Ok(Check { name: "the ledger is whole", passed, detail })
    }

    /// Opens the ledger to read.
    pub async fn open(&self) -> Result<Opened, Failure> {
        let dataset = Dataset::open(&self.data).map_err(Failure::input)?;
        let state = StateFolder::open(&self.state).map_err(Failure::input)?;
        let place = state.ledger(self.ledger.database()?.as_ref()).map_err(Failure::input)?;
        let bucket = state.bucket(self.blobs.bucket()?.as_ref()).map_err(Failure::input)?;
        let blobs = state.blobs_to_read(bucket.as_ref()).map_err(Failure::input)?;
        let OpenLedger { ledger, identity, .. } = place.open_to_read().await.map_err(Failure::input)?;
        let spec: RunSpec = serde_json::from_str(&identity.spec_json)
            .map_err(|_| Failure::input(LedgerError::Damaged("its run spec cannot be read")))?;
        if run_identity(&spec, dataset.manifest()).manifest_hash != identity.manifest_hash {
            return Err(Failure::input(LedgerError::OtherData));
        }
        let kept = pass::weight_kept(&*ledger).await.map_err(Failure::midway)?;
        let disk = disk_reserve::now(&self.state, &spec);
        Ok(Opened { spec, state, dataset, ledger, blobs, kept, disk })
    }
}
