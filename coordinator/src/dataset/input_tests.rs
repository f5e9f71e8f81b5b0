//! Inputs as labs have them: each kind made here, and the cases that failed once, which lie beside the repository.

use super::{
    Dataset, DatasetError, Note, Notes, PrepareOptions, TokenizerChoice,
    prepare::{Limits, prepare_within},
};
use nightjar_shared::{shard::ShardInfo, tokenizer::load};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokenizers::Tokenizer;

fn options(paths: &[PathBuf], out: &Path) -> PrepareOptions {
    PrepareOptions { context: 64, quiet: true, ..PrepareOptions::new(paths.to_vec(), out.to_owned()) }
}

/// What came of a preparation.
struct Outcome {
    /// All tokens, in no order: those that samples predict.
    tokens: Vec<u32>,
    heldout: u64,
    notes: Notes,
}

impl Outcome {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.tokens.iter().map(|t| *t as u8).collect::<Vec<_>>()).into_owned()
    }
}

fn prepare(options: &PrepareOptions) -> Result<Outcome, (DatasetError, Notes)> {
    let mut notes = Notes::default();
    match prepare_within(options, &Limits::default(), &mut notes) {
        Err(error) => Err((error, notes)),
        Ok(prepared) => {
            let dataset = Dataset::open(&options.out).unwrap();
            let (train, heldout) = (&prepared.manifest.train, &prepared.manifest.heldout);
            let count = |shards: &[ShardInfo]| shards.iter().map(|s| u64::from(s.samples)).sum::<u64>();
            let all = (0..train.len())
                .map(|i| dataset.read_shard(i))
                .chain((0..heldout.len()).map(|i| dataset.read_heldout(i)));
            let sample = options.context as usize + 1;
            let tokens =
                all.flat_map(|shard| shard.unwrap().chunks(sample).flat_map(|s| s[1..].to_vec()).collect::<Vec<_>>());
            Ok(Outcome { tokens: tokens.collect(), heldout: count(heldout), notes })
        }
    }
}

/// The cases' folder, if it is there.
fn cases() -> Option<PathBuf> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    let found = cases.is_dir().then_some(cases);
    if found.is_none() {
        eprintln!("skipped: there are no cases beside the repository");
    }
    found
}

/// What the text of 400 documents comes to in samples, and what is lost at the end of both parts.
fn is_all_text(outcome: &Outcome, bytes: usize) -> bool {
    outcome.heldout > 0 && outcome.tokens.len() <= bytes && outcome.tokens.len() + 130 >= bytes
}

#[test]
fn every_case_has_its_right_value() {
    let Some(cases) = cases() else { return };
    let out = tempfile::tempdir().unwrap();
    let run = |case: &str, change: &dyn Fn(&mut PrepareOptions)| {
        let mut options = options(&[cases.join(case).join("in")], &out.path().join(case));
        change(&mut options);
        prepare(&options)
    };
    let plain = |case: &str| run(case, &|_| ()).unwrap_or_else(|(error, _)| panic!("{case}: {error}"));
    let whole = plain("d31-overlap").tokens.len();
    for case in ["d01-jsonl-bom", "d08a-jsonl-gz", "d08c-mixed-gz", "d08e-json-array", "d08f-json-lines-ext"] {
        let outcome = plain(case);
        assert!(outcome.tokens.len() == whole && !outcome.text().contains(['\u{FEFF}', '\u{FFFD}', '{']), "{case}");
    }
    let nested = run("d06-jsonl-nested", &|o| o.column = "doc.text".into()).unwrap_or_else(|(e, _)| panic!("{e}"));
    assert_eq!(nested.tokens.len(), whole);
    let (error, _) = run("d06-jsonl-nested", &|o| o.out.push("other")).err().unwrap();
    assert!(error.to_string().contains("pass --column with one of: doc.text"), "{error}");
    assert!(plain("d05-jsonl-null").notes.of(Note::Null) > 0);
    assert_eq!(plain("d19-surrogate").notes.of(Note::LoneSurrogate), 1);
    for (case, no_text) in [("d10-utf16", 0), ("d10b-utf16-cjk", 0), ("d22-txt-bom", 0), ("d17b-bin-no-zero", 1)] {
        let outcome = plain(case);
        assert_eq!(outcome.notes.of(Note::NoText), no_text, "{case}");
        let marks = outcome.tokens.windows(3).filter(|w| matches!(w, [0xEF, 0xBB, 0xBF] | [0xEF, 0xBF, 0xBD])).count();
        assert_eq!(marks, 0, "{case}");
    }
    assert!(plain("d12b-hf-cache").notes.names(Note::Read).len() == 1);
    let links = plain("d12c-link-among");
    let all: u64 = ["in/real/0", "in/real/1", "in/real/2", "elsewhere/3", "elsewhere/4", "elsewhere/5"]
        .map(|name| fs::metadata(cases.join("d12c-link-among").join(name).with_extension("txt")).unwrap().len())
        .iter()
        .sum();
    assert!(is_all_text(&links, all as usize + 6), "{} of {all}", links.tokens.len());
    let (error, _) = run("d20-truncated-last", &|_| ()).err().unwrap();
    assert!(error.to_string().contains("a.jsonl:401: no JSON"), "{error}");
    let (error, _) = run("d20d-missing-few", &|_| ()).err().unwrap();
    let words = error.to_string();
    assert!([":8: ", ":100: ", ":301: ", "--skip-bad 3"].iter().all(|part| words.contains(part)), "{words}");
    let skipping = run("d20d-missing-few", &|o| o.skip_bad = 3).unwrap_or_else(|(e, _)| panic!("{e}"));
    assert_eq!(skipping.notes.of(Note::Bad), 3);
    let repository = plain("d26-hf-repo");
    assert_eq!((repository.notes.of(Note::Card), repository.notes.of(Note::OtherSplit)), (1, 2));
    assert!(!repository.text().contains("CARDMARKER"));
    let few = run("d40-maxbytes-few", &|o| o.max_bytes = Some(60_000)).unwrap_or_else(|(e, _)| panic!("{e}"));
    assert!(few.heldout > 0 && (55_000..66_000).contains(&few.tokens.len()), "{}", few.tokens.len());
    let twice = run("d31-overlap", &|o| {
        o.out.push("twice");
        o.paths.push(o.paths[0].join("a.jsonl"));
    });
    let twice = twice.unwrap_or_else(|(e, _)| panic!("{e}"));
    assert_eq!((twice.tokens.len(), twice.notes.of(Note::Twice)), (whole, 1));
}

#[test]
fn every_tokenizer_of_the_cases_keeps_all_text() {
    let Some(cases) = cases() else { return };
    let out = tempfile::tempdir().unwrap();
    let prepare_with = |case: &str, name: &str| {
        let path = cases.join("tokenizers").join(name).with_extension("json");
        let mut options = options(&[cases.join(case).join("in")], &out.path().join(format!("{case}-{name}")));
        options.tokenizer = TokenizerChoice::File(path.clone());
        let outcome = prepare(&options).unwrap_or_else(|(error, _)| panic!("{name}: {error}"));
        (outcome, load(&fs::read(path).unwrap()).unwrap())
    };
    let count = |outcome: &Outcome, id: u32| outcome.tokens.iter().filter(|token| **token == id).count();
    let decoded = |outcome: &Outcome, tokenizer: &Tokenizer| tokenizer.decode(&outcome.tokens, true).unwrap();
    for (name, end) in [
        ("gpt2", Some(0)),
        ("trunc", Some(0)),
        ("padfixed", Some(0)),
        ("llama2", Some(2)),
        ("llama3", Some(501)),
        ("no-eos", None),
    ] {
        let (outcome, tokenizer) = prepare_with("d31-overlap", name);
        let bytes = decoded(&outcome, &tokenizer).len();
        assert!((175_000..=179_500).contains(&bytes), "{name}: {bytes} bytes of text");
        assert_eq!(outcome.notes.of(Note::NoEndOfText), u64::from(end.is_none()), "{name}");
        // A few documents may end in what fills no sample.
        let ends = end.map_or(400, |id| count(&outcome, id));
        assert!((395..=400).contains(&ends), "{name}: {ends} ends");
    }
    let (outcome, _) = prepare_with("d24-special-in-text", "gpt2");
    assert!((390..=400).contains(&count(&outcome, 0)), "{} ends of 400 documents", count(&outcome, 0));
    let (outcome, tokenizer) = prepare_with("d41-spm-pieces", "llama2");
    // Documents end with a space, and the next begins with one of its own.
    let mut parts = outcome.tokens.chunks(64).flat_map(|sample| sample.split(|token| *token == 2));
    assert!(!parts.any(|part| tokenizer.decode(part, true).unwrap().contains("  ")));
}

/// One document a file, told apart by a character of its own.
fn documents(n: u32) -> Vec<String> {
    (0..n).map(|i| format!("{} says line {i}\n", char::from_u32(0x4E00 + i).unwrap()).repeat(40)).collect()
}

#[test]
fn out_inside_the_input_works_resumes_and_repeats() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), documents(60).concat()).unwrap();
    let options = options(&[folder.path().to_owned()], &folder.path().join("data"));
    let first = prepare(&options).unwrap_or_else(|(e, _)| panic!("{e}"));
    let mut notes = Notes::default();
    let again = prepare_within(&options, &Limits::default(), &mut notes).unwrap();
    assert!(again.already_done && notes.of(Note::Output) == 1 && !first.tokens.is_empty());
}

#[test]
fn what_is_left_out_is_told_when_it_fails_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.bin"), [0, 1, 2, 3].repeat(100)).unwrap();
    fs::write(folder.path().join("b.parquet"), "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n")
        .unwrap();
    let (error, notes) = prepare(&options(&[folder.path().to_owned()], &folder.path().join("data"))).err().unwrap();
    assert!(matches!(error, DatasetError::Empty { .. }), "{error}");
    assert_eq!((notes.of(Note::LfsPointer), notes.of(Note::NoText)), (1, 1));
}

#[test]
fn bad_records_are_told_at_once_and_left_out_up_to_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines: Vec<String> = documents(200).iter().map(|d| serde_json::json!({ "text": d }).to_string()).collect();
    for at in (0..200).step_by(7) {
        lines[at] = "{\"body\": 3}".into();
    }
    let (input, out) = (folder.path().join("a.jsonl"), folder.path().join("out"));
    fs::write(&input, lines.join("\n")).unwrap();
    let mut options = options(&[input], &out);
    let told = |options: &PrepareOptions| prepare(options).err().unwrap().0.to_string();
    let words = told(&options);
    assert!(words.starts_with("29 records cannot be read\n") && words.contains("and 9 more"), "{words}");
    options.skip_bad = 28;
    assert!(told(&options).starts_with("29 records"));
    // The same folder goes on with a number that is large enough, and comes to what a fresh one does.
    options.skip_bad = 29;
    let small = Limits {
        piece_bytes: 500,
        checkpoint_bytes: 4 << 10,
        bucket_bytes_max: 1 << 20,
        fan_out: 3,
        shard_bytes: 1 << 14,
    };
    let prepared = |options: &PrepareOptions| prepare_within(options, &small, &mut Notes::default());
    let fresh = prepared(&PrepareOptions { out: folder.path().join("fresh"), ..options.clone() }).unwrap();
    let failing = PrepareOptions { out: folder.path().join("failing"), skip_bad: 20, ..options.clone() };
    assert!(matches!(prepared(&failing), Err(DatasetError::BadRecords { count: 29, .. })));
    assert!(matches!(
        prepared(&PrepareOptions { skip_bad: 1, ..failing.clone() }),
        Err(DatasetError::BadRecords { .. })
    ));
    let mut notes = Notes::default();
    let later = prepare_within(&PrepareOptions { skip_bad: 29, ..failing }, &small, &mut notes).unwrap();
    assert_eq!((later.manifest, notes.of(Note::Bad)), (fresh.manifest, 29));
    // A wrong column is no matter of records.
    options.column = "words".into();
    options.out = folder.path().join("column");
    assert!(told(&options).ends_with("and no record before could be"));
}

#[test]
fn patterns_choose_and_a_packed_text_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (text, other) = (documents(80).concat(), "other words\n".repeat(500));
    fs::create_dir_all(folder.path().join("in/old")).unwrap();
    fs::write(folder.path().join("in/a.txt.zst"), zstd::bulk::compress(text.as_bytes(), 3).unwrap()).unwrap();
    fs::write(folder.path().join("in/b.md"), &other).unwrap();
    fs::write(folder.path().join("in/old/c.txt"), &other).unwrap();
    let mut options = options(&[folder.path().join("in")], &folder.path().join("out"));
    options.include = vec!["*.txt.zst".into(), "*.txt".into(), "*.none".into()];
    options.exclude = vec!["old".into()];
    let outcome = prepare(&options).unwrap_or_else(|(e, _)| panic!("{e}"));
    assert!(is_all_text(&outcome, text.len()) && !outcome.text().contains("other"));
    let notes = [Note::Excluded, Note::NotIncluded, Note::UnusedPattern].map(|note| outcome.notes.of(note));
    // `*.txt` matches only what is left out.
    assert_eq!(notes, [1, 1, 2]);
    options.out = folder.path().join("second");
    options.include = vec!["*.none".into()];
    assert!(matches!(prepare(&options), Err((DatasetError::Empty { .. }, notes)) if notes.of(Note::NotIncluded) == 2));
}

#[test]
fn the_end_of_text_is_found_beside_the_tokenizer_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let lines: Vec<String> = documents(100).iter().map(|d| serde_json::json!({ "text": d }).to_string()).collect();
    fs::write(at("a.jsonl"), lines.join("\n")).unwrap();
    let trained = |end: Option<&str>, out: &str| {
        let end_of_text = end.map(str::to_owned);
        let options = PrepareOptions {
            tokenizer: TokenizerChoice::Train(400),
            end_of_text,
            ..options(&[at("a.jsonl")], &at(out))
        };
        prepare(&options).unwrap_or_else(|(e, _)| panic!("{e}"));
        Dataset::open(at(out)).unwrap()
    };
    assert_eq!(trained(None, "known").manifest().end_of_text, None);
    let named = trained(Some("<|stop|>"), "named");
    assert_eq!(named.manifest().end_of_text, Some(0));
    fs::create_dir_all(at("model")).unwrap();
    fs::copy(named.tokenizer_path().unwrap(), at("model/tokenizer.json")).unwrap();
    let run = |end: Option<&str>, out: &str| {
        let (tokenizer, end_of_text) = (TokenizerChoice::File(at("model/tokenizer.json")), end.map(str::to_owned));
        prepare(&PrepareOptions { tokenizer, end_of_text, ..options(&[at("a.jsonl")], &at(out)) })
    };
    let ends = |outcome: &Outcome| outcome.tokens.iter().filter(|token| **token == 0).count();
    let unknown = run(None, "unknown").unwrap_or_else(|(e, _)| panic!("{e}"));
    assert_eq!((ends(&unknown), unknown.notes.of(Note::NoEndOfText)), (0, 1));
    assert!(unknown.notes.lines().concat().contains("--end-of-text"));
    let told = run(Some("<|stop|>"), "told").unwrap_or_else(|(e, _)| panic!("{e}"));
    fs::write(at("model/generation_config.json"), "{\"eos_token_id\": [0]}").unwrap();
    let found = run(None, "found").unwrap_or_else(|(e, _)| panic!("{e}"));
    assert!(ends(&told) >= 95 && ends(&found) == ends(&told) && found.notes.of(Note::NoEndOfText) == 0);
    // What lies beside the tokenizer is part of the plan.
    assert!(matches!(run(None, "unknown"), Err((DatasetError::Changed { .. }, _))));
    let (error, _) = run(Some("<none>"), "wrong").err().unwrap();
    assert!(
        error.to_string().contains("no token `<none>` for --end-of-text; its special ones are: <|stop|>"),
        "{error}"
    );
}

#[test]
fn text_that_the_tokenizer_cannot_spell_is_told_and_refused_where_it_is_most() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let letters: serde_json::Map<_, _> =
        "abcdefghijklmnopqrstuvwxyz \n".chars().enumerate().map(|(i, c)| (c.to_string(), i.into())).collect();
    let json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": letters, "merges": []}});
    fs::write(at("t.json"), json.to_string()).unwrap();
    let run = |name: &str, text: &str| {
        fs::write(at(name), text.repeat(3000)).unwrap();
        let tokenizer = TokenizerChoice::File(at("t.json"));
        prepare(&PrepareOptions { tokenizer, ..options(&[at(name)], &at(&format!("{name}.out"))) })
    };
    let some = run("some.txt", "plain words of seven letters ü\n").unwrap_or_else(|(e, _)| panic!("{e}"));
    let told = some.notes.lines().concat();
    assert!(told.contains("the tokenizer makes nothing of 6000 bytes of text: 6.25 % of the text"), "{told}");
    let (error, _) = run("most.txt", "東京の言葉 ab\n").err().unwrap();
    assert!(error.to_string().contains("cannot spell 79 % of the text, which would be lost"), "{error}");
    assert_eq!(run("all.txt", "plain words\n").unwrap_or_else(|(e, _)| panic!("{e}")).notes.of(Note::Lost), 0);
}

#[test]
fn text_in_another_encoding_is_not_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let latin = b"Die K\xfche der Sch\xfcler f\xfcr \xdcbungen\n".repeat(4000);
    fs::write(at("a.txt"), &latin).unwrap();
    let (error, notes) = prepare(&options(&[at("a.txt")], &at("one"))).err().unwrap();
    assert!(
        matches!(error, DatasetError::Empty { .. }) && notes.names(Note::NoText)[0].contains("a.txt (neither"),
        "{notes:?}"
    );
    // Plain for so long that the beginning does not tell.
    fs::write(at("b.txt"), [b"plain words\n".repeat(9000), latin].concat()).unwrap();
    let (error, _) = prepare(&options(&[at("b.txt")], &at("two"))).err().unwrap();
    assert!(
        error.to_string().contains("not UTF-8, in ") && error.to_string().contains("b.txt: that looks like"),
        "{error}"
    );
    fs::write(at("c.txt"), [b"plain words\n".repeat(90_000), b"na\xefve fa\xe7ade".to_vec()].concat()).unwrap();
    let few = prepare(&options(&[at("c.txt")], &at("three"))).unwrap_or_else(|(e, _)| panic!("{e}"));
    assert_eq!(few.notes.of(Note::InvalidUtf8), 2);
}

#[test]
fn parquet_files_without_the_column_are_told_at_once_and_may_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("in")).unwrap();
    fs::write(at("in/a.txt"), documents(60).concat()).unwrap();
    for (name, column) in [("in/b.parquet", "body"), ("in/c.parquet", "content")] {
        use parquet::{
            file::{properties::WriterProperties, writer::SerializedFileWriter},
            schema::parser::parse_message_type,
        };
        let schema = parse_message_type(&format!("message m {{ required binary {column} (UTF8); }}")).unwrap();
        let properties = WriterProperties::builder().build().into();
        SerializedFileWriter::new(fs::File::create(at(name)).unwrap(), schema.into(), properties)
            .unwrap()
            .close()
            .unwrap();
    }
    let options = options(&[at("in")], &at("out"));
    let (error, _) = prepare(&options).err().unwrap();
    let words = error.to_string();
    assert!(
        ["2 records", "one of: body", "one of: content", "--skip-bad 2"].iter().all(|part| words.contains(part)),
        "{words}"
    );
    let left_out = PrepareOptions { skip_bad: 2, out: at("other"), ..options };
    assert_eq!(prepare(&left_out).unwrap_or_else(|(e, _)| panic!("{e}")).notes.of(Note::Bad), 2);
}
