//! Folders as labs have them: what is the same model is read, and what is not is refused by name.

use super::*;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
};

/// A folder in the making: config.json and tensors, to be changed before it is written.
struct Making {
    config: Value,
    /// Type, shape and bytes by name.
    tensors: BTreeMap<String, (&'static str, Vec<usize>, Vec<u8>)>,
}

fn model() -> ModelSpec {
    ModelSpec {
        vocab_size: 24,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        tie_word_embeddings: false,
        ..ModelSpec::tiny()
    }
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl Making {
    fn new() -> Self {
        let weights = model().draw_all(3);
        let mut config = serde_json::to_value(model()).unwrap();
        config["model_type"] = json!("llama");
        let tensors = model().tensors();
        let parts = tensors.iter().map(|t| (t.name.clone(), ("F32", t.shape.clone(), f32s(&weights[t.range()]))));
        Making { config, tensors: parts.collect() }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.config.as_object_mut().unwrap().remove(key);
        self
    }

    fn tensor(mut self, name: &str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Self {
        self.tensors.insert(name.into(), (dtype, shape.to_vec(), bytes));
        self
    }

    fn file(&self, names: &[&String]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data = vec![];
        for name in names {
            let (dtype, shape, bytes) = &self.tensors[*name];
            let from = data.len();
            data.extend(bytes);
            header.insert((*name).clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [from, data.len()]}));
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
    }

    fn write(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        fs::write(folder.join("model.safetensors"), self.file(&self.tensors.keys().collect::<Vec<_>>())).unwrap();
    }

    /// In several files, with an index.
    fn write_sharded(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        let mut map = serde_json::Map::new();
        for (number, names) in self.tensors.keys().collect::<Vec<_>>().chunks(3).enumerate() {
            let file = format!("model-{number:05}.safetensors");
            fs::write(folder.join(&file), self.file(names)).unwrap();
            map.extend(names.iter().map(|name| ((*name).clone(), file.clone().into())));
        }
        fs::write(folder.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
    }

    fn open(&self) -> Result<Opened, ModelFolderError> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        Ok(Opened { model: ModelFolder::open(folder.path())?, _folder: folder })
    }

    fn refusal(&self) -> String {
        self.open().and_then(|folder| folder.weights()).map(|_| ()).unwrap_err().to_string()
    }
}

/// An open folder that is there as long as this is.
struct Opened {
    model: ModelFolder,
    _folder: tempfile::TempDir,
}

impl Deref for Opened {
    type Target = ModelFolder;

    fn deref(&self) -> &ModelFolder {
        &self.model
    }
}

impl DerefMut for Opened {
    fn deref_mut(&mut self) -> &mut ModelFolder {
        &mut self.model
    }
}

#[test]
fn one_file_and_several_are_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let weights = model().draw_all(3);
    Making::new().write(folder.path());
    let read = ModelFolder::open(folder.path()).unwrap();
    assert_eq!((read.spec(), read.weights().unwrap(), read.notes()), (&model(), weights.clone(), [].as_slice()));
    let several = tempfile::tempdir().unwrap();
    Making::new().write_sharded(several.path());
    assert_eq!(ModelFolder::open(several.path()).unwrap().weights().unwrap(), weights);
    // Each tensor by itself, too.
    let tensor = &model().tensors()[5];
    let mut values = vec![0.0; tensor.len()];
    read.read(tensor, &mut values).unwrap();
    assert_eq!(values, weights[tensor.range()]);
}

#[cfg(unix)]
#[test]
fn links_to_files_are_followed() {
    let (store, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Making::new().write_sharded(store.path());
    for entry in fs::read_dir(store.path()).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    assert_eq!(ModelFolder::open(folder.path()).unwrap().weights().unwrap(), model().draw_all(3));
    fs::remove_file(store.path().join("model-00001.safetensors")).unwrap();
    let refused = ModelFolder::open(folder.path()).err().unwrap().to_string();
    assert!(refused.contains("model-00001.safetensors: there is no such file"), "{refused}");
}

#[test]
fn narrow_weights_are_widened() {
    let mut making = Making::new();
    for (at, (dtype, _, bytes)) in making.tensors.values_mut().enumerate() {
        let values: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        // Halves of a few numbers, by hand; bf16 is the upper half.
        *bytes = match at % 2 {
            0 => values.iter().flat_map(|w| ((w.to_bits() >> 16) as u16).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|w| if *w < 0.0 { 0xB800u16 } else { 0x3C00 }.to_le_bytes()).collect(),
        };
        *dtype = if at % 2 == 0 { "BF16" } else { "F16" };
    }
    let read = making.open().unwrap().weights().unwrap();
    let names: Vec<&String> = making.tensors.keys().collect();
    let weights = model().draw_all(3);
    for t in model().tensors() {
        let is_half = names.iter().position(|name| **name == t.name).unwrap() % 2 == 1;
        for (got, was) in read[t.range()].iter().zip(&weights[t.range()]) {
            let want = match (is_half, *was < 0.0) {
                (false, _) => f32::from_bits(was.to_bits() & 0xFFFF_0000),
                (true, true) => -0.5,
                (true, false) => 1.0,
            };
            assert_eq!(*got, want, "{}", t.name);
        }
    }
    let other = Making::new().tensor("model.norm.weight", "F64", &[16], vec![0; 128]);
    assert!(
        other.refusal().contains("model.safetensors: model.norm.weight is of type F64; F32, F16 and BF16 can be read")
    );
}

#[test]
fn what_is_not_computed_is_refused_by_its_key() {
    for (key, value, allowed) in [
        ("model_type", json!("gpt2"), "model_type is \"gpt2\"; only \"llama\""),
        ("architectures", json!(["LlamaForSequenceClassification"]), "only [\"LlamaForCausalLM\"]"),
        ("hidden_act", json!("gelu"), "hidden_act is \"gelu\"; only \"silu\""),
        ("attention_bias", json!(true), "only false"),
        ("mlp_bias", json!(true), "only false"),
        ("attention_dropout", json!(0.1), "only 0 can"),
        ("pretraining_tp", json!(2), "only 1 can"),
        ("sliding_window", json!(4096), "only 0 can"),
        ("layer_types", json!(["full_attention", "sliding_attention"]), "layer_types is"),
        ("partial_rotary_factor", json!(0.5), "only 1 can"),
        ("quantization_config", json!({"quant_method": "gptq"}), "only null can"),
        ("final_logit_softcapping", json!(30.0), "only 0 can"),
        ("head_dim", json!(8), "head_dim is 8; only hidden_size / num_attention_heads = 4"),
        ("num_hidden_layers", json!(-1), "num_hidden_layers is -1; it must be a whole number"),
        ("hidden_size", json!("16"), "hidden_size is \"16\""),
        ("hidden_size", json!(18), "hidden_size must be a multiple of num_attention_heads; 18 is no multiple of 4"),
        ("rms_norm_eps", json!(0), "rms_norm_eps is 0; it must be a number above 0"),
        ("rope_theta", json!("10000"), "rope_theta is \"10000\""),
        ("tie_word_embeddings", json!("false"), "it must be true or false"),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0}), "rope_scaling.type is \"linear\""),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 1.0}), "rope_scaling.rope_type is \"llama3\""),
        ("rope_scaling", json!("linear"), "rope_scaling is \"linear\"; it must be an object"),
        ("rope_parameters", json!({"type": "linear", "rope_theta": 10000.0}), "rope_parameters.type is \"linear\""),
        (
            "rope_parameters",
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
            "partial_rotary_factor is 0.5",
        ),
        ("rope_parameters", json!({"full_attention": {"rope_type": "default"}}), "rope_parameters.full_attention is"),
        (
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 5e5}),
            "rope_theta is 10000, and rope_parameters.rope_theta is 500000",
        ),
    ] {
        let refused = Making::new().with(key, value.clone()).refusal();
        assert!(
            refused.contains("config.json: ") && refused.contains(key) && refused.contains(allowed),
            "{key} = {value}: {refused}"
        );
    }
    for text in ["", "[]", "{\"model_type\": ", "{}"] {
        let folder = tempfile::tempdir().unwrap();
        Making::new().write(folder.path());
        fs::write(folder.path().join("config.json"), text).unwrap();
        let refused = ModelFolder::open(folder.path()).err().unwrap().to_string();
        assert!(refused.contains("config.json: "), "{text:?}: {refused}");
    }
}

/// Qwen3-0.6B's, as it is published. Its weights are not read, since it is refused before.
#[test]
fn another_familys_config_is_understood_and_refused() {
    let published = json!({
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "max_position_embeddings": 40_960,
        "max_window_layers": 28,
        "model_type": "qwen3",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 1_000_000,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": 151_936
    });
    let config::Config { spec, notes } = config::described(published.to_string().as_bytes()).unwrap();
    assert_eq!((spec.parameters(), spec.head_dim, notes), (596_049_920, Some(128), vec![]));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), published.to_string()).unwrap();
    let refused = ModelFolder::open(folder.path()).err().unwrap().to_string();
    assert!(refused.ends_with("config.json: model_type is \"qwen3\"; only \"llama\" can be trained"), "{refused}");
}

#[test]
fn what_says_the_same_is_the_same() {
    for making in [
        Making::new().with("rope_parameters", json!({"rope_type": "default", "rope_theta": 10_000})),
        Making::new().without("rope_theta").with("rope_parameters", json!({"rope_theta": 10_000.0})),
        Making::new().without("rope_theta"),
        Making::new().with("rope_scaling", Value::Null).with("rope_parameters", Value::Null),
        Making::new().with("rope_scaling", json!({"type": "default", "factor": 1.0})),
        Making::new().with("head_dim", json!(4)).with("attention_dropout", json!(0)).with("pretraining_tp", json!(1)),
        Making::new()
            .with("sliding_window", Value::Null)
            .with("layer_types", json!(["full_attention", "full_attention"])),
        Making::new().with("hidden_act", json!("swish")).with("architectures", json!(["LlamaForCausalLM"])),
    ] {
        let folder = making.open().unwrap();
        assert_eq!((folder.spec(), folder.notes()), (&model(), [].as_slice()), "{}", making.config);
    }
    let other = Making::new().without("rope_theta").with("rope_parameters", json!({"rope_theta": 5e5}));
    assert_eq!(other.open().unwrap().spec().rope_theta, 5e5);
    assert_eq!(Making::new().without("rms_norm_eps").open().unwrap().spec().rms_norm_eps, 1e-6);
}

#[test]
fn what_is_absent_is_what_llama_takes_it_for_and_said() {
    let folder = Making::new().without("max_position_embeddings").open().unwrap();
    assert_eq!(folder.spec().max_position_embeddings, 2048);
    assert_eq!(folder.notes(), ["config.json leaves out what LlamaConfig takes for max_position_embeddings = 2048"]);
    let folder = Making::new().with("mystery_factor", json!(3)).open().unwrap();
    assert_eq!(folder.notes(), ["config.json has keys that are not used: mystery_factor"]);
    assert!(
        Making::new()
            .without("hidden_size")
            .refusal()
            .contains("has the shape [24, 16]; config.json makes it [24, 4096]")
    );
}

#[test]
fn tensors_that_are_not_used_are_named() {
    let more = |name: &str| Making::new().tensor(name, "F32", &[2], vec![0; 8]);
    let notes = |making: Making| making.open().unwrap().notes().to_vec();
    assert_eq!(
        notes(more("vision.projector")),
        ["the model has no place for these tensors, which are unused: vision.projector"]
    );
    assert_eq!(notes(more("model.layers.0.self_attn.rotary_emb.inv_freq")), [""; 0]);
    let fewer = Making::new().with("num_hidden_layers", json!(1));
    assert_eq!(notes(fewer), ["the tensors of layer 1 are unused: config.json has num_hidden_layers = 1"]);
    for name in [
        "model.layers.1.self_attn.q_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "lm_head.bias",
        "model.norm.bias",
    ] {
        let refused = more(name).refusal();
        assert!(
            refused.contains(&format!("model.safetensors: {name} is a tensor that this version does not compute")),
            "{refused}"
        );
    }
}

#[test]
fn a_head_beside_a_tied_flag_is_compared() {
    let embedding = Making::new().tensors["model.embed_tokens.weight"].2.clone();
    let tied = || Making::new().with("tie_word_embeddings", json!(true));
    // The same twice is what some programs write.
    let same = tied().tensor("lm_head.weight", "F32", &[24, 16], embedding).open().unwrap();
    assert_eq!((same.spec().tie_word_embeddings, same.notes()), (true, [].as_slice()));
    let mut other = tied().open().unwrap();
    assert!(!other.spec().tie_word_embeddings);
    assert_eq!(other.weights().unwrap(), model().draw_all(3));
    assert!(
        other.notes()[0].starts_with("tie_word_embeddings is true, but lm_head.weight differs"),
        "{:?}",
        other.notes()
    );
    other.tie_head();
    assert!(other.notes().len() == 1 && other.notes()[0].contains("is not used"), "{:?}", other.notes());
    let spec = ModelSpec { tie_word_embeddings: true, ..model() };
    assert_eq!(other.weights().unwrap(), model().draw_all(3)[..spec.parameters()]);
    // Without such a choice the head stays what it is.
    let mut untied = Making::new().open().unwrap();
    untied.tie_head();
    assert!(!untied.spec().tie_word_embeddings);
    let mut headless = Making::new();
    headless.tensors.remove("lm_head.weight");
    assert!(
        headless.refusal().contains("there is no tensor lm_head.weight; where the head is the embedding"),
        "{}",
        headless.refusal()
    );
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut making = Making::new();
        let (_, _, bytes) = making.tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap();
        bytes[40..44].copy_from_slice(&bad.to_le_bytes());
        let refused = making.refusal();
        assert!(refused.contains("model.layers.1.mlp.up_proj.weight holds a value that is not finite"), "{refused}");
    }
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    Making::new().write(folder.path());
    let good = fs::read(&file).unwrap();
    let refusal = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let refused = ModelFolder::open(folder.path()).err().unwrap().to_string();
        assert!(refused.contains("model.safetensors: "), "{refused}");
        refused
    };
    assert!(refusal(&good[..good.len() - 8]).contains("it is damaged"));
    assert!(refusal(&[&good[..], &[0; 8]].concat()).contains("it is damaged"));
    assert!(refusal(&good[..100]).contains("header"));
    assert!(refusal(b"").contains("too short"));
    assert!(refusal(&[255; 20]).contains("no safetensors file"));
    assert!(refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 99\n").contains("git lfs pull"));
    fs::remove_file(&file).unwrap();
    let refused = ModelFolder::open(folder.path()).err().unwrap().to_string();
    assert!(refused.contains("save_pretrained"), "{refused}");
}

#[test]
fn an_index_names_plain_files_and_each_tensor_once() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    Making::new().write_sharded(folder.path());
    let good = fs::read_to_string(&index).unwrap();
    let refusal = |text: &str| {
        fs::write(&index, text).unwrap();
        ModelFolder::open(folder.path()).err().unwrap().to_string()
    };
    for name in ["../model-00001.safetensors", "/etc/passwd", "", "..", "a\\\\b"] {
        let refused = refusal(&good.replace("model-00001.safetensors", name));
        assert!(refused.contains("index.json: ") && refused.contains("no plain file name"), "{name}: {refused}");
    }
    assert!(
        refusal(&good.replace("model-00001.safetensors", "model-00009.safetensors"))
            .contains("model-00009.safetensors: there is no such")
    );
    assert!(refusal("{}").contains("there is no weight_map"));
    assert!(refusal("[").contains("it is no JSON"));
    fs::copy(folder.path().join("model-00000.safetensors"), folder.path().join("twice.safetensors")).unwrap();
    assert!(refusal(&good.replacen("model-00000.safetensors", "twice.safetensors", 1)).contains("too"));
    let bare = refusal(r#"{"weight_map": {}}"#);
    assert!(bare.contains("index.json: there is no tensor model.embed_tokens.weight"), "{bare}");
}

/// The cases that failed once, each with its right value; they lie beside the repository.
#[test]
fn the_cases_that_failed_once() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    if !cases.is_dir() {
        eprintln!("skipped: {} is not there", cases.display());
        return;
    }
    let mut models: Vec<PathBuf> = fs::read_dir(&cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("m-")));
    let mut seen = 0;
    for case in models {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let read =
            ModelFolder::open(&case.join("in")).and_then(|folder| folder.weights().map(|weights| (folder, weights)));
        let (right, notes, refused): (_, &[&str], _) = match name.as_str() {
            "m-sharded" | "m-longctx" => (true, &[], ""),
            "m-no-maxpos" => (true, &["max_position_embeddings = 2048"], ""),
            "m-fewer-layers" => (true, &["layer 1 are unused"], ""),
            "m-tied-flag-other-head" => (true, &["tie_word_embeddings is true, but lm_head.weight differs"], ""),
            "m-nan" => (false, &[], "not finite"),
            "m-rope-params-type-legacy" => (false, &[], "rope_parameters.type is \"linear\""),
            "m-theta-conflict" => (false, &[], "rope_theta is 500000, and rope_parameters.rope_theta is 10000"),
            _ => panic!("{name} has no right value here"),
        };
        match read {
            Ok((folder, weights)) => {
                assert!(right, "{name} was not refused");
                assert_eq!(weights.len(), folder.spec().parameters(), "{name}");
                assert_eq!(folder.notes().len(), notes.len(), "{name}: {:?}", folder.notes());
                notes
                    .iter()
                    .zip(folder.notes())
                    .for_each(|(words, note)| assert!(note.contains(words), "{name}: {note}"));
            }
            Err(error) => assert!(!right && error.to_string().contains(refused), "{name}: {error}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn small_faults_of_files_are_told_or_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let why = || ModelFolder::open(folder.path()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(why().ends_with("config.json: there is no such file"), "{}", why());
    Making::new().tensor("model.norm.weight", "Q4", &[16], vec![0; 8]).write(folder.path());
    assert!(why().ends_with("model.norm.weight is of type Q4; F32, F16 and BF16 can be read"), "{}", why());
    Making::new().write(folder.path());
    let config = fs::read(folder.path().join("config.json")).unwrap();
    fs::write(folder.path().join("config.json"), [b"\xEF\xBB\xBF", &config[..]].concat()).unwrap();
    assert_eq!(why(), "");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let index = json!({"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}});
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(why().ends_with("model-00001-of-00001.safetensors: there is no such file"), "{}", why());
}
