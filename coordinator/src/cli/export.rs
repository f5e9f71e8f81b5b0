//! `export`: a version's weights, put together from the ledger's blobs and written for other tools.

use super::{
    Failure,
    opened::{Opened, RunFolders},
    say,
};
use clap::Args;
use nightjar_coordinator::{
    export,
    replay::{self, ReplayError},
    store::Lineage,
};
use nightjar_shared::ids::Version;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Write a version as a folder that `transformers` loads
///
/// Writes config.json, model.safetensors, tokenizer.json and generation_config.json: a folder that
/// `transformers.AutoModelForCausalLM.from_pretrained` loads as it is, and that `serve --init` can start a run from. An
/// earlier export in that folder is replaced, if nobody has changed it or added to it; anything else is left alone.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator export model --state state --data data
  nightjar-coordinator export start --state state --data data --version 0
  nightjar sample model --prompt 'Once upon a time'")]
pub struct Export {
    /// The folder to write
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    folders: RunFolders,
    /// The version to write [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

impl Export {
    pub async fn run(self) -> Result<(), Failure> {
        let run = self.folders.open().await?;
        let version = write(&run, &self.folder, self.version).await?;
        let parameters = run.spec.model.parameters();
        say(&format!("version {version}, {parameters} parameters, written to {}", self.folder.display()));
        Ok(())
    }
}

/// Writes a version of a run, the newest unless it is named, and closes the run's ledger. Returns which it is.
pub async fn write(run: &Opened, folder: &Path, version: Option<u64>) -> Result<Version, Failure> {
    let lately =
        run.ledger.lineage(replay::since(&run.blobs).map_err(Failure::midway)?).await.map_err(Failure::midway)?;
    let newest = lately.versions.last().ok_or_else(|| Failure::input("the run has published no version yet"))?.version;
    let version = version.map_or(newest, Version);
    if version > newest {
        return Err(Failure::input(format!("there is no version {version}: the newest is {newest}")));
    }
    export::check(folder).map_err(Failure::input)?;
    let by_any_way = |lineage: &Lineage| replay::weights_by_any_way(&run.spec, lineage, &run.blobs, version);
    let found = match by_any_way(&lately) {
        Err(ReplayError::Older) => by_any_way(&run.ledger.lineage(Version(0)).await.map_err(Failure::midway)?),
        found => found,
    };
    run.ledger.close().await;
    let (weights, lost) = found.map_err(Failure::midway)?;
    for lost in lost {
        tracing::warn!("{lost}; another way led to version {version}");
    }
    let tokenizer = run.dataset.tokenizer_path().map(fs::read).transpose();
    let tokenizer =
        tokenizer.map_err(|error| Failure::midway(format!("the dataset's tokenizer cannot be read: {error}")))?;
    let end_of_text = run.dataset.manifest().end_of_text;
    let vocabulary = tokenizer.map(|json| export::Vocabulary { json, end_of_text });
    export::export(folder, &run.spec.model, &weights.flat(), vocabulary).map_err(Failure::midway)?;
    Ok(version)
}
