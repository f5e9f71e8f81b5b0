//! `run.toml`: read, and refused with the place and what is allowed there.

use super::Failure;
use nightjar_coordinator::export;
use nightjar_shared::{model_spec::ModelSpec, run_spec::RunSpec};
use std::{fs, io, path::Path};

/// Reads and checks a run spec.
pub fn read(path: &Path) -> Result<RunSpec, Failure> {
    let file = path.display();
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::input(format!(
            "there is no run file {file}; write one: two lines are enough, `nightjar-coordinator serve --help` shows them"
        )),
        _ => Failure::input(format!("the run file {file} cannot be read: {error}")),
    })?;
    let spec: RunSpec = toml::from_str(&text)
        .map_err(|error| Failure::input(format!("{file} is no run spec: {}", error.to_string().trim_end())))?;
    spec.validate().map_err(|error| Failure::input(format!("{file}: {error}")))?;
    if spec.name.trim().is_empty() {
        return Err(Failure::input(format!("{file}: name is empty; give the run a name that volunteers will see")));
    }
    Ok(spec)
}

/// Reads the weights that a run is to start from; they must be of the run's model.
pub fn read_start(folder: &Path, model: &ModelSpec) -> Result<Vec<f32>, Failure> {
    let (found, weights) = export::import(folder).map_err(Failure::input)?;
    if let Some(difference) = difference(&found, model) {
        let folder = folder.display();
        return Err(Failure::input(format!("the model in {folder} is not the one in run.toml: {difference}; change [model]")));
    }
    if weights.iter().any(|w| !w.is_finite()) {
        return Err(Failure::input(format!("the model in {} holds weights that are no finite numbers", folder.display())));
    }
    Ok(weights)
}

/// The first key in which two models differ, in words.
fn difference(found: &ModelSpec, wanted: &ModelSpec) -> Option<String> {
    let (found, wanted) = (serde_json::to_value(found).ok()?, serde_json::to_value(wanted).ok()?);
    let mut keys = found.as_object()?.iter();
    keys.find_map(|(key, there)| {
        let here = &wanted[key];
        (there != here).then(|| format!("{key} is {there} there and {here} here"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, text).unwrap();
        match read(&path) {
            Err(Failure::Input(why)) => why,
            _ => panic!("{text:?} was not refused as input"),
        }
    }

    #[test]
    fn a_mistake_is_shown_where_it_is() {
        let why = refusal("name = \"x\"\ntoken_budget = 10\ntokens = 3\n");
        assert!(
            why.contains("line 3, column 1") && why.contains("unknown field `tokens`") && why.contains("token_budget"),
            "{why}"
        );
        let why = refusal("name = \"x\"\ntoken_budget = \"many\"\n");
        assert!(why.contains("line 2") && why.contains("u64"), "{why}");
        let why = refusal("name = \"x\"\ntoken_budget = 10\n[merge]\nmomentum = 2\n");
        assert!(why.contains("merge.momentum is 2; allowed is 0 to"), "{why}");
        assert!(refusal("name = \" \"\ntoken_budget = 10\n").contains("name is empty"));
    }

    #[test]
    fn two_models_differ_by_a_key() {
        assert_eq!(difference(&ModelSpec::tiny(), &ModelSpec::tiny()), None);
        let words = difference(&ModelSpec::small(), &ModelSpec::tiny()).unwrap();
        assert_eq!(words, "hidden_size is 256 there and 128 here");
    }
}
