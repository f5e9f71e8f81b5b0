//! `run.toml` and `--init`: read for `serve`, and refused with the place and what is allowed there.

use super::Failure;
use nightjar_coordinator::{
    export::Companions,
    run_file::{self, Known, RunFile, RunFileError},
    server,
};
use nightjar_shared::{model_folder::ModelFolder, model_spec::ModelSpec, version::Weights};
use std::{collections::BTreeSet, fs, io, io::Read, path::Path};

/// Longest run file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads and checks a run spec. What it leaves out of the model is taken from what is known.
pub fn read(path: &Path, known: &Known) -> Result<RunFile, Failure> {
    run_file::parse_knowing(&bytes_of(path)?, known).map_err(|error| Failure::input(at(path, &error)))
}

/// Whether a run file leaves open what the model is; of one that cannot be read, whoever reads it tells more.
pub fn wants_to_know(path: &Path) -> bool {
    bytes_of(path).is_ok_and(|bytes| Known::is_wanted_by(&bytes))
}

/// The same, with all that is wrong with it, in the order of the file.
pub fn read_whole(path: &Path, known: &Known) -> Result<RunFile, Vec<String>> {
    let bytes = bytes_of(path).map_err(|failure| vec![failure.why()])?;
    run_file::parse_whole(&bytes, known).map_err(|(first, others)| {
        let mut all: Vec<RunFileError> = std::iter::once(first).chain(others).collect();
        all.sort_by_key(|fault| fault.place.unwrap_or((usize::MAX, 0)));
        all.iter().map(|fault| at(path, fault)).collect()
    })
}

/// What is wrong, with its file before it.
pub fn at(path: &Path, error: &RunFileError) -> String {
    match error.place {
        Some((line, column)) => format!("{}:{line}:{column}: {}", path.display(), error.why),
        None => format!("{}: {}", path.display(), error.why),
    }
}

pub fn bytes_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = path.display();
    if path.is_dir() {
        return Err(Failure::input(format!("the run file {file} is a folder; name the file in it")));
    }
    let mut bytes = vec![];
    let opened = fs::File::open(path).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::input(format!(
            "there is no run file {file}; write one: two lines are enough, `nightjar-coordinator serve --help` shows \
            them, and `nightjar-coordinator keys` explains what else may stand there"
        )),
        _ => Failure::input(format!("the run file {file} cannot be read: {error}")),
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::input(format!("the run file {file} is larger than a mebibyte; name the run.toml")));
    }
    Ok(bytes)
}

/// The model that a run is to start from, and what is to be said about it.
pub struct Start {
    /// The model.
    pub model: server::Start,
    /// What of the folder is not used, or used otherwise than it says.
    pub notes: Vec<String>,
}

/// Reads the weights that a run is to start from; they must be of the run's model.
pub fn read_start(folder: &Path, model: &ModelSpec) -> Result<Start, Failure> {
    let mut found = ModelFolder::open(folder).map_err(Failure::input)?;
    if model.tie_word_embeddings && !found.spec().tie_word_embeddings {
        // Where config.json ties them and there is another head all the same, the run decides.
        found.tie_head();
    }
    let mut notes = found.notes().to_vec();
    if let Some(difference) = difference(found.spec(), model) {
        let folder = folder.display();
        return Err(Failure::input(format!(
            "the model in {folder} is not the one in run.toml: {difference}; change [model]"
        )));
    }
    let (longest, context) = (found.spec().max_position_embeddings, model.max_position_embeddings);
    if longest > context {
        notes.push(format!(
            "the model was made for contexts of up to {longest} tokens; this run trains contexts of {context}"
        ));
    }
    let weights = found.weights().map_err(Failure::input)?;
    Weights::check_start(model, &weights)
        .map_err(|error| Failure::input(format!("no run can start from the model in {}: {error}", folder.display())))?;
    let companions = Companions::read(folder).map_err(Failure::input)?;
    Ok(Start { model: server::Start { weights, companions }, notes })
}

/// The first key in which two models differ, in words. A run may train shorter contexts than a model was made for.
fn difference(found: &ModelSpec, wanted: &ModelSpec) -> Option<String> {
    if found.model_type != wanted.model_type {
        let [there, here] = [found, wanted].map(|model| model.model_type.name());
        return Some(format!("model_type is {there:?} there and {here:?} here"));
    }
    let context = found.max_position_embeddings.min(wanted.max_position_embeddings);
    let shortened = ModelSpec { max_position_embeddings: context, ..found.clone() };
    let (found, wanted) =
        (serde_json::to_value(shortened.canonical()).ok()?, serde_json::to_value(wanted.canonical()).ok()?);
    let keys: BTreeSet<&String> = found.as_object()?.keys().chain(wanted.as_object()?.keys()).collect();
    keys.into_iter().find_map(|key| {
        let (there, here) = (&found[key], &wanted[key]);
        (there != here).then(|| format!("{key} is {there} there and {here} here"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::model_spec::Family;

    fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, text).unwrap();
        match read(&path, &Known::default()) {
            Err(Failure::Input(why)) => why,
            _ => panic!("{text:?} was not refused as input"),
        }
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let why = refusal("name = \"x\"\ntoken_budget = 10\ntokens = 3\n");
        assert!(why.contains("run.toml:3:1: tokens is no key of a run file"), "{why}");
        let why = refusal("name = \"x\"\ntoken_budget = \"many\"\n");
        assert!(why.contains("run.toml:2:16: token_budget is \"many\"; a whole number is needed"), "{why}");
        let why = refusal("name = \"x\"\ntoken_budget = 10\n[merge]\nmomentum = 2\n");
        assert!(why.contains("run.toml:4:12: merge.momentum is 2; allowed is 0 to"), "{why}");
        assert!(refusal("name = \" \"\ntoken_budget = 10\n").contains("name is empty"));
        assert_eq!(why.lines().count(), 1);
    }

    #[test]
    fn a_folder_is_no_run_file() {
        let folder = tempfile::tempdir().unwrap();
        let Err(Failure::Input(why)) = read(folder.path(), &Known::default()) else { panic!("a folder was read") };
        assert!(why.contains("is a folder"), "{why}");
    }

    #[test]
    fn two_models_differ_by_a_key() {
        assert_eq!(difference(&ModelSpec::tiny(), &ModelSpec::tiny()), None);
        let words = difference(&ModelSpec::small(), &ModelSpec::tiny()).unwrap();
        assert_eq!(words, "hidden_size is 256 there and 128 here");
        let spelled_out = ModelSpec { head_dim: Some(32), ..ModelSpec::tiny() };
        assert_eq!(difference(&ModelSpec::tiny(), &spelled_out), None);
        let words = difference(&ModelSpec::tiny(), &ModelSpec { model_type: Family::Qwen3, ..ModelSpec::tiny() });
        assert_eq!(words.unwrap(), "model_type is \"llama\" there and \"qwen3\" here");
    }

    #[test]
    fn a_run_may_train_shorter_contexts_than_its_start() {
        let long = ModelSpec { max_position_embeddings: 8192, ..ModelSpec::tiny() };
        assert_eq!(difference(&long, &ModelSpec::tiny()), None);
        assert_eq!(
            difference(&ModelSpec::tiny(), &long).unwrap(),
            "max_position_embeddings is 128 there and 8192 here"
        );
    }

    /// The cases that failed once, as starts of a run; they lie beside the repository.
    #[test]
    fn the_cases_that_failed_once() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
        if !cases.is_dir() {
            eprintln!("skipped: {} is not there", cases.display());
            return;
        }
        let run = ModelSpec {
            vocab_size: 512,
            hidden_size: 64,
            intermediate_size: 176,
            num_hidden_layers: 2,
            num_key_value_heads: 2,
            max_position_embeddings: 64,
            tie_word_embeddings: false,
            ..ModelSpec::tiny()
        };
        let tied = ModelSpec { tie_word_embeddings: true, ..run.clone() };
        let fewer = ModelSpec { num_hidden_layers: 1, ..run.clone() };
        for (case, model, right) in [
            ("m-sharded", &run, Ok("")),
            ("m-longctx", &run, Ok("contexts of up to 8192 tokens; this run trains contexts of 64")),
            ("m-no-maxpos", &run, Ok("max_position_embeddings = 2048")),
            ("m-fewer-layers", &fewer, Ok("layer 1 are unused")),
            ("m-fewer-layers", &run, Err("num_hidden_layers is 1 there and 2 here")),
            ("m-tied-flag-other-head", &run, Ok("lm_head.weight differs from")),
            (
                "m-tied-flag-other-head",
                &tied,
                Ok("so lm_head.weight, which differs from model.embed_tokens.weight, is not used"),
            ),
            ("m-nan", &run, Err("not finite")),
            ("m-rope-params-type-legacy", &run, Err("rope_parameters.type is \"linear\"")),
            ("m-theta-conflict", &run, Err("rope_parameters.rope_theta is 10000")),
        ] {
            match (read_start(&cases.join(case).join("in"), model), right) {
                (Ok(start), Ok(words)) => {
                    assert_eq!(start.model.weights.len(), model.parameters(), "{case}");
                    assert!(start.notes.join("; ").contains(words), "{case}: {:?}", start.notes);
                }
                (Err(Failure::Input(why)), Err(words)) => assert!(why.contains(words), "{case}: {why}"),
                (Ok(start), Err(_)) => panic!("{case} was not refused: {:?}", start.notes),
                (Err(_), Ok(_)) => panic!("{case} was refused"),
                (Err(_), Err(_)) => panic!("{case} was refused as what failed on the way"),
            }
        }
    }
}
