//! The layout that other tools read, and the way back.

use super::*;
use nightjar_shared::model_folder::ModelFolder;
use safetensors::SafeTensors;
use std::fs;
use tokenizers::Tokenizer;

/// As a run without a start has it, in the default form.
fn written(
    folder: &Path,
    spec: &ModelSpec,
    weights: &[f32],
    vocabulary: Option<Vocabulary>,
) -> Result<(), ExportError> {
    let companions = Companions::default();
    export(
        folder,
        Model { name: "owl", spec, weights: Weights::Flat(weights), vocabulary, companions, provenance: None },
        Form::default(),
    )
}

pub fn model() -> ModelSpec {
    ModelSpec {
        vocab_size: 256,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        ..ModelSpec::tiny()
    }
}

#[test]
fn safetensors_hold_hugging_faces_names_and_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let weights = model().draw_all(3);
    written(&target, &model(), &weights, None).unwrap();
    let bytes = fs::read(target.join("model.safetensors")).unwrap();
    let header_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(header_bytes.is_multiple_of(8), "the data is not aligned");
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shapes = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(tensors.len(), 1 + 2 * 9 + 1);
    assert_eq!(shapes("model.embed_tokens.weight"), [256, 16]);
    assert_eq!(shapes("model.layers.1.self_attn.q_proj.weight"), [16, 16]);
    assert_eq!(shapes("model.layers.1.self_attn.k_proj.weight"), [8, 16]);
    assert_eq!(shapes("model.layers.0.mlp.down_proj.weight"), [16, 24]);
    assert_eq!(shapes("model.norm.weight"), [16]);
    assert!(tensors.tensor("lm_head.weight").is_err(), "a tied head is not written");
    let embedding = tensors.tensor("model.embed_tokens.weight").unwrap();
    assert_eq!(
        (embedding.dtype(), &embedding.data()[4..8]),
        (safetensors::Dtype::F32, weights[1].to_le_bytes().as_slice())
    );
}

#[test]
fn what_is_exported_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    for tie_word_embeddings in [true, false] {
        let model = ModelSpec { tie_word_embeddings, rope_theta: 5e5, ..model() };
        let weights = model.draw_all(3);
        written(&target, &model, &weights, None).unwrap();
        let read = ModelFolder::open(&target).unwrap();
        assert_eq!((read.spec(), read.weights().unwrap(), read.notes()), (&model, weights, [].as_slice()));
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["model"], "something was left beside the export");
    let permissions = |name: &str| fs::metadata(target.join(name)).unwrap().permissions();
    assert_eq!(permissions("model.safetensors"), permissions("config.json"));
}

#[test]
fn the_byte_tokenizer_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    written(&target, &model(), &model().draw_all(3), None).unwrap();
    let tokenizer = Tokenizer::from_file(target.join("tokenizer.json")).unwrap();
    let text = "fn main() {\n\tprintln!(\"Grüße 🦀\");\r\n}\n";
    let ids = tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
}

#[test]
fn a_tokenizer_larger_than_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelSpec { vocab_size: 200, ..model() };
    let refused = written(&folder.path().join("model"), &model, &model.draw_all(3), None).unwrap_err();
    assert!(refused.to_string().contains("256 tokens, but the model's vocab_size is 200"), "{refused}");
}

/// All files below a folder, with their bytes; links as where they lead.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (vec![], vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (kind, path) = (entry.file_type().unwrap(), entry.path());
            if kind.is_dir() {
                folders.push(path.clone());
            }
            let bytes = match fs::read_link(&path) {
                Ok(to) => to.into_os_string().into_encoded_bytes(),
                Err(_) => fs::read(&path).unwrap_or_default(),
            };
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

/// A refusal that names what is in the way, and changes nothing in the whole place.
fn refused(place: &tempfile::TempDir, target: &Path, words: &[&str]) {
    let before = contents(place.path());
    for told in [check(target).unwrap_err(), written(target, &model(), &model().draw_all(3), None).unwrap_err()] {
        let told = told.to_string();
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
    assert!(contents(place.path()) == before, "something was touched");
}

fn exported(target: &Path) {
    written(target, &model(), &model().draw_all(3), None).unwrap();
}

#[test]
fn a_foreign_folder_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("theses");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("thesis.tex"), "dear").unwrap();
    refused(&place, &target, &["thesis.tex", "name another folder"]);
    refused(&place, &target.join("thesis.tex"), &["is no folder"]);
}

#[test]
fn a_model_that_we_did_not_make_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("model");
    exported(&target);
    // As an earlier version wrote it, or as it is downloaded.
    fs::remove_file(target.join(MARK_FILE)).unwrap();
    refused(&place, &target, &["not known as an export of ours", "name another folder"]);
    fs::write(target.join("notes.txt"), "dear").unwrap();
    refused(&place, &target, &["not known as an export of ours"]);
}

#[test]
fn what_was_added_to_an_export_or_changed_in_it_keeps_it() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("model");
    exported(&target);
    exported(&target);
    fs::create_dir(target.join("checkpoint-500")).unwrap();
    refused(&place, &target, &["checkpoint-500"]);
    fs::remove_dir(target.join("checkpoint-500")).unwrap();
    fs::write(target.join("model.safetensors"), "trained on for a month").unwrap();
    refused(&place, &target, &["model.safetensors", "was changed since"]);
    fs::remove_file(target.join("model.safetensors")).unwrap();
    exported(&target);
    assert_eq!(ModelFolder::open(&target).unwrap().weights().unwrap(), model().draw_all(3));
}

#[test]
fn folders_of_other_commands_are_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("data");
    fs::create_dir(&target).unwrap();
    nightjar_shared::mark::leave(&target, &nightjar_shared::mark::Mark::whole(nightjar_shared::mark::Kind::Dataset))
        .unwrap();
    refused(&place, &target, &["a prepared dataset"]);
}

#[test]
fn siblings_are_nobodys_business() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("model");
    for sibling in ["model.old", "model.new", ".model.nightjar-0123456789abcdef"] {
        fs::create_dir(place.path().join(sibling)).unwrap();
        fs::write(place.path().join(sibling).join("thesis.tex"), "dear").unwrap();
    }
    // It looks as if an export had left it, and bears no mark.
    let unmarked = place.path().join(".model.nightjar-fedcba9876543210/new");
    fs::create_dir_all(&unmarked).unwrap();
    fs::write(unmarked.join("model.safetensors"), "dear").unwrap();
    let before = contents(place.path());
    exported(&target);
    exported(&target);
    fs::remove_dir_all(&target).unwrap();
    assert!(contents(place.path()) == before);
}

#[test]
fn what_a_killed_export_left_goes_with_the_next_if_it_is_ours() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("model");
    exported(&target);
    let names = || {
        let mut names: Vec<String> =
            nightjar_shared::mark::entries(place.path()).unwrap().into_iter().map(|e| e.0).collect();
        names.retain(|name| name != "model");
        names
    };
    // Killed while it wrote, and killed right after the earlier export had stepped aside.
    let draft = Target::find(&target).unwrap().draft().unwrap();
    fs::write(draft.folder().join("config.json"), "{").unwrap();
    fs::rename(&target, draft.folder().with_file_name("old")).unwrap();
    let busy = names();
    exported(&target);
    assert_eq!(names(), busy, "an export that is being written is left alone");
    std::mem::forget(draft);
    let lock = place.path().join(&busy[0]).join("lock");
    let _ = fs::remove_file(&lock);
    fs::write(place.path().join(&busy[0]).join("old/thesis.tex"), "dear").unwrap();
    exported(&target);
    assert_eq!(names(), busy, "it holds what is not ours");
    fs::remove_file(place.path().join(&busy[0]).join("old/thesis.tex")).unwrap();
    exported(&target);
    assert!(names().is_empty(), "{:?}", names());
}

#[test]
fn a_failed_export_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("model");
    exported(&target);
    let before = contents(place.path());
    let (wide, weights) = (ModelSpec { vocab_size: 300, ..model() }, model().draw_all(3));
    assert!(written(&target, &wide, &weights, None).is_err());
    let draft = Target::find(&target).unwrap().draft().unwrap();
    fs::write(draft.folder().join("config.json"), "{").unwrap();
    drop(draft);
    assert!(contents(place.path()) == before);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    use std::os::unix::fs::symlink;
    let place = tempfile::tempdir().unwrap();
    let (real, link) = (place.path().join("real"), place.path().join("model"));
    exported(&real);
    symlink(&real, &link).unwrap();
    for given in [link.clone(), link.join("")] {
        exported(&given);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
    assert!(ModelFolder::open(&real).is_ok());
    fs::remove_file(real.join("config.json")).unwrap();
    symlink(real.join("model.safetensors"), real.join("config.json")).unwrap();
    refused(&place, &link, &["config.json"]);
    symlink(place.path().join("nowhere"), place.path().join("dead")).unwrap();
    refused(&place, &place.path().join("dead"), &["is a link to something that is not there"]);
}

#[test]
fn a_folder_that_one_stands_in_is_not_replaced() {
    let place = tempfile::tempdir().unwrap();
    for here in [".", "..", "/"] {
        refused(&place, Path::new(here), &["the folder that you are in"]);
    }
    let deep = place.path().join("a/b/model");
    exported(&deep.join(""));
    assert!(ModelFolder::open(&deep).is_ok());
    fs::create_dir(place.path().join("empty")).unwrap();
    exported(&place.path().join("./empty/"));
}

#[test]
fn the_datas_own_end_of_text_is_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let model = ModelSpec { vocab_size: 300, ..model() };
    let vocabulary = Vocabulary { json: byte_tokenizer().unwrap(), end_of_text: Some(7) };
    written(&target, &model, &model.draw_all(1), Some(vocabulary)).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&fs::read(target.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["eos_token_id"], 7);
}

#[test]
fn a_model_is_cut_to_files_and_comes_back_in_every_type() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let spec = ModelSpec { tie_word_embeddings: false, ..model() };
    let start = version::Weights::start(&spec, &spec.draw_all(5));
    // What a run starts from is bf16 already, and each type but f16 holds it to the bit.
    for (dtype, file_bytes_max) in [(Dtype::F32, 20_000), (Dtype::Bf16, 9000), (Dtype::F16, 1), (Dtype::Bf16, u64::MAX)]
    {
        let weights = Weights::Version(&start);
        let written = Model {
            name: "owl",
            spec: &spec,
            weights,
            vocabulary: None,
            companions: Companions::default(),
            provenance: None,
        };
        export(&target, written, Form { dtype, file_bytes_max, ..Form::default() }).unwrap();
        let files = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|name| name.contains("safetensors")).collect();
        files.sort();
        let read = ModelFolder::open(&target).unwrap();
        assert_eq!((read.spec(), read.notes()), (&spec, [].as_slice()));
        let far = read.weights().unwrap().iter().zip(start.flat()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        match dtype {
            Dtype::F32 | Dtype::Bf16 => assert_eq!(far, 0.0),
            Dtype::F16 => assert!(far < 1e-4, "{far}"),
        }
        let config: serde_json::Value = serde_json::from_slice(&fs::read(target.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["torch_dtype"], dtype.name());
        if file_bytes_max == u64::MAX {
            assert_eq!(files, ["model.safetensors"]);
            continue;
        }
        let index: serde_json::Value = serde_json::from_slice(&fs::read(target.join(tensors::INDEX)).unwrap()).unwrap();
        assert_eq!(index["metadata"]["total_size"], spec.parameters() * dtype.bytes());
        let named: std::collections::BTreeSet<_> =
            index["weight_map"].as_object().unwrap().values().map(|v| v.as_str()).collect();
        assert_eq!((named.len(), files.len()), (files.len() - 1, named.len() + 1));
        let largest = spec.tensors().iter().map(|tensor| tensor.len() * dtype.bytes()).max().unwrap() as u64;
        for file in files.iter().filter(|name| tensors::is_shard(name)) {
            let bytes = fs::read(target.join(file)).unwrap();
            let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(bytes.len() as u64 - header <= file_bytes_max.max(largest), "{file}");
        }
    }
}

#[test]
fn a_number_that_a_type_has_no_place_for_is_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let mut weights = model().draw_all(3);
    *weights.last_mut().unwrap() = 70_000.0;
    let model = model();
    let written = Model {
        name: "owl",
        spec: &model,
        weights: Weights::Flat(&weights),
        vocabulary: None,
        companions: Companions::default(),
        provenance: None,
    };
    let refused = export(&target, written, Form { dtype: Dtype::F16, ..Form::default() }).unwrap_err().to_string();
    assert!(refused.contains("model.norm.weight holds 7e4, and float16 has no place for it"), "{refused}");
    assert!(!target.exists());
}

/// A tokenizer as models come with: something is put in front of every text, and there are tokens with parts to play.
fn chatty_tokenizer() -> Vec<u8> {
    let mut json: serde_json::Value = serde_json::from_slice(&byte_tokenizer().unwrap()).unwrap();
    let names = ["<s>", "</s>", "<|im_end|>", "<pad>"];
    let special = |(id, content): (usize, &&str)| {
        serde_json::json!({"id": 256 + id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json["added_tokens"] = names.iter().enumerate().map(special).collect();
    let piece = |id: &str, sequence: bool| match sequence {
        true => serde_json::json!({"Sequence": {"id": id, "type_id": 0}}),
        false => serde_json::json!({"SpecialToken": {"id": id, "type_id": 0}}),
    };
    json["post_processor"] = serde_json::json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        {"type": "TemplateProcessing", "single": [piece("<s>", false), piece("A", true)],
         "pair": [piece("A", true), piece("B", true)],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}}]});
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn what_a_start_says_of_its_tokens_comes_back_and_nothing_is_put_before_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("model"));
    fs::create_dir(&source).unwrap();
    let write = |name: &str, json: &serde_json::Value| fs::write(source.join(name), json.to_string()).unwrap();
    write(
        "tokenizer_config.json",
        &serde_json::json!({"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>", "unk_token": "<none>",
            "add_bos_token": true, "tokenizer_class": "LlamaTokenizer", "chat_template": "{{ bos_token }}hello"}),
    );
    write(
        "generation_config.json",
        &serde_json::json!({"eos_token_id": [257, 258, 2], "temperature": 0.6, "transformers_version": "4"}),
    );
    let spec = ModelSpec { vocab_size: 260, ..model() };
    let weights = spec.draw_all(3);
    let vocabulary = Vocabulary { json: chatty_tokenizer(), end_of_text: Some(257) };
    let companions = Companions::read(&source).unwrap();
    let written = Model {
        name: "owl",
        spec: &spec,
        weights: Weights::Flat(&weights),
        vocabulary: Some(vocabulary),
        companions,
        provenance: None,
    };
    export(&target, written, Form::default()).unwrap();
    let read =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&fs::read(target.join(name)).unwrap()).unwrap() };
    let (config, tokens, generation) =
        (read("config.json"), read("tokenizer_config.json"), read("generation_config.json"));
    // Token 2 is a byte: a library's default, which no text may end at.
    assert_eq!((&config["bos_token_id"], &config["pad_token_id"]), (&256.into(), &259.into()));
    assert_eq!(config["eos_token_id"], serde_json::json!([257, 258]));
    assert_eq!((&generation["temperature"], &generation["eos_token_id"]), (&0.6.into(), &config["eos_token_id"]));
    assert_eq!(generation.get("transformers_version"), None);
    assert_eq!(
        (&tokens["chat_template"], &tokens["eos_token"]),
        (&"{{ bos_token }}hello".into(), &"<|im_end|>".into())
    );
    assert_eq!((&tokens["add_bos_token"], tokens.get("unk_token")), (&false.into(), None));
    let tokenizer = Tokenizer::from_file(target.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap().get_ids(), [97, 98]);
    // One that puts nothing there stays as it is.
    let plain = byte_tokenizer().unwrap();
    assert_eq!(config::plain_tokenizer(plain.clone()).unwrap(), plain);
}
