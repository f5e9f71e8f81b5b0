//! Preparing small datasets as a whole: nothing lost, nothing torn, and the same bytes after any interruption.

use super::{
    Dataset, DatasetError, Note, Notes, PrepareOptions, Prepared, TokenizerChoice,
    prepare::{self, Limits, prepare_from},
    registry::RegistryLimits,
};
use nightjar_shared::fail;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Small sizes, so that little text has many pieces, checkpoints, shards, and buckets that are scattered twice.
fn small() -> Limits {
    Limits { piece_bytes: 100, checkpoint_bytes: 8 << 10, bucket_bytes_max: 4 << 10, fan_out: 3, shard_bytes: 1 << 10 }
}

fn options(input: &Path, out: &Path) -> PrepareOptions {
    let all = PrepareOptions::new(vec![input.to_owned()], out.to_owned());
    PrepareOptions { context: 16, heldout: 0.1, seed: 5, quiet: true, ..all }
}

fn prepare_within(options: &PrepareOptions, limits: &Limits) -> Result<Prepared, DatasetError> {
    prepare::prepare_within(options, limits, &mut Notes::default())
}

/// Text in which no two lines are the same.
fn lines(name: &str, n: usize) -> String {
    (0..n).map(|i| format!("{name} says line number {i} of {n}\n")).collect()
}

/// A folder with text, JSON lines and a subfolder.
fn mixed_input(folder: &Path) -> PathBuf {
    let input = folder.join("input");
    fs::create_dir_all(input.join("deeper")).unwrap();
    fs::write(input.join("a.txt"), lines("a", 300)).unwrap();
    fs::write(input.join("deeper/b.md"), lines("b", 100)).unwrap();
    fs::write(input.join("image.png"), b"\x89PNG\0\0").unwrap();
    let json = |i| serde_json::json!({"text": format!("json document number {}", i % 370), "id": i}).to_string() + "\n";
    fs::write(input.join("c.jsonl"), (0..400).map(json).collect::<String>()).unwrap();
    input
}

/// All samples of a dataset: to train on, and held out.
fn samples(out: &Path) -> [Vec<Vec<u32>>; 2] {
    let dataset = Dataset::open(out).unwrap();
    let manifest = dataset.manifest();
    let sample_tokens = manifest.context as usize + 1;
    let cut = |tokens: Vec<u32>| tokens.chunks(sample_tokens).map(<[u32]>::to_vec).collect::<Vec<_>>();
    [
        (0..manifest.train.len()).flat_map(|i| cut(dataset.read_shard(i).unwrap())).collect(),
        (0..manifest.heldout.len()).flat_map(|i| cut(dataset.read_heldout(i).unwrap())).collect(),
    ]
}

/// All files of a finished dataset, with their bytes.
fn files(out: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let mut found = HashMap::new();
    super::walk::plain_files(out, &mut |path, _| {
        found.insert(path.strip_prefix(out).unwrap().to_owned(), fs::read(path).unwrap());
    })
    .unwrap();
    found
}

/// The samples that documents should give, in order of their tokens.
fn expected_samples<'a>(documents: impl Iterator<Item = &'a String>, context: usize) -> Vec<Vec<u32>> {
    let stream: Vec<u32> = documents.flat_map(|d| d.bytes().chain([b'\n'])).map(u32::from).collect();
    let starts = (0..stream.len()).step_by(context);
    let mut samples: Vec<_> = starts.filter_map(|at| stream.get(at..=at + context)).map(<[u32]>::to_vec).collect();
    samples.sort();
    samples
}

/// Held out are whole documents, and each part's samples are its documents' tokens, each predicted once.
#[test]
fn documents_are_held_out_whole_and_no_token_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("a.jsonl"), folder.path().join("out"));
    // Every document has characters of its own, three bytes each.
    let document = |i: u32| (0..40).map(|k| char::from_u32(0x4E00 + i * 40 + k).unwrap()).collect::<String>();
    let documents: Vec<String> = (0..200).map(document).collect();
    fs::write(&input, documents.iter().map(|d| format!("{{\"text\": \"{d}\"}}\n")).collect::<String>()).unwrap();
    let prepared = prepare_within(&PrepareOptions { context: 50, ..options(&input, &out) }, &small()).unwrap();
    assert!(prepared.manifest.train.len() >= 8);

    let [mut train, mut heldout] = samples(&out);
    assert_eq!(prepared.manifest.train.iter().map(|s| s.text_bytes).sum::<u64>(), train.len() as u64 * 50);
    let text_of =
        |sample: &Vec<u32>| String::from_utf8_lossy(&sample.iter().map(|t| *t as u8).collect::<Vec<_>>()).into_owned();
    let heldout_text: String = heldout.iter().map(text_of).collect();
    let is_held_out = |document: &&String| document.chars().any(|c| heldout_text.contains(c));
    assert_eq!(documents.iter().filter(is_held_out).count(), 20);
    train.sort();
    heldout.sort();
    assert!(train == expected_samples(documents.iter().filter(|d| !is_held_out(d)), 50));
    assert!(heldout == expected_samples(documents.iter().filter(is_held_out), 50));
}

#[test]
fn a_single_file_is_held_out_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("a.txt"), folder.path().join("out"));
    fs::write(&input, lines("the author", 700)).unwrap();
    prepare_within(&options(&input, &out), &small()).unwrap();
    let [train, heldout] = samples(&out).map(|part| part.len() * 16);
    let bytes = lines("the author", 700).len();
    assert!(train + heldout <= bytes && train + heldout + 2 * 17 >= bytes);
    assert!((0.05..0.15).contains(&(heldout as f64 / bytes as f64)), "{heldout} of {bytes}");
}

#[test]
fn a_crate_is_held_out_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, file: &str, text: &str| {
        let folder = folder.path().join("cargo/registry/src/index").join(format!("{name}-1.0.0/src"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    };
    for i in 0..40u32 {
        let name = format!("crate{i}");
        // A first file that is no text must not make the crate's other files part of the crate before.
        write(&name, "a.rs", "\0");
        let own = char::from_u32(0x4E00 + i).unwrap();
        for file in ["b.rs", "c.rs"] {
            write(&name, file, &format!("{own}\n").repeat(600));
        }
    }
    let out = folder.path().join("out");
    let all = PrepareOptions { paths: vec![], cargo_registry: true, ..options(folder.path(), &out) };
    let limits = RegistryLimits { cargo_home: folder.path().join("cargo"), bytes_max: 1 << 20 };
    prepare_from(&all, &small(), Some(&limits), &mut Notes::default()).unwrap();
    let crates = samples(&out).map(|part| {
        let bytes = part.iter().map(|s| s.iter().map(|t| *t as u8).collect::<Vec<_>>());
        let text: String = bytes.map(|b| String::from_utf8_lossy(&b).into_owned()).collect();
        (0..40).filter(|i| text.contains(char::from_u32(0x4E00 + i).unwrap())).collect::<Vec<_>>()
    });
    assert_eq!(crates.each_ref().map(Vec::len), [36, 4], "{crates:?}");
}

#[test]
fn the_same_inputs_give_the_same_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let input = mixed_input(folder.path());
    let [one, two, other] = ["one", "two", "other"].map(|name| folder.path().join(name));
    let mut notes = Notes::default();
    let first = prepare::prepare_within(&options(&input, &one), &small(), &mut notes).unwrap();
    assert_eq!((notes.of(Note::NoText), first.already_done), (1, false));
    prepare_within(&options(&input, &two), &small()).unwrap();
    assert_eq!(files(&one), files(&two));
    prepare_within(&PrepareOptions { seed: 6, ..options(&input, &other) }, &small()).unwrap();
    assert_ne!(fs::read(one.join("manifest.json")).unwrap(), fs::read(other.join("manifest.json")).unwrap());
}

#[test]
fn when_done_it_says_so_and_other_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (mixed_input(folder.path()), folder.path().join("out"));
    let first = prepare_within(&options(&input, &out), &small()).unwrap();
    let again = prepare_within(&options(&input, &out), &small()).unwrap();
    assert!(again.already_done);
    assert_eq!(again.manifest, first.manifest);
    let changed = prepare_within(&PrepareOptions { context: 17, ..options(&input, &out) }, &small()).unwrap_err();
    assert!(matches!(changed, DatasetError::Changed { .. }), "{changed}");
    fs::write(input.join("a.txt"), "new").unwrap();
    assert!(matches!(prepare_within(&options(&input, &out), &small()), Err(DatasetError::Changed { .. })));
    assert!(matches!(prepare_within(&options(&input, folder.path()), &small()), Err(DatasetError::Foreign { .. })));
}

#[test]
fn a_folder_of_somebody_elses_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (mixed_input(folder.path()), folder.path().join("out"));
    let refused = |name: &str| {
        let before = files(&out);
        let told = prepare_within(&options(&input, &out), &small()).unwrap_err().to_string();
        assert!(told.contains(name) && told.contains("--out"), "{name}: {told}");
        assert!(files(&out) == before, "{name}");
    };
    // Names of ours, in a folder that is not.
    for name in ["prepare.json", "tokenizer.json", "work/train-1", "blobs/notes.txt", "notes.txt"] {
        fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
        fs::write(out.join(name), "dear").unwrap();
        refused(name.split('/').next().unwrap());
        fs::remove_dir_all(&out).unwrap();
    }
    // Other names, in one that is.
    prepare_within(&options(&input, &out), &small()).unwrap();
    for name in ["notes.txt", "blobs/notes.txt", "work/notes.txt"] {
        fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
        fs::write(out.join(name), "dear").unwrap();
        refused(name);
        fs::remove_file(out.join(name)).unwrap();
    }
    // A dataset of an earlier version has no mark.
    fs::remove_file(out.join(nightjar_shared::mark::MARK_FILE)).unwrap();
    assert!(prepare_within(&options(&input, &out), &small()).unwrap().already_done);
    nightjar_shared::mark::leave(&out, &nightjar_shared::mark::Mark::whole(nightjar_shared::mark::Kind::State))
        .unwrap();
    refused("a coordinator's state");
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("a.txt"), folder.path().join("out"));
    let message = |o: &PrepareOptions| prepare::prepare(o, &mut Notes::default()).unwrap_err().to_string();
    assert!(message(&options(&input, &out)).contains("does not exist"));
    fs::write(&input, "").unwrap();
    assert!(message(&options(&input, &out)).contains("there is no text in"));
    fs::write(&input, "short").unwrap();
    assert!(message(&options(&input, &out)).contains("fewer than one sample of 17"));
    assert!(message(&PrepareOptions { paths: vec![], ..options(&input, &out) }).contains("nothing to read"));
    assert!(message(&PrepareOptions { heldout: 0.0, ..options(&input, &out) }).contains("--heldout is 0"));
    assert!(Dataset::open(folder.path()).unwrap_err().to_string().contains("dataset prepare"));
}

#[test]
fn a_mistake_noticed_early_can_be_corrected_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (mixed_input(folder.path()), folder.path().join("out"));
    let limits = Limits { checkpoint_bytes: 1 << 20, ..small() };
    let wrong =
        PrepareOptions { column: "body".into(), tokenizer: TokenizerChoice::Train(300), ..options(&input, &out) };
    let message = prepare_within(&wrong, &limits).unwrap_err().to_string();
    assert!(message.contains("pass --column with one of: text"), "{message}");
    let right = prepare_within(&options(&input, &out), &limits).unwrap();
    assert_eq!(right.manifest.tokenizer, None);

    // But not once there is work that would be lost.
    let later = folder.path().join("later");
    prepare_within(&PrepareOptions { column: "body".into(), ..options(&input, &later) }, &small()).unwrap_err();
    let refused = prepare_within(&options(&input, &later), &small()).unwrap_err();
    assert!(matches!(refused, DatasetError::Changed { .. }), "{refused}");
}

#[test]
fn a_damaged_shard_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (mixed_input(folder.path()), folder.path().join("out"));
    prepare_within(&options(&input, &out), &small()).unwrap();
    let dataset = Dataset::open(&out).unwrap();
    let path = dataset.blob_path(dataset.manifest().train[0].hash);
    let mut bytes = fs::read(&path).unwrap();
    bytes[9] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(dataset.read_shard(0).unwrap_err().to_string().contains("do not match its name"));
}

/// Which input and output a child process is to prepare; set by the test below.
const CHILD: &str = "NIGHTJAR_TEST_PREPARE";

/// Runs only as a child of the test below, which kills it at a fail point.
#[test]
fn prepares_as_a_child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    prepare_within(&interrupted_options(Path::new(&folder)), &small()).unwrap();
}

fn interrupted_options(folder: &Path) -> PrepareOptions {
    PrepareOptions { tokenizer: TokenizerChoice::Train(300), ..options(&folder.join("input"), &folder.join("out")) }
}

#[test]
fn killed_anywhere_it_continues_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    mixed_input(folder.path());
    let run = |fail_point: Option<&str>| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["dataset::tests::prepares_as_a_child", "--exact"]).env(CHILD, folder.path());
        child.env_remove(fail::VARIABLE).envs(fail_point.map(|point| (fail::VARIABLE, point)));
        child.output().unwrap().status.success()
    };
    let out = folder.path().join("out");
    assert!(run(None));
    let expected = files(&out);
    let points =
        ["tokenizer", "checkpoint", "checkpoint@2", "read", "shard@2", "bucket", "bucket@5", "bucket@9", "manifest"];
    let points = points.map(|point| format!("dataset.{point}"));
    for point in &points {
        fs::remove_dir_all(&out).unwrap();
        assert!(!run(Some(point)), "{point} was not passed");
        assert!(run(None));
        assert_eq!(files(&out), expected, "killed at {point}");
    }
    // One after another, on the same folder.
    fs::remove_dir_all(&out).unwrap();
    for point in &points {
        run(Some(point));
    }
    assert!(run(None));
    assert_eq!(files(&out), expected);
}

#[test]
fn a_finished_dataset_without_its_plan_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (mixed_input(folder.path()), folder.path().join("out"));
    prepare_within(&options(&input, &out), &small()).unwrap();
    fs::remove_file(out.join("prepare.json")).unwrap();
    let before = files(&out);
    for seed in [5, 6] {
        let refused = prepare_within(&PrepareOptions { seed, ..options(&input, &out) }, &small()).unwrap_err();
        assert!(refused.to_string().contains("without its prepare.json"), "{refused}");
        assert_eq!(files(&out), before);
    }
}

#[test]
fn shards_that_are_gone_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (mixed_input(folder.path()), folder.path().join("out"));
    let whole = prepare_within(&options(&input, &out), &small()).unwrap();
    let (before, shards) = (files(&out), &whole.manifest.train);
    let dataset = Dataset::open(&out).unwrap();
    assert!(dataset.unfit().is_empty());
    fs::remove_file(dataset.blob_path(shards[0].hash)).unwrap();
    fs::write(dataset.blob_path(shards[1].hash), b"short").unwrap();
    fs::remove_file(dataset.blob_path(whole.manifest.heldout[0].hash)).unwrap();
    let told = dataset.unfit();
    assert!(told.len() == 3 && told[0].contains("is missing") && told[1].contains("5 bytes instead of"), "{told:?}");
    let again = prepare_within(&options(&input, &out), &small()).unwrap();
    assert!(again == Prepared { already_done: false, ..whole } && files(&out) == before);
    assert!(prepare_within(&options(&input, &out), &small()).unwrap().already_done);
}
