//! The layout that other tools read, and the way back.

use super::*;
use nightjar_shared::model_folder::ModelFolder;
use safetensors::{Dtype, SafeTensors};
use tokenizers::Tokenizer;

fn model() -> ModelSpec {
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
    export(&target, &model(), &weights, None).unwrap();
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
    assert_eq!((embedding.dtype(), &embedding.data()[4..8]), (Dtype::F32, weights[1].to_le_bytes().as_slice()));
}

#[test]
fn what_is_exported_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    for tie_word_embeddings in [true, false] {
        let model = ModelSpec { tie_word_embeddings, rope_theta: 5e5, ..model() };
        let weights = model.draw_all(3);
        export(&target, &model, &weights, None).unwrap();
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
    export(&target, &model(), &model().draw_all(3), None).unwrap();
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
    let refused = export(&folder.path().join("model"), &model, &model.draw_all(3), None).unwrap_err();
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
    for told in [check(target).unwrap_err(), export(target, &model(), &model().draw_all(3), None).unwrap_err()] {
        let told = told.to_string();
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
    assert!(contents(place.path()) == before, "something was touched");
}

fn exported(target: &Path) {
    export(target, &model(), &model().draw_all(3), None).unwrap();
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
    assert!(export(&target, &wide, &weights, None).is_err());
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
    export(&target, &model, &model.draw_all(1), Some(vocabulary)).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&fs::read(target.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["eos_token_id"], 7);
}
