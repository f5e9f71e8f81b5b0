//! Texts in a real S3 store become the very dataset that the same files become.

use crate::{
    blobs::url,
    command_line::program,
    object_store::{KEYS, ObjectStore},
};
use nightjar_coordinator::{dataset::Dataset, store::Bucket};
use nightjar_shared::disk::{Disk, FolderDisk};
use parquet::{
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::{fs, path::Path, process::Output, sync::Arc};

/// Names and contents of files, of every kind that is read in a way of its own.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let text = |of: &str, n: usize| (0..n).map(|i| format!("line {i} of {of}\n")).collect::<String>();
    let records: String =
        (0..900).map(|i| serde_json::json!({"text": format!("record {i}")}).to_string() + "\n").collect();
    let arrow: Vec<u32> =
        include_str!("../../src/dataset/arrow/stream.hex").chars().filter_map(|c| c.to_digit(16)).collect();
    vec![
        ("books/long.txt", text("a long book", 40_000).into_bytes()),
        ("books/packed.txt.zst", zstd::bulk::compress(text("a packed book", 5000).as_bytes(), 1).unwrap()),
        ("rows.arrow", arrow.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()),
        ("rows.parquet", table(2000)),
        ("web/records.jsonl", records.into_bytes()),
        ("web/.hidden.txt", b"hidden".to_vec()),
    ]
}

fn table(rows: usize) -> Vec<u8> {
    let schema = parse_message_type("message m { required binary text (UTF8); }").unwrap();
    let mut writer =
        SerializedFileWriter::new(vec![], schema.into(), Arc::new(WriterProperties::builder().build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = (0..rows).map(|i| ByteArray::from(format!("row {i} of a table").as_str())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn prepare(from: &str, out: &Path) -> Output {
    let mut prepare = program();
    prepare.args(["dataset", "prepare", from, "--tokenizer", "bpe:400", "--out"]).arg(out).envs(KEYS);
    prepare.output().unwrap()
}

#[test]
fn objects_become_the_dataset_that_files_become() {
    let Some(store) = ObjectStore::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [input, local, from_files, from_objects] = ["in", "local", "a", "b"].map(|name| folder.path().join(name));
    let address = store.url("lab/texts");
    let bucket = Bucket::to_read(&url(&address), Arc::new(FolderDisk::open(&local).unwrap())).unwrap();
    for (name, bytes) in files() {
        let path = input.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &bytes).unwrap();
        bucket.write(name, &bytes).unwrap();
    }
    for (from, out) in [(input.to_str().unwrap(), &from_files), (&address, &from_objects)] {
        let made = prepare(from, out);
        let (said, wrong) = (String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
        assert!(made.status.success(), "{from}: {said}{wrong}");
        assert!(
            said.contains("left out: 1 hidden file") && said.contains("next: nightjar-coordinator serve"),
            "{said}"
        );
    }
    let manifest = |folder: &Path| Dataset::open(folder).unwrap().manifest().clone();
    assert_eq!(manifest(&from_files), manifest(&from_objects));

    let one = prepare(&store.url("lab/texts/books/long.txt"), &folder.path().join("one"));
    assert!(one.status.success(), "{one:?}");
    let none = prepare(&store.url("lab/nothing"), &folder.path().join("none"));
    assert!(
        String::from_utf8_lossy(&none.stderr).contains("there is no text in s3://nightjar/lab/nothing"),
        "{none:?}"
    );
}
