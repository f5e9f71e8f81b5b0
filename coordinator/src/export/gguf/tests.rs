//! The bytes, read back by a reader of the format's own words; what llama.cpp makes of them is tried in tests of the
//! whole program.

use super::{
    vocabulary::{NORMAL, UNUSED},
    *,
};
use crate::export::{Form, Format, Model, export, tests::model};
use std::collections::BTreeMap;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn count(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn long(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn text(&mut self) -> String {
        let length = self.long();
        String::from_utf8(self.take(length).to_vec()).unwrap()
    }

    fn value(&mut self, kind: u32) -> String {
        match kind {
            4 => self.count().to_string(),
            5 => (self.count() as i32).to_string(),
            6 => f32::from_bits(self.count()).to_string(),
            7 => (self.take(1)[0] == 1).to_string(),
            8 => self.text(),
            9 => {
                let (kind, length) = (self.count(), self.long());
                (0..length).map(|_| self.value(kind)).collect::<Vec<_>>().join("|")
            }
            other => panic!("kind {other}"),
        }
    }
}

/// Keys, and each tensor's shape, type and bytes.
type Parsed = (BTreeMap<String, String>, BTreeMap<String, (Vec<usize>, u32, Vec<u8>)>);

fn parsed(bytes: &[u8]) -> Parsed {
    let mut reader = Reader(bytes);
    assert_eq!((reader.take(4), reader.count()), (&b"GGUF"[..], 3));
    let (tensors, keys) = (reader.long(), reader.long());
    let keys = (0..keys).map(|_| {
        let (key, kind) = (reader.text(), reader.count());
        (key, reader.value(kind))
    });
    let keys = keys.collect();
    let infos: Vec<_> = (0..tensors)
        .map(|_| {
            let (name, dims) = (reader.text(), reader.count());
            let shape: Vec<usize> = (0..dims).map(|_| reader.long()).collect();
            (name, shape, reader.count(), reader.long())
        })
        .collect();
    let data = (bytes.len() - reader.0.len()).next_multiple_of(32);
    let tensors = infos.into_iter().map(|(name, shape, kind, offset)| {
        assert!(offset.is_multiple_of(32));
        let length = shape.iter().product::<usize>() * if kind == 0 { 4 } else { 2 };
        (name, (shape, kind, bytes[data + offset..data + offset + length].to_vec()))
    });
    (keys, tensors.collect())
}

#[test]
fn keys_and_tensors_are_where_the_format_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let (spec, weights) = (model(), model().draw_all(3));
    for (dtype, kind) in [(Dtype::F32, 0), (Dtype::F16, 1), (Dtype::Bf16, 30)] {
        let written = Model {
            name: "owl",
            spec: &spec,
            weights: Weights::Flat(&weights),
            vocabulary: None,
            companions: Companions::default(),
            provenance: None,
        };
        export(&target, written, Form { format: Format::Gguf, dtype, ..Form::default() }).unwrap();
        let (keys, tensors) = parsed(&std::fs::read(target.join(FILE)).unwrap());
        for (key, value) in [
            ("general.architecture", "llama"),
            ("general.name", "owl"),
            ("llama.block_count", "2"),
            ("llama.attention.head_count_kv", "2"),
            ("llama.rope.dimension_count", "4"),
            ("tokenizer.ggml.pre", "gpt-2"),
            ("tokenizer.ggml.merges", ""),
            ("tokenizer.ggml.add_bos_token", "false"),
        ] {
            assert_eq!(keys[key], value, "{key}");
        }
        assert_eq!(keys["tokenizer.ggml.tokens"].split('|').count(), 257, "one of 256 is the mark between them");
        assert_eq!(tensors.len(), 1 + 2 * 9 + 1, "a tied head is not written");
        let (shape, of, bytes) = &tensors["blk.1.ffn_down.weight"];
        assert_eq!((shape.as_slice(), *of), ([24, 16].as_slice(), kind));
        let tensor = spec.tensors().into_iter().find(|t| t.name == "model.layers.1.mlp.down_proj.weight").unwrap();
        let mut right = vec![];
        dtype.write(&weights[tensor.range()], &mut right);
        assert_eq!(*bytes, right);
        assert_eq!((tensors["output_norm.weight"].1, tensors["output_norm.weight"].0.as_slice()), (0, [16].as_slice()));
    }
}

#[test]
fn rows_of_queries_and_keys_are_turned_head_by_head() {
    let spec = model();
    let query = spec.tensors().into_iter().find(|tensor| tensor.role == Role::Query).unwrap();
    // Each row holds its own number: 4 heads of 4.
    let rows: Vec<f32> = (0..16).flat_map(|row| [row as f32; 16]).collect();
    let turned = arranged(&spec, &query, rows.into());
    let order: Vec<u32> = turned.chunks(16).map(|row| row[0] as u32).collect();
    assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]);
    let value = spec.tensors().into_iter().find(|tensor| tensor.role == Role::Value).unwrap();
    let rows = vec![1.5; value.len()];
    assert_eq!(arranged(&spec, &value, rows.as_slice().into()), rows);
}

#[test]
fn a_tokenizer_without_a_name_there_is_refused_with_the_way_round() {
    let json = String::from_utf8(crate::dataset::byte_tokenizer().unwrap()).unwrap();
    let spaced = json.replacen(r#""add_prefix_space":false"#, r#""add_prefix_space":true"#, 1);
    assert_ne!(spaced, json);
    let refused = Vocabulary::of(spaced.as_bytes(), 256).err().unwrap().to_string();
    assert!(refused.contains("rule for words") && refused.contains("convert_hf_to_gguf.py"), "{refused}");
    let padded = Vocabulary::of(json.as_bytes(), 260).unwrap();
    assert_eq!((padded.tokens[258].as_str(), padded.kinds[258], padded.kinds[97]), ("[UNUSED258]", UNUSED, NORMAL));
}
