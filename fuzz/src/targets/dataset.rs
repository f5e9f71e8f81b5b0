//! Texts as they are found: what `dataset prepare` makes of a file, whatever is in it, can be trained on.

use super::put;
use nightjar_coordinator::dataset::{self, Dataset, Notes, PrepareOptions};
use parquet::{
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::io::Write;

/// How a file is named tells how it is read.
const NAMES: [&str; 7] = ["a.txt", "a.jsonl", "a.json", "a.parquet", "a.jsonl.gz", "a.txt.zst", "a.arrow"];
/// An Arrow stream in hexadecimal digits, as other programs write it.
const ARROW: &str = include_str!("../../../coordinator/src/dataset/arrow/stream.hex");

/// A file; the first byte says of which kind.
pub fn dataset(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let folder = put(&[(&format!("in/{}", NAMES[usize::from(*kind) % NAMES.len()]), bytes)]);
    let options = PrepareOptions {
        context: 8,
        skip_bad: 1000,
        heldout: 0.3,
        // What a few bytes unpack to has no end.
        max_bytes: Some(64 << 10),
        quiet: true,
        ..PrepareOptions::new(vec![folder.join("in")], folder.join("out"))
    };
    let mut notes = Notes::default();
    let prepared = dataset::prepare(&options, &mut notes);
    assert!(notes.lines().iter().all(|line| !line.is_empty()));
    let Ok(prepared) = prepared else { return };
    let opened = Dataset::open(&options.out).expect("what was prepared is opened");
    assert_eq!(opened.manifest(), &prepared.manifest);
    for (at, shard) in prepared.manifest.train.iter().enumerate() {
        assert_eq!(opened.read_shard(at).expect("a whole shard").len(), 9 * shard.samples as usize);
    }
}

pub fn datasets() -> Vec<Vec<u8>> {
    let texts: Vec<String> = (0..40).map(|n| format!("text {n}: the quick brown fox jumps over {}.", n * n)).collect();
    let lines: String = texts.iter().map(|text| format!("{}\n", serde_json::json!({"text": text, "id": 1}))).collect();
    let array = serde_json::json!(texts.iter().map(|text| serde_json::json!({"text": text})).collect::<Vec<_>>());
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gz.write_all(lines.as_bytes()).expect("memory");
    let plain = texts.join("\n\n");
    let all = [
        plain.clone().into_bytes(),
        lines.into_bytes(),
        array.to_string().into_bytes(),
        table(&texts),
        gz.finish().expect("memory"),
        zstd::bulk::compress(plain.as_bytes(), 1).expect("memory"),
        of_digits(ARROW),
    ];
    (0u8..).zip(all).map(|(kind, bytes)| [vec![kind], bytes].concat()).collect()
}

fn of_digits(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn table(texts: &[String]) -> Vec<u8> {
    let schema = parse_message_type("message m { required binary text (UTF8); }").expect("a schema");
    let properties = WriterProperties::builder().set_created_by("fuzz".into()).build();
    let mut writer = SerializedFileWriter::new(vec![], schema.into(), properties.into()).expect("memory");
    let mut group = writer.next_row_group().expect("memory");
    let mut column = group.next_column().expect("memory").expect("a column");
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).expect("memory");
    column.close().expect("memory");
    group.close().expect("memory");
    writer.into_inner().expect("memory")
}
