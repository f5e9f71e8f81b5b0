//! Folders as `transformers` has them: what was written comes back, and what does not fit is named.

use burn::tensor::Device;
use nightjar_shared::model_spec::ModelSpec;
use nightjar_train::*;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use std::{fs, path::Path};

fn spec() -> ModelSpec {
    ModelSpec {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_key_value_heads: 2,
        tie_word_embeddings: false,
        ..ModelSpec::tiny()
    }
}

fn config(spec: &ModelSpec) -> serde_json::Value {
    let mut config = serde_json::to_value(spec).unwrap();
    config["model_type"] = json!("llama");
    config["architectures"] = json!(["LlamaForCausalLM"]);
    config
}

/// Rounds as bf16 does: to the nearest, ties to even.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

fn write_folder(folder: &Path, spec: &ModelSpec, flat: &[f32], dtype: Dtype, skip: &str) {
    fs::write(folder.join("config.json"), config(spec).to_string()).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = spec
        .tensors()
        .into_iter()
        .filter(|t| t.name != skip)
        .map(|t| {
            let values = &flat[t.range()];
            let bytes = match dtype {
                Dtype::BF16 => values.iter().flat_map(|x| to_bf16(*x).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            };
            (t.name, t.shape, bytes)
        })
        .collect();
    let views =
        bytes.iter().map(|(name, shape, bytes)| (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_folder_comes_back_in_both_precisions() {
    let (spec, folder) = (spec(), tempfile::tempdir().unwrap());
    let flat = spec.draw_all(5);
    write_folder(folder.path(), &spec, &flat, Dtype::F32, "");
    let read = load_folder(folder.path()).unwrap();
    assert_eq!((&read.spec, &read.weights().unwrap()), (&spec, &flat));
    assert_eq!(read.model(&Device::flex()).unwrap().to_flat().unwrap(), flat, "a block at a time is the same model");
    write_folder(folder.path(), &spec, &flat, Dtype::BF16, "");
    let rounded: Vec<f32> = flat.iter().map(|x| f32::from_bits(u32::from(to_bf16(*x)) << 16)).collect();
    assert_eq!(load_folder(folder.path()).unwrap().weights().unwrap(), rounded);
}

#[test]
fn what_does_not_fit_is_named() {
    let (spec, folder) = (spec(), tempfile::tempdir().unwrap());
    let message = || load_folder(folder.path()).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message().contains("config.json"), "{}", message());
    let flat = spec.draw_all(5);
    write_folder(folder.path(), &spec, &flat, Dtype::F32, "model.layers.1.mlp.up_proj.weight");
    assert!(message().contains("there is no tensor model.layers.1.mlp.up_proj.weight"), "{}", message());
    write_folder(folder.path(), &spec, &flat, Dtype::F32, "");
    for (key, value, said) in [
        ("intermediate_size", json!(40), "model.layers.0.mlp.gate_proj.weight has the shape [48, 32]"),
        ("num_hidden_layers", json!(-1), "num_hidden_layers is -1"),
        ("model_type", json!("gpt2"), "model_type is \"gpt2\""),
        ("rope_scaling", json!({"factor": 2.0}), "rope_scaling"),
    ] {
        let mut changed = config(&spec);
        changed[key] = value;
        fs::write(folder.path().join("config.json"), changed.to_string()).unwrap();
        assert!(message().contains(said), "{key}: {}", message());
    }
    fs::write(folder.path().join("config.json"), config(&spec).to_string()).unwrap();
    fs::write(folder.path().join("model.safetensors"), b"nothing").unwrap();
    assert!(message().contains("it is too short for a safetensors file"), "{}", message());
}

/// The rules of reading are tested where the reader is, in nightjar-shared; this is that they hold here too.
#[test]
fn the_cases_that_failed_once() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    if !cases.is_dir() {
        eprintln!("skipped: {} is not there", cases.display());
        return;
    }
    for (case, refused, said) in [
        ("m-sharded", false, ""),
        ("m-longctx", false, ""),
        ("m-no-maxpos", false, "max_position_embeddings = 2048"),
        ("m-fewer-layers", false, "layer 1 are unused"),
        ("m-tied-flag-other-head", false, "lm_head.weight differs"),
        ("m-nan", true, "not finite"),
        ("m-rope-params-type-legacy", true, "rope_parameters.type"),
        ("m-theta-conflict", true, "rope_parameters.rope_theta is 10000"),
    ] {
        let read = load_folder(&cases.join(case).join("in"));
        match read.and_then(|folder| folder.model(&Device::flex()).map(|_| folder.notes().join("; "))) {
            Ok(notes) => assert!(!refused && notes.contains(said), "{case}: {notes}"),
            Err(error) => assert!(refused && error.to_string().contains(said), "{case}: {error}"),
        }
    }
}

#[test]
fn a_text_is_measured_to_its_last_byte() {
    let (spec, folder) = (spec(), tempfile::tempdir().unwrap());
    write_folder(folder.path(), &spec, &spec.draw_all(5), Dtype::F32, "");
    let read = load_folder(folder.path()).unwrap();
    let model = read.model(&Device::flex()).unwrap();
    for bytes in [2, 64, 65, 66, 200] {
        let text: Vec<u8> = (0..bytes).map(|i| (i * 7 % 256) as u8).collect();
        let loss = read.evaluate_text(&model, &text, 64).unwrap();
        assert_eq!((loss.tokens, loss.bytes), (bytes as u64 - 1, bytes as u64 - 1));
        // Weights this small predict nothing: about ln 256.
        assert!((loss.nats_per_byte() - 256f64.ln()).abs() < 0.1, "{}", loss.nats_per_byte());
    }
    assert!(read.evaluate_text(&model, b"x", 64).is_err());
    assert_eq!(read.vocabulary.decode(&read.vocabulary.encode("naïve").unwrap()).unwrap(), "naïve");
}
