//! `serve --init`: what must fit, and what is to be said, of a model that a run starts from.

use super::Failure;
use nightjar_coordinator::dataset::{Dataset, TokenizerMismatch, check_same_tokenizer};
use nightjar_shared::{
    model_spec::{ModelSpec, TensorSpec},
    version::Fixed,
};
use std::{fs, io, path::Path};

/// Refuses a model whose tokenizer is not the data's; what cannot be told is said.
pub fn check_tokenizer(folder: &Path, dataset: &Dataset) -> Result<Option<String>, Failure> {
    let data = dataset
        .tokenizer_path()
        .map(|path| fs::read(&path).map_err(|e| Failure::midway(format!("{}: {e}", path.display()))));
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

/// What becomes of a start's weights: version 0 is a keyframe, and those are bf16, on a grid for each tensor that its
/// largest value decides.
#[derive(Default)]
struct Rounding {
    /// Weights that change at all.
    rounded: usize,
    /// Weights that become zero.
    zeroed: usize,
    /// Weights that change by more than bf16 takes.
    coarse: usize,
}

/// Says how a start is changed, where it is.
pub fn rounding(model: &ModelSpec, weights: &[f32]) -> Option<String> {
    let (mut all, mut worst) = (Rounding::default(), None::<(usize, TensorSpec)>);
    for tensor in model.tensors() {
        let values = &weights[tensor.range()];
        let mut here = Rounding::default();
        for (before, after) in values.iter().zip(Fixed::start(values).values()) {
            here.rounded += usize::from(*before != after);
            here.zeroed += usize::from(*before != 0.0 && after == 0.0);
            // bf16 keeps eight significant bits.
            here.coarse += usize::from(after != 0.0 && (before - after).abs() > before.abs() / 256.0);
        }
        let harmed = here.zeroed + here.coarse;
        all.rounded += here.rounded;
        all.zeroed += here.zeroed;
        all.coarse += here.coarse;
        if harmed > 0 && worst.as_ref().is_none_or(|(most, _)| harmed > *most) {
            worst = Some((harmed, tensor));
        }
    }
    let Rounding { rounded, zeroed, coarse } = all;
    let share =
        |count: usize| format!("{count} of the model's weights ({:.0} %)", 100.0 * count as f64 / weights.len() as f64);
    let mut words =
        (rounded > 0).then(|| format!("version 0 is published in bf16: {} are rounded to it", share(rounded)))?;
    if let Some((harmed, tensor)) = worst {
        let values = &weights[tensor.range()];
        let (largest, of) = (values.iter().fold(0f32, |most, value| most.max(value.abs())), values.len());
        let step = Fixed::start(values).step();
        words += &format!(
            "; that is coarse here: {zeroed} become zero and {coarse} change by more than bf16 takes. Most of them are in {}: \
             {harmed} of {of}, since its largest value is {largest:e} and its values are multiples of {step:e}",
            tensor.name
        );
    }
    Some(words)
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
        assert!(
            why.contains("token 97 is `a` in the data and `b` in the model's") && why.contains("--tokenizer"),
            "{why}"
        );
        assert!(refusal(Some("{".into())).unwrap().contains("cannot be read"));
    }

    #[test]
    fn rounding_is_said_where_it_happens() {
        let model = ModelSpec::tiny();
        let plain = vec![0.5; model.parameters()];
        assert_eq!(rounding(&model, &plain), None);
        let with = |places: &[(usize, f32)]| {
            let mut weights = plain.clone();
            places.iter().for_each(|(at, value)| weights[*at] = *value);
            rounding(&model, &weights).unwrap()
        };
        assert_eq!(
            with(&[(0, 0.1)]),
            "version 0 is published in bf16: 1 of the model's weights (0 %) are rounded to it"
        );
        // An outlier takes the others of its tensor with it.
        let words = with(&[(0, 1e4), (1, 1e-3), (2, 2e-2), (3, 2e-4)]);
        assert!(words.contains("2 become zero and 1 change by more than bf16 takes"), "{words}");
        assert!(words.contains("in model.embed_tokens.weight: 3 of 32768, since its largest value is 1e4"), "{words}");
        let nothing = rounding(&model, &vec![1e-38; model.parameters()]).unwrap();
        assert!(nothing.contains(&format!("{} become zero and 0 change", model.parameters())), "{nothing}");
        assert!(nothing.contains("(100 %)"), "{nothing}");
    }
}
