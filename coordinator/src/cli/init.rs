//! `serve --init`: what must fit, and what is to be said, of a model that a run starts from.

use super::Failure;
use nightjar_coordinator::dataset::{Dataset, TokenizerMismatch, check_same_tokenizer};
use std::{fs, io, path::Path};

/// Refuses a model whose tokenizer is not the data's; what cannot be told is said.
pub fn check_tokenizer(folder: &Path, dataset: &Dataset) -> Result<Option<String>, Failure> {
    let data =
        dataset.tokenizer_path().map(|path| fs::read(&path).map_err(|e| Failure::midway(format!("{}: {e}", path.display()))));
    let data = data.transpose()?;
    let path = folder.join("tokenizer.json");
    let model = match fs::read(&path) {
        Ok(json) => json,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(data.map(|_| {
                let folder = folder.display();
                format!("{folder} has no tokenizer.json: whether its tokens are those of the data cannot be told")
            }));
        }
        Err(e) => return Err(Failure::input(format!("{}: {e}", path.display()))),
    };
    check_same_tokenizer(data.as_deref(), &model).map(|()| None).map_err(|mismatch| match mismatch {
        TokenizerMismatch::Unreadable { .. } => Failure::input(mismatch),
        _ => Failure::input(format!(
            "the model in {} was trained with another tokenizer than the data in {} was made with: {mismatch}; prepare the \
             data with --tokenizer {}",
            folder.display(),
            dataset.folder().display(),
            path.display(),
        )),
    })
}

/// Says that a start is rounded, where it is: version 0 is a keyframe, and those are bf16.
pub fn rounding(weights: &[f32]) -> Option<String> {
    let rounded = weights.iter().filter(|weight| weight.to_bits() & 0xFFFF != 0).count();
    (rounded > 0).then(|| {
        let share = 100.0 * rounded as f64 / weights.len() as f64;
        format!("version 0 is published in bf16: {rounded} of the model's weights ({share:.0} %) are rounded to it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_coordinator::dataset::byte_tokenizer;

    #[test]
    fn a_model_of_another_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (data, model) = (folder.path().join("data"), folder.path().join("model"));
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(&model).unwrap();
        let shard = serde_json::json!({"hash": "0".repeat(64), "bytes": 9, "samples": 3, "text_bytes": 12});
        let manifest = serde_json::json!({"format": 1, "context": 4, "vocab_size": 256, "tokenizer": null,
            "train": [shard], "heldout": [shard]});
        fs::write(data.join("manifest.json"), manifest.to_string()).unwrap();
        let dataset = Dataset::open(&data).unwrap();
        let refusal = |tokenizer: Option<String>| {
            let path = model.join("tokenizer.json");
            tokenizer.map_or_else(|| drop(fs::remove_file(&path)), |json| fs::write(&path, json).unwrap());
            match check_tokenizer(&model, &dataset) {
                Ok(note) => note,
                Err(Failure::Input(why)) => Some(why),
                Err(_) => panic!("not the person's to mend"),
            }
        };
        let bytes = String::from_utf8(byte_tokenizer().unwrap()).unwrap();
        assert_eq!(refusal(Some(bytes.clone())), None);
        assert_eq!(refusal(None), None);
        let other = bytes.replacen("\"a\":97", "\"b\":97", 1).replacen("\"b\":98", "\"a\":98", 1);
        assert_ne!(other, bytes);
        let why = refusal(Some(other)).unwrap();
        assert!(why.contains("token 97 is `a` in the data and `b` in the model's") && why.contains("--tokenizer"), "{why}");
        assert!(refusal(Some("{".into())).unwrap().contains("cannot be read"));
    }

    #[test]
    fn rounding_is_said_where_it_happens() {
        assert_eq!(rounding(&[1.0, -0.5, 0.0, 1.0 + 1.0 / 128.0]), None);
        let words = rounding(&[1.0, 0.1, 0.5, 0.25]).unwrap();
        assert!(words.contains("1 of the model's weights (25 %)"), "{words}");
    }
}
