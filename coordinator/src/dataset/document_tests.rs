//! Documents as labs have them: copies, files of their own to measure with, ids instead of text, and what is said of all.

use super::{
    Dataset, DatasetError, HeldoutPath, IdWidth, Note, Notes, PrepareOptions, Report, TokenizerChoice,
    prepare::{Limits, prepare_within},
    preview,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn options(paths: &[&Path], out: &Path) -> PrepareOptions {
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    PrepareOptions { context: 16, heldout: 0.1, quiet: true, ..PrepareOptions::new(paths, out.to_owned()) }
}

fn prepared(options: &PrepareOptions) -> Result<(Dataset, Report, Notes), DatasetError> {
    let mut notes = Notes::default();
    let limits = Limits { piece_bytes: 1000, checkpoint_bytes: 8 << 10, ..Limits::default() };
    prepare_within(options, &limits, &mut notes)?;
    Ok((Dataset::open(&options.out)?, Report::read(&options.out)?.unwrap(), notes))
}

/// The text of all samples, in no order.
fn texts(dataset: &Dataset) -> [String; 2] {
    let manifest = dataset.manifest();
    let train = (0..manifest.train.len()).flat_map(|i| dataset.read_shard(i).unwrap());
    let heldout = (0..manifest.heldout.len()).flat_map(|i| dataset.read_heldout(i).unwrap());
    let text =
        |tokens: Vec<u32>| String::from_utf8_lossy(&tokens.iter().map(|t| *t as u8).collect::<Vec<_>>()).into_owned();
    [text(train.collect()), text(heldout.collect())]
}

fn record(text: &str) -> String {
    serde_json::json!({ "text": text }).to_string() + "\n"
}

/// A text of words that no other has.
fn words(name: char, bytes: usize) -> String {
    format!("{name}{name}{name}{name} ").repeat(bytes / 5)
}

#[test]
fn exact_copies_are_left_out_of_records_and_of_files_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c, out] = ["web/a.jsonl", "web/b.txt", "books/c.txt", "out"].map(|name| folder.path().join(name));
    fs::create_dir_all(a.parent().unwrap()).unwrap();
    fs::create_dir_all(c.parent().unwrap()).unwrap();
    let records: Vec<String> = (0..60).map(|i| record(&format!("record number {} of them", i % 40))).collect();
    fs::write(&a, records.concat()).unwrap();
    // One that takes many pieces, and its copy; and one as long that is none.
    fs::write(&b, words('b', 30_000)).unwrap();
    fs::write(folder.path().join("web/copy.txt"), words('b', 30_000)).unwrap();
    fs::write(&c, words('c', 30_000)).unwrap();
    let (dataset, report, notes) = prepared(&options(&[folder.path()], &out)).unwrap();
    assert_eq!(notes.of(Note::Duplicate), 21);
    let of = |name: &str| report.domains.iter().find(|domain| domain.name == name).unwrap();
    assert_eq!((of("web").documents, of("web").duplicates, of("books").documents), (41, 21, 1));
    assert_eq!(of("books").text_bytes, 30_000);
    let all = texts(&dataset).concat();
    for letter in ['b', 'c'] {
        assert!((23_000..27_000).contains(&all.matches(letter).count()), "{letter}");
    }
    assert!(report.notes.iter().any(|note| note.starts_with("left out: 21 exact copies of documents")), "{report:?}");

    let kept = folder.path().join("kept");
    let (_, report, notes) = prepared(&PrepareOptions {
        keep_duplicates: true,
        exclude: vec!["out".into()],
        ..options(&[folder.path()], &kept)
    })
    .unwrap();
    assert_eq!((notes.of(Note::Duplicate), report.sum(|d| d.documents)), (0, 63));
}

#[test]
fn files_to_measure_with_are_held_out_by_name_and_copies_of_them_are_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let [train, news, code, out] =
        ["data/train.jsonl", "data/news.jsonl", "code", "out"].map(|name| folder.path().join(name));
    fs::create_dir_all(train.parent().unwrap()).unwrap();
    fs::create_dir_all(&code).unwrap();
    let leaked = "a sentence that is measured and may not be learned by heart";
    fs::write(
        &train,
        (0..90).map(|i| record(&format!("training sentence {i} ttt"))).collect::<String>() + &record(leaked),
    )
    .unwrap();
    fs::write(&news, record(leaked) + &record("nnnn nnnn nnnn nnnn nnnn nnnn")).unwrap();
    fs::write(code.join("x.txt"), words('x', 300)).unwrap();
    let heldout = [format!("news={}", news.display()), code.display().to_string()];
    let heldout_paths: Vec<HeldoutPath> = heldout.iter().map(|text| text.parse().unwrap()).collect();
    let asked = PrepareOptions { heldout_paths, ..options(&[train.parent().unwrap()], &out) };
    let (dataset, report, _) = prepared(&asked).unwrap();
    let [learned, measured] = texts(&dataset);
    assert!(!learned.contains("by heart") && !learned.contains("nnnn") && !learned.contains("xxxx"));
    assert!(
        measured.contains("by heart")
            && measured.contains("nnnn")
            && measured.contains("xxxx")
            && !measured.contains("ttt")
    );
    let train = report.domains.iter().find(|domain| domain.name == "train").unwrap();
    assert_eq!((train.documents, train.duplicates, train.heldout_tokens), (90, 1, 0));
    let sets: Vec<_> = report.heldout_sets.iter().map(|set| (set.name.as_str(), set.shards)).collect();
    assert_eq!(sets, [("news", 1), ("code", 1)]);
    let lines = report.lines(dataset.manifest()).join("\n");
    assert!(lines.contains("held out as news: 5 samples") && lines.contains("held out as code: 18 samples"), "{lines}");

    let twice = PrepareOptions { heldout_paths: vec![asked.heldout_paths[0].clone(); 2], ..asked.clone() };
    assert!(prepared(&twice).unwrap_err().to_string().contains("`news` more than once"));
    let short = HeldoutPath { name: "short".into(), path: folder.path().join("short.txt") };
    fs::write(&short.path, "short").unwrap();
    let other = folder.path().join("other");
    let refused =
        prepared(&PrepareOptions { heldout_paths: vec![short], out: other, ..asked }).unwrap_err().to_string();
    assert!(refused.starts_with("short has 6 tokens, fewer than one sample of 17: name more files"), "{refused}");
}

#[test]
fn names_of_what_is_measured_come_with_the_path_or_from_it() {
    let of = |text: &str| text.parse::<HeldoutPath>().map(|held| (held.name, held.path));
    assert_eq!(of("news=a/b.jsonl"), Ok(("news".into(), PathBuf::from("a/b.jsonl"))));
    assert_eq!(of("a/news.jsonl.gz"), Ok(("news".into(), PathBuf::from("a/news.jsonl.gz"))));
    assert_eq!(of("a/x=y/news"), Ok(("news".into(), PathBuf::from("a/x=y/news"))));
    assert!(of("news=").is_err() && of("/").is_err());
}

/// A tokenizer.json whose tokens are bytes, and one that ends documents.
fn tokenizer(folder: &Path) -> PathBuf {
    let mut json: serde_json::Value = serde_json::from_slice(&super::byte_tokenizer().unwrap()).unwrap();
    json["added_tokens"] = serde_json::json!([{"id": 256, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}]);
    let path = folder.join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    path
}

#[test]
fn ids_are_taken_as_they_are_beside_text_and_need_their_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let [ids, text, out] = ["ids/train.bin", "text.jsonl", "out"].map(|name| folder.path().join(name));
    fs::create_dir_all(ids.parent().unwrap()).unwrap();
    let document = |i: u16| (0..40).map(|k| (i * 7 + k) % 256).chain([256]).collect::<Vec<u16>>();
    let all: Vec<u16> = (0..50).flat_map(document).collect();
    fs::write(&ids, all.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    fs::write(&text, (0..50).map(|i| record(&format!("a text about the number {i}"))).collect::<String>()).unwrap();
    let plain = options(&[ids.parent().unwrap(), &text], &out);
    let (_, _, notes) = prepared(&PrepareOptions { out: folder.path().join("text alone"), ..plain.clone() }).unwrap();
    assert!(notes.names(Note::NoText)[0].contains("train.bin (binary"), "{notes:?}");
    let asked = PrepareOptions { token_ids: Some(IdWidth::Two), ..plain };
    let refused = prepared(&asked).unwrap_err().to_string();
    assert!(refused.contains("pass its tokenizer.json with --tokenizer"), "{refused}");

    let asked = PrepareOptions { tokenizer: TokenizerChoice::File(tokenizer(folder.path())), ..asked };
    let (dataset, report, _) = prepared(&asked).unwrap();
    assert_eq!(dataset.manifest().vocab_size, 257);
    assert_eq!(
        (report.sum(|d| d.documents), report.sum(|d| d.tokens + d.heldout_tokens)),
        (100, all.len() as u64 + 1340)
    );
    let ids = (0..dataset.manifest().train.len()).flat_map(|i| dataset.read_shard(i).unwrap());
    assert!(ids.filter(|id| *id == 256).count() > 85);
    fs::write(folder.path().join("ids/train.bin"), [1, 0, 44, 1]).unwrap();
    let other = PrepareOptions { out: folder.path().join("other"), ..asked };
    let refused = prepared(&other).unwrap_err().to_string();
    assert!(refused.contains("id 300 at place 1 is beyond the tokenizer's 257 tokens"), "{refused}");
}

#[test]
fn a_dry_run_tells_what_there_is_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("a.jsonl"), folder.path().join("out"));
    let records = (0..200).map(|i| record(&format!("{i:03} one record of forty characters....")));
    fs::write(&input, records.collect::<String>() + "no record\n").unwrap();
    let mut notes = Notes::default();
    let asked = options(&[&input], &out);
    let lines = preview(&asked, &mut notes).unwrap().join("\n");
    assert!(lines.starts_with("would read 1 files of ") && lines.contains("looked at 200 documents"), "{lines}");
    assert_eq!(notes.of(Note::Bad), 1);
    assert!(notes.lines().concat().contains("a.jsonl:201: no JSON"), "{notes:?}");
    assert!(!out.exists());
    let trained = PrepareOptions { tokenizer: TokenizerChoice::Train(400), ..asked.clone() };
    assert!(preview(&trained, &mut Notes::default()).unwrap().concat().contains("tokens to train on"));
    assert!(preview(&PrepareOptions { context: 0, ..asked }, &mut Notes::default()).is_err());
}

#[test]
fn the_page_and_the_report_lie_beside_the_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("book-00.txt"), folder.path().join("out"));
    fs::write(&input, (0..900).map(|i| format!("line {i} of a book\n")).collect::<String>()).unwrap();
    let (dataset, report, _) = prepared(&options(&[&input], &out)).unwrap();
    assert_eq!(report.domains.iter().map(|domain| domain.name.as_str()).collect::<Vec<_>>(), ["book"]);
    let samples: u64 = dataset.manifest().train.iter().map(|shard| u64::from(shard.samples)).sum();
    assert!(report.sum(|d| d.tokens).abs_diff(samples * 16) <= 16);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains(">book<"));
}
