//! Arrow files as other programs write them.

use super::*;
use std::{fs, process::Command};

/// A stream of two batches, as `pyarrow` 26 writes it: `id` (int32), `text` (string) with a null and an empty one, and
/// `doc` (struct of a `text`).
const STREAM: &str = include_str!("stream.hex");

fn stream() -> Vec<u8> {
    let digits: Vec<u32> = STREAM.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// All texts of a column from a row on, and what was bad.
fn read(path: &Path, column: &str, row: u64, notes: &mut Notes) -> Result<Vec<String>, DatasetError> {
    let mut column = ArrowColumn::open(path, column, row)?;
    let mut texts = vec![];
    loop {
        match column.next(notes)? {
            NextRow::Text(text) => texts.push(text),
            NextRow::Bad(reason) => texts.push(format!("BAD {reason}")),
            NextRow::End => return Ok(texts),
        }
    }
}

#[test]
fn rows_of_all_batches_are_read_from_any_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrow");
    fs::write(&path, stream()).unwrap();
    let mut notes = Notes::default();
    let all = read(&path, "text", 0, &mut notes).unwrap();
    assert_eq!(all, ["first", "zwölf Boxkämpfer 🥊", "fifth", "sixth"]);
    assert_eq!((notes.of(Note::Null), notes.of(Note::Empty)), (1, 1));
    assert_eq!(read(&path, "doc.text", 0, &mut notes).unwrap(), ["a", "b", "d", "e", "f"]);
    for row in 0..7 {
        let rest = read(&path, "text", row, &mut Notes::default()).unwrap();
        assert_eq!(rest, all[[0, 1, 1, 2, 2, 3, 4][row as usize]..], "{row}");
    }
    let mut column = ArrowColumn::open(&path, "text", 0).unwrap();
    column.next(&mut notes).unwrap();
    column.next(&mut notes).unwrap();
    assert_eq!(column.row(), 3);
    let missing = read(&path, "body", 0, &mut notes).unwrap_err().to_string();
    assert!(missing.ends_with("no text column `body`: pass --column with one of: text, doc.text"), "{missing}");
}

#[test]
fn what_is_cut_off_or_damaged_is_said_and_never_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.arrow");
    let whole = stream();
    for end in 0..whole.len() - 8 {
        fs::write(&path, &whole[..end]).unwrap();
        match read(&path, "text", 0, &mut Notes::default()) {
            Ok(texts) => assert!(texts.len() <= 4, "{end}: {texts:?}"),
            Err(error) => assert!(matches!(error, DatasetError::Arrow { .. }), "{end}: {error}"),
        }
    }
    let (mut refused, mut read_on) = (0, 0);
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs::write(&path, &bytes).unwrap();
            match read(&path, "text", 0, &mut Notes::default()) {
                Ok(_) => read_on += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 100 && read_on > 100, "{refused} and {read_on}");
    fs::write(&path, "no Arrow at all, but text").unwrap();
    let told = read(&path, "text", 0, &mut Notes::default()).unwrap_err().to_string();
    assert!(told.contains("it is no Arrow stream"), "{told}");
}

/// What makes files of every kind, in the folder that it is given.
const SCRIPT: &str = r#"
import sys, datasets, pyarrow as pa, pyarrow.feather as feather
out = sys.argv[1]
texts = [None if i % 7 == 3 else "" if i % 7 == 5 else f"row {i} " + "ä" * (i % 50) for i in range(2500)]
table = pa.table({"tags": [["x"] * (i % 3) for i in range(2500)], "meta": [{"n": i, "t": [{"u": "v"}]} for i in range(2500)],
    "flag": [i % 2 == 0 for i in range(2500)], "kind": pa.array([str(i % 3) for i in range(2500)]).dictionary_encode(),
    "view": pa.array(["a view of a text that is long " + str(i) for i in range(2500)], pa.string_view()),
    "text": texts, "large": pa.array(texts, pa.large_string()), "after": [float(i) for i in range(2500)]})
for name, options in [("plain", None), ("lz4", "lz4"), ("zstd", "zstd")]:
    with pa.ipc.new_stream(f"{out}/{name}.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression=options)) as w:
        w.write_table(table, max_chunksize=1000)
feather.write_feather(table.drop_columns(["view"]), f"{out}/file.feather")
datasets.disable_progress_bars()
data = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": [t or "-" for t in texts]})})
data.save_to_disk(f"{out}/saved", num_shards={"train": 3})
"#;

#[test]
fn files_that_other_programs_wrote_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let python = std::env::var_os("NIGHTJAR_PYTHON").unwrap_or("python3".into());
    let made = Command::new(python).args(["-c", SCRIPT]).arg(folder.path()).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        println!("skipped: Python has no `datasets` and `pyarrow` (NIGHTJAR_PYTHON names one that has): {made:?}");
        return;
    }
    let texts = |i: usize| (i % 7 != 3 && i % 7 != 5).then(|| format!("row {i} {}", "ä".repeat(i % 50)));
    let wanted: Vec<String> = (0..2500).filter_map(texts).collect();
    for name in ["plain.arrow", "lz4.arrow", "zstd.arrow", "file.feather"] {
        for column in ["text", "large"] {
            let mut notes = Notes::default();
            let found = read(&folder.path().join(name), column, 0, &mut notes).unwrap();
            assert!(found == wanted, "{name}, {column}: {} texts", found.len());
            assert_eq!((notes.of(Note::Null), notes.of(Note::Empty)), (357, 357), "{name}");
            let rest = read(&folder.path().join(name), column, 1500, &mut notes).unwrap();
            assert!(
                rest == wanted[wanted.len() - rest.len()..] && rest[0].starts_with("row 1500 "),
                "{name}: {}",
                rest[0]
            );
        }
    }
    let files: Vec<_> =
        fs::read_dir(folder.path().join("saved/train")).unwrap().map(|file| file.unwrap().path()).collect();
    let mut shards: Vec<_> = files.iter().filter(|file| file.extension().is_some_and(|end| end == "arrow")).collect();
    shards.sort();
    let rows: Vec<String> =
        shards.iter().flat_map(|file| read(file, "text", 0, &mut Notes::default()).unwrap()).collect();
    assert_eq!((shards.len(), rows.len(), rows[3].as_str()), (3, 2500, "-"));
}
