//! What is known of a run's model without its run file: the data has a vocabulary and a context, a start has a whole
//! shape. A run file need not repeat it.

use nightjar_shared::{model_spec::ModelSpec, run_spec::keys::Section, shard::Manifest};
use serde_json::{Map, Value};
use toml::de::DeTable;

/// Its section.
const MODEL: &str = "model";

/// See the module: values by the keys of `[model]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known(Map<String, Value>);

impl Known {
    /// All of a model.
    pub fn of_model(model: &ModelSpec) -> Self {
        // It is plain data, and an object.
        match serde_json::to_value(model) {
            Ok(Value::Object(values)) => Known(values),
            _ => Known::default(),
        }
    }

    /// What a dataset asks of its model.
    pub fn of_data(manifest: &Manifest) -> Self {
        let values = [("vocab_size", manifest.vocab_size), ("max_position_embeddings", manifest.context)];
        Known(values.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }

    /// A model that a run on this data starts from. The run trains the data's contexts, where the model takes them.
    pub fn of_start(model: &ModelSpec, manifest: &Manifest) -> Self {
        let context = manifest.context.min(model.max_position_embeddings);
        Known::of_model(&ModelSpec { max_position_embeddings: context, ..model.clone() })
    }

    /// What of a section is known.
    pub(super) fn of(&self, section: &Section) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().filter(move |_| section.name == MODEL)
    }

    /// Gives a run without the section a model: the default one, with what is known of it.
    pub(super) fn add_model(&self, run: &mut Value) {
        let Value::Object(run) = run else { return };
        if !self.0.is_empty() && !run.contains_key(MODEL) {
            let Known(mut model) = Known::of_model(&ModelSpec::tiny());
            model.extend(self.0.clone());
            run.insert(MODEL.to_owned(), model.into());
        }
    }

    /// Whether a run file leaves open what a model is. Of one that cannot be read, whoever reads it tells more.
    pub fn is_wanted_by(bytes: &[u8]) -> bool {
        let Ok(Ok(document)) = std::str::from_utf8(bytes).map(DeTable::parse) else { return false };
        let model = document.get_ref().get(MODEL).and_then(|value| value.get_ref().as_table());
        let needed = Section::find(MODEL).into_iter().flat_map(Section::needed);
        model.is_none_or(|model| needed.into_iter().any(|name| !model.contains_key(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_file::parse_knowing;
    use serde_json::json;

    const TOP: &str = "name = \"x\"\ntoken_budget = 10\n";

    fn manifest(vocabulary: u32, context: u32) -> Manifest {
        let shard = json!({"hash": "0".repeat(64), "bytes": 9, "samples": 3, "text_bytes": 12});
        let manifest = json!({"format": 1, "context": context, "vocab_size": vocabulary, "tokenizer": null,
            "train": [shard], "heldout": [shard]});
        serde_json::from_value(manifest).unwrap()
    }

    fn model(text: &str, known: &Known) -> Result<ModelSpec, String> {
        parse_knowing(text.as_bytes(), known).map(|file| file.spec.model).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_file_without_a_model_takes_what_is_known() {
        let tiny = ModelSpec { vocab_size: 500, max_position_embeddings: 32, ..ModelSpec::tiny() };
        assert_eq!(model(TOP, &Known::of_data(&manifest(500, 32))), Ok(tiny));
        let start = ModelSpec { max_position_embeddings: 2048, ..ModelSpec::small() };
        let shorter = ModelSpec { max_position_embeddings: 32, ..ModelSpec::small() };
        assert_eq!(model(TOP, &Known::of_start(&start, &manifest(256, 32))), Ok(shorter.clone()));
        assert_eq!(model(TOP, &Known::default()), Ok(ModelSpec::tiny()));
        // With the section, what stands there counts, and what is missing is known.
        let text = format!("{TOP}[model]\nrms_norm_eps = 1e-6\n");
        let known = Known::of_start(&start, &manifest(256, 32));
        assert_eq!(model(&text, &known), Ok(ModelSpec { rms_norm_eps: 1e-6, ..shorter }));
        // The data alone does not say how wide a model is.
        let why = model(&text, &Known::of_data(&manifest(500, 32))).unwrap_err();
        assert!(why.starts_with("3:1: model.hidden_size is missing, ") && !why.contains("vocab_size too"), "{why}");
    }

    #[test]
    fn what_is_wrong_is_told_although_it_is_known() {
        let text = format!("{TOP}[model]\nvocab_size = \"many\"\n");
        let why = model(&text, &Known::of_model(&ModelSpec::tiny())).unwrap_err();
        assert!(why.starts_with("4:14: model.vocab_size is \"many\""), "{why}");
    }

    #[test]
    fn only_a_file_that_leaves_the_model_open_wants_to_know() {
        assert!(Known::is_wanted_by(TOP.as_bytes()));
        assert!(Known::is_wanted_by(format!("{TOP}[model]\nvocab_size = 3\n").as_bytes()));
        let whole = toml::to_string(&nightjar_shared::run_spec::RunSpec::new("x", 1)).unwrap();
        assert!(!Known::is_wanted_by(whole.as_bytes()) && !Known::is_wanted_by(b"name = "));
    }
}
