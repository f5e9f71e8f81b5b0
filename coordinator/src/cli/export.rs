//! `export`: a version's weights, or an average of several, put together from the ledger's blobs and written for other
//! tools.

mod provenance;

use super::{
    Failure, dataset,
    opened::{Opened, RunFolders},
    say,
};
use clap::Args;
use nightjar_coordinator::{
    export::{self, Companions, Dtype, FILE_BYTES_MAX, Form, Format, Model, Weights},
    replay::{self, ReplayError, Shares},
    store::Lineage,
};
use nightjar_shared::{ids::Version, version};
use provenance::Card;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Shortest file that weights are cut to.
const FILE_BYTES_MIN: u64 = 1 << 20;

/// Write a version as a folder that `transformers` loads
///
/// Writes config.json, safetensors, tokenizer.json and what goes with them: a folder that
/// `transformers.AutoModelForCausalLM.from_pretrained` loads as it is, and that `serve --init` can start a run from. A run
/// that started from such a folder gives its chat template and special tokens back. README.md is a card of the model, from
/// the ledger. An earlier export in the folder is
/// replaced, if nobody has changed it or added to it; anything else is left alone.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator export model --state state --data data
  nightjar-coordinator export model --state state --data data --average 8 --dtype bf16
  nightjar-coordinator export phone --state state --data data --format gguf --dtype f16
  nightjar-coordinator export start --state state --data data --version 0
  nightjar sample model --prompt 'Once upon a time'")]
pub struct Export {
    /// The folder to write
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    folders: RunFolders,
    #[command(flatten)]
    wanted: Wanted,
    /// For whom to write it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The numbers to write weights as
    #[arg(long, value_enum, default_value_t)]
    dtype: Dtype,
    /// Cut the weights to files of at most this size, as in 500M or 5G [default: 5G]
    #[arg(long, value_name = "BYTES", value_parser = dataset::bytes)]
    file_bytes: Option<u64>,
    /// Take chat template and special tokens from this folder, rather than from the one that the run started from
    #[arg(long, value_name = "DIR")]
    companions: Option<PathBuf>,
    #[command(flatten)]
    card: Card,
}

/// Which weights.
#[derive(Args, Default)]
pub struct Wanted {
    /// The version to write, or the last one of an average [default: the newest]
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
    /// Write the average of so many versions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "ema")]
    pub average: Option<u64>,
    /// Write an exponential average: each version counts so much of what the one after it does, as in 0.9
    #[arg(long, value_name = "DECAY", value_parser = decay)]
    pub ema: Option<f64>,
}

fn decay(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|decay| (0.0..1.0).contains(decay) && *decay > 0.0);
    number.ok_or_else(|| "a number between 0 and 1 is needed, as in 0.9".to_owned())
}

impl Export {
    pub async fn run(self) -> Result<(), Failure> {
        let file_bytes_max = self.file_bytes.unwrap_or(FILE_BYTES_MAX);
        let form = Form { format: self.format, dtype: self.dtype, file_bytes_max };
        if form.file_bytes_max < FILE_BYTES_MIN {
            return Err(Failure::input(format!("--file-bytes is at least {FILE_BYTES_MIN}")));
        }
        let run = self.folders.open().await?;
        let companions = match &self.companions {
            Some(folder) => Companions::read(folder),
            None => Companions::kept(run.state.folder()),
        };
        let companions = companions.map_err(Failure::input)?;
        let shares = write(&run, &self.folder, &self.wanted, companions, form, Some(&self.card)).await?;
        say(&format!(
            "{}, {} parameters, written to {}",
            words(&shares),
            run.spec.model.parameters(),
            self.folder.display()
        ));
        Ok(())
    }
}

/// Which versions they are, in words.
fn words(shares: &Shares) -> String {
    match (shares.first(), shares.last()) {
        (first, last) if first == last => format!("version {last}"),
        (first, last) => format!("the average of versions {first} to {last}"),
    }
}

/// Writes versions of a run, the newest unless others are wanted, and closes the run's ledger. Returns which they are.
pub async fn write(
    run: &Opened,
    folder: &Path,
    wanted: &Wanted,
    companions: Companions,
    form: Form,
    card: Option<&Card>,
) -> Result<Shares, Failure> {
    let lately =
        run.ledger.lineage(replay::since(&run.blobs).map_err(Failure::midway)?).await.map_err(Failure::midway)?;
    let shares = wanted.shares(&lately)?;
    export::check(folder).map_err(Failure::input)?;
    let found = match Found::of(run, &lately, &shares) {
        Err(ReplayError::Older) => {
            Found::of(run, &run.ledger.lineage(Version(0)).await.map_err(Failure::midway)?, &shares)
        }
        found => found,
    };
    let provenance = match (&found, card) {
        (Ok(_), Some(card)) => Some(card.provenance(run, &shares).await?),
        _ => None,
    };
    run.ledger.close().await;
    let (found, lost) = found.map_err(Failure::midway)?;
    for lost in lost {
        tracing::warn!("{lost}; another way led to {}", words(&shares));
    }
    let tokenizer = run.dataset.tokenizer_path().map(fs::read).transpose();
    let tokenizer =
        tokenizer.map_err(|error| Failure::midway(format!("the dataset's tokenizer cannot be read: {error}")))?;
    let end_of_text = run.dataset.manifest().end_of_text;
    let vocabulary = tokenizer.map(|json| export::Vocabulary { json, end_of_text });
    let (name, spec) = (&run.spec.name, &run.spec.model);
    let model = Model { name, spec, weights: found.weights(), vocabulary, companions, provenance };
    export::export(folder, model, form).map_err(Failure::midway)?;
    Ok(shares)
}

impl Wanted {
    fn shares(&self, lately: &Lineage) -> Result<Shares, Failure> {
        let newest = lately.versions.last().ok_or_else(|| Failure::input("the run has published no version yet"))?;
        let newest = newest.version;
        let last = self.version.map_or(newest, Version);
        if last > newest {
            return Err(Failure::input(format!("there is no version {last}: the newest is {newest}")));
        }
        let oldest = lately.kept.first_version.min(last);
        if let Some(count) = self.average {
            let kept = last.0 - oldest.0 + 1;
            if count > kept {
                return Err(Failure::input(format!(
                    "an average of {count} versions up to {last} needs more than are kept: the oldest is {oldest}; take \
                     --average {kept}, or less"
                )));
            }
        }
        Ok(match (self.average, self.ema) {
            (Some(count), _) => Shares::even(last, count),
            (None, Some(decay)) => Shares::exponential(last, decay, oldest),
            (None, None) => Shares::even(last, 1),
        })
    }
}

/// Weights as they were found.
enum Found {
    Version(version::Weights),
    Average(Vec<f32>),
}

impl Found {
    fn of(run: &Opened, lineage: &Lineage, shares: &Shares) -> Result<(Self, Vec<String>), ReplayError> {
        if shares.first() == shares.last() {
            let found = replay::weights_by_any_way(&run.spec, lineage, &run.blobs, shares.last());
            return found.map(|(weights, lost)| (Found::Version(weights), lost));
        }
        let found = replay::blend(&run.spec, lineage, &run.blobs, shares);
        found.map(|(average, lost)| (Found::Average(average), lost))
    }

    fn weights(&self) -> Weights<'_> {
        match self {
            Found::Version(weights) => Weights::Version(weights),
            Found::Average(average) => Weights::Flat(average),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_of_more_than_is_kept_is_refused_with_what_there_is() {
        let mut lately = Lineage::default();
        let version = |version| nightjar_coordinator::engine::record::VersionRecord {
            version: Version(version),
            update: None,
            keyframe: None,
            digest: [0; 32],
            through_seq: 0,
            published_at: nightjar_shared::time::Wall::default(),
            squashes: vec![],
            given: None,
        };
        lately.versions = (4..=9).map(version).collect();
        lately.kept.first_version = Version(4);
        let wanted = |average, version| Wanted { version, average: Some(average), ema: None };
        assert_eq!(wanted(6, None).shares(&lately).unwrap(), Shares::even(Version(9), 6));
        let Err(Failure::Input(why)) = wanted(7, None).shares(&lately) else { panic!("it was taken") };
        assert!(why.contains("the oldest is 4; take --average 6"), "{why}");
        assert!(wanted(4, Some(6)).shares(&lately).is_err() && wanted(3, Some(6)).shares(&lately).is_ok());
        let ema = Wanted { ema: Some(0.99), ..Wanted::default() };
        assert_eq!(ema.shares(&lately).unwrap().first(), Version(4));
        assert!(["0", "1", "nan", "x"].iter().all(|text| decay(text).is_err()) && decay("0.5") == Ok(0.5));
    }
}
