//! `export`: a version's weights, put together from the ledger's blobs and written for other tools.

use super::{
    Failure,
    opened::{Opened, RunFolders},
    say,
};
use clap::Args;
use nightjar_coordinator::export;
use nightjar_shared::{
    ids::Version,
    version::{Weights, keyframe, update},
};
use std::{fs, path::PathBuf};

/// Write a version as a folder that `transformers` loads
///
/// Writes config.json, model.safetensors, tokenizer.json and generation_config.json: a folder that
/// `transformers.AutoModelForCausalLM.from_pretrained` loads as it is, and that `serve --init` can start a run from. An
/// earlier export in that folder is replaced; anything else is left alone.
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
        let newest = run.facts.versions.last().ok_or_else(|| Failure::input("the run has published no version yet"))?.version;
        let version = self.version.map_or(newest, Version);
        if version > newest {
            return Err(Failure::input(format!("there is no version {version}: the newest is {newest}")));
        }
        let weights = weights_of(&run, version)?;
        let tokenizer = run.dataset.tokenizer_path().map(fs::read).transpose();
        let tokenizer = tokenizer.map_err(|error| Failure::midway(format!("the dataset's tokenizer cannot be read: {error}")))?;
        let model = &run.spec.model;
        export::export(&self.folder, model, &weights.flat(), tokenizer.as_deref()).map_err(Failure::midway)?;
        say(&format!("version {version}, {} parameters, written to {}", model.parameters(), self.folder.display()));
        Ok(())
    }
}

/// From the newest keyframe that is no newer, and the updates since.
fn weights_of(run: &Opened, version: Version) -> Result<Weights, Failure> {
    let (model, versions) = (&run.spec.model, &run.facts.versions);
    let upto = &versions[..versions.partition_point(|v| v.version <= version)];
    let at = upto.iter().rposition(|v| v.keyframe.is_some());
    let (at, (hash, _)) = at
        .and_then(|at| Some((at, upto[at].keyframe?)))
        .ok_or_else(|| Failure::midway("the ledger is damaged: there is no keyframe; restore it from a backup"))?;
    let mut weights = keyframe::decode(model, &run.blobs.read(hash).map_err(Failure::midway)?).map_err(Failure::midway)?;
    for (hash, _) in upto[at + 1..].iter().filter_map(|v| v.update) {
        let bytes = run.blobs.read(hash).map_err(Failure::midway)?;
        update::apply(model, &mut weights, &bytes).map_err(Failure::midway)?;
    }
    if weights.digest() == upto[upto.len() - 1].digest {
        Ok(weights)
    } else {
        Err(Failure::midway(format!("version {version} does not come out as it was published; run `verify`")))
    }
}
