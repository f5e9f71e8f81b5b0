//! What is found below the inputs, and what is left out.

use super::*;

/// Names of what is read of a folder, and what is noted.
fn walk(paths: &[&Path], patterns: &Patterns, out: Option<&Path>) -> (Vec<String>, Notes) {
    let mut notes = Notes::default();
    let paths: Vec<PathBuf> = paths.iter().map(|p| p.to_path_buf()).collect();
    let out = out.and_then(real_name);
    let found = Walk { patterns, out, notes: &mut notes }.files(&paths).unwrap();
    (found.iter().map(|f| f.relative.display().to_string()).collect(), notes)
}

fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("text of {file}")).unwrap();
    }
    folder
}

#[cfg(unix)]
#[test]
fn links_lead_to_files_once_each_and_nothing_is_left_out_in_silence() {
    use std::os::unix::fs::symlink;
    let folder = folder(&["in/b.txt", "in/.git/x", "blobs/0f1e", "else/c.txt", "in/sub/d.txt", "in/zero"]);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("in/zero"), "").unwrap();
    symlink("../blobs/0f1e", at("in/a.parquet")).unwrap();
    symlink("../blobs/0f1e", at("in/again.parquet")).unwrap();
    symlink("../else/c.txt", at("in/c.txt")).unwrap();
    symlink("../in", at("in/circle")).unwrap();
    symlink("nowhere", at("in/dead.txt")).unwrap();
    symlink("b.txt", at("in/to-b.txt")).unwrap();
    fs::write(at("in").join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xE9.txt")), "text")
        .unwrap();
    let (read, notes) = walk(&[&at("in")], &Patterns::default(), None);
    assert_eq!(read, ["a.parquet", "b.txt", "c.txt", "sub/d.txt"]);
    let kinds = [Note::FolderLink, Note::DeadLink, Note::Twice, Note::Hidden, Note::EmptyFile, Note::OddName];
    assert_eq!(kinds.map(|note| notes.of(note)), [1, 1, 2, 1, 1, 1]);
    // A name with an ending wins over one without; and a link that is named keeps its name.
    let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
    assert!(read.contains(&"in/a.parquet".into()) && !read.iter().any(|r| r.contains("0f1e")), "{read:?}");
    assert_eq!(notes.of(Note::Twice), 4);
    let found = Walk { patterns: &Patterns::default(), out: None, notes: &mut Notes::default() };
    let found = found.files(&[at("in/a.parquet"), at("in")]).unwrap();
    assert!(found[0].path.ends_with("in/a.parquet"), "{found:?}");
}

#[test]
fn links_that_are_written_as_text_lead_to_files_too() {
    let folder = folder(&["in/blobs/0f1e", "in/b.txt"]);
    fs::create_dir_all(folder.path().join("in/snapshots/abc")).unwrap();
    fs::write(folder.path().join("in/snapshots/abc/a.parquet"), "../../blobs/0f1e").unwrap();
    fs::write(folder.path().join("in/c.txt"), "../no/such/file").unwrap();
    let mut notes = Notes::default();
    let walk = Walk { patterns: &Patterns::default(), out: None, notes: &mut notes };
    let found = walk.files(&[folder.path().join("in")]).unwrap();
    let found: Vec<_> = found.iter().map(|f| (f.path.file_name().unwrap().to_str().unwrap(), f.format)).collect();
    assert_eq!(found, [("b.txt", Format::Text), ("c.txt", Format::Text), ("0f1e", Format::Parquet)]);
    assert_eq!(notes.names(Note::Twice), ["blobs/0f1e"]);
}

#[test]
fn a_folder_that_is_written_is_no_input() {
    let folder = folder(&["a.txt", "data/blobs/x"]);
    let (read, notes) = walk(&[folder.path()], &Patterns::default(), Some(&folder.path().join("data")));
    assert_eq!((read, notes.of(Note::Output)), (vec!["a.txt".into()], 1));
    let (read, notes) = walk(&[folder.path()], &Patterns::default(), Some(&folder.path().join("later")));
    assert_eq!((read.len(), notes.of(Note::Output)), (2, 0));
}

#[test]
fn what_stands_beside_data_is_left_out_unless_asked_for() {
    let files = ["README.md", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
    let folder =
        folder(&[&files[..], &["data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"]].concat());
    let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
    assert_eq!(read, files[1..]);
    assert_eq!((notes.of(Note::Card), notes.of(Note::OtherSplit)), (1, 2));
    let all = Patterns::new(&["**".into()], &[]).unwrap();
    assert_eq!(walk(&[folder.path()], &all, None).0.len(), 5);
    let test = folder.path().join("data/test-00000-of-00001.parquet");
    assert_eq!(walk(&[folder.path(), &test], &Patterns::default(), None).0.len(), 3);
}

#[test]
fn splits_are_told_by_what_lies_beside_them() {
    for (files, kept) in [
        (&["wiki.train.tokens", "wiki.test.tokens", "wiki.valid.tokens"][..], 1),
        (&["train/0.txt", "test/0.txt", "val/1.txt"], 1),
        (&["TinyStories-train.txt", "TinyStories-valid.txt"], 1),
        (&["test.txt", "valid.txt"], 2),
        (&["train.py", "test.txt", "tests/a.txt", "contest.txt"], 4),
        (&["README.md", "notes.txt"], 2),
        (&["docs/README.md", "data/a.jsonl"], 2),
        (&["data/train-00000-of-00001-abc123.parquet", "data/test-00000-of-00001-def456.parquet"], 1),
        (&["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"], 2),
        (&["train/a.jsonl", "test/b.jsonl", "de/validation/c.jsonl"], 1),
        (&["train.jsonl.gz", "test.jsonl", "dev.jsonl.zst", "eval.json"], 1),
        (&["training/a.txt", "testing/b.txt"], 1),
        (&["trainset.txt", "testset.txt", "held-out.txt", "heldout.txt"], 1),
        (&["Train2017/a.txt", "TestSet01.txt", "trainData.txt", "train1.txt", "test1.txt"], 3),
        // A name says more than the folder it is in, and what lies in another kind of place says nothing.
        (&["eval-suite/train.txt", "eval-suite/test.txt"], 1),
        (&["train.txt", "test/b.txt"], 2),
        (&["test.txt", "contrast.txt", "constraint.txt"], 3),
    ] {
        assert_eq!(walk(&[folder(files).path()], &Patterns::default(), None).0.len(), kept, "{files:?}");
    }
}

#[test]
fn folders_that_nightjar_made_are_no_input() {
    use nightjar_shared::mark::{Kind, MARK_FILE, Mark, leave};
    let folder = folder(&["a.txt", "data/blobs/x", "data/work/y", "model/README.md", "b/c.txt"]);
    leave(&folder.path().join("data"), &Mark::begun(Kind::Dataset)).unwrap();
    leave(&folder.path().join("model"), &Mark::whole(Kind::Model)).unwrap();
    fs::write(folder.path().join("b").join(MARK_FILE), "words").unwrap();
    let all = Patterns::new(&["**".into()], &[]).unwrap();
    for patterns in [&Patterns::default(), &all] {
        let (read, notes) = walk(&[folder.path()], patterns, None);
        assert_eq!(read, ["a.txt", "b/c.txt"]);
        assert!(notes.lines().contains(&"left out: 2 folders that Nightjar made: data, model".to_owned()), "{notes:?}");
    }
    let (read, notes) = walk(&[&folder.path().join("data")], &Patterns::default(), None);
    assert!(read.is_empty() && notes.lines()[0].starts_with("left out: a folder that Nightjar made: "), "{notes:?}");
}

#[cfg(unix)]
#[test]
fn a_file_of_two_names_is_read_once() {
    let folder = folder(&["a.txt", "b.txt"]);
    fs::hard_link(folder.path().join("a.txt"), folder.path().join("c.txt")).unwrap();
    let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
    assert_eq!((read, notes.names(Note::Twice)), (vec!["a.txt".into(), "b.txt".into()], &["c.txt".to_owned()][..]));
}

#[test]
fn records_are_told_by_what_a_file_holds() {
    let folder = folder(&["words.txt"]);
    let lines = "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n";
    let long = format!("{{\"text\": \"{}\"}}\n", "word ".repeat(20_000)).repeat(3);
    for (name, text, format) in [
        ("a.jsonlines", lines, Format::JsonLines),
        ("b.jl", lines, Format::JsonLines),
        ("c.ndjson", lines, Format::JsonLines),
        ("d.jsonl.txt", lines, Format::JsonLines),
        ("e.geojson", "[{\"text\": \"a\"}]", Format::Json),
        ("f", lines, Format::JsonLines),
        ("g.log", &long, Format::JsonLines),
        ("h.data", "\u{FEFF}{\"text\": 1}\r\n{\"text\": 2}", Format::JsonLines),
        ("i.txt", "[\n  {\n    \"text\": \"a\"}]", Format::Json),
        ("j.ipynb", "{\n \"cells\": []\n}\n", Format::Text),
        ("k.map", "{\"version\": 3}", Format::Text),
        ("l.txt", "{a}\n{b}\n", Format::Text),
        ("m.txt", "{\"text\": \"a\"}\nand then words\n", Format::Text),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
        let mut notes = Notes::default();
        let walk = Walk { patterns: &Patterns::default(), out: None, notes: &mut notes };
        let found = walk.files(&[folder.path().join(name)]).unwrap();
        assert_eq!(found[0].format, format, "{name}");
        let is_told = notes.lines().concat().contains("are JSON");
        assert_eq!(is_told, format != Format::of(Path::new(name)), "{name}: {notes:?}");
    }
}

#[test]
fn pointers_of_git_lfs_are_named() {
    let folder = folder(&["a.txt", "b.parquet"]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n";
    fs::write(folder.path().join("b.parquet"), pointer).unwrap();
    let (read, notes) = walk(&[folder.path()], &Patterns::default(), None);
    assert_eq!((read, notes.names(Note::LfsPointer)), (vec!["a.txt".into()], &["b.parquet".to_owned()][..]));
    assert!(notes.lines().concat().contains("git lfs pull"));
}
