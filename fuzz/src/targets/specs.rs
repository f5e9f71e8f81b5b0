//! What a run is said to be: by a lab, by a coordinator, by a dataset's folder.

use super::{put, small_model};
use nightjar_coordinator::{dataset::Dataset, run_file};
use nightjar_shared::{
    delta::{self, CodecId},
    ids::BlobHash,
    run_spec::{MergeRule, OperatorSpec, Pacing, RunSpec, StalenessSpec},
    shard::{Manifest, ShardInfo},
};

/// `run.toml`, as a lab writes it.
pub fn run_file(bytes: &[u8]) {
    match run_file::parse(bytes) {
        Ok(read) => {
            taken(&read.spec);
            let written = toml::to_string(&read.spec).expect("every spec can be written as a run file");
            let again = run_file::parse(written.as_bytes()).expect("what was written is read");
            assert_eq!(again.spec, read.spec, "{written}");
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty() && !told.contains(char::is_control) && told.len() < 8 << 10, "{told:?}");
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(error.place.is_none_or(|(line, column)| (1..=lines).contains(&line) && column > 0), "{told}");
        }
    }
}

/// What follows from a spec that is taken: no number of it makes anything overflow, or without end.
fn taken(spec: &RunSpec) {
    spec.validate().expect("it is taken");
    assert!(spec.model.parameters() > 0 && spec.model.training_bytes() > 0 && spec.tokens_per_step() > 0);
    assert!(!delta::bytes_allowed(&spec.model, &spec.delta).is_empty());
    for progress in [0.0, 0.5, 1.0, 1e9] {
        assert!(spec.inner.learning_rate_at(progress).is_finite());
    }
    assert_eq!(spec.changed_to(spec), Ok(vec![]));
}

/// A run spec as JSON, as devices and ledgers have it.
pub fn run_spec(bytes: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<RunSpec>(bytes) else { return };
    let json = serde_json::to_string(&spec).expect("plain data");
    let again: RunSpec = serde_json::from_str(&json).expect("what was written is read");
    assert_eq!(again, spec, "{json}");
    if spec.validate().is_ok() {
        taken(&spec);
    }
}

fn specs() -> Vec<RunSpec> {
    let mut other = RunSpec::new("another", 5_000_000);
    other.description = "what for".into();
    other.operator = Some(OperatorSpec { name: "a school".into(), contact: "https://school.example".into() });
    other.model = small_model();
    (other.lease.pacing, other.lease.steps) = (Pacing::Free, 30);
    (other.delta.codec, other.delta.k) = (CodecId::Sparse2, 64);
    (other.merge.rule, other.merge.quorum) = (MergeRule::Nesterov { momentum: 0.9 }, Some(4));
    other.merge.staleness = StalenessSpec::Hinge { grace: 2.0, slope: 0.5 };
    vec![RunSpec::new("a run", 2_000_000), other]
}

pub fn run_files() -> Vec<Vec<u8>> {
    let short = b"name = \"my first run\"\ntoken_budget = 2_000_000\n[merge]\nrule = \"nesterov\"\n".to_vec();
    let long = specs().into_iter().map(|spec| toml::to_string(&spec).expect("a run file").into_bytes());
    [short].into_iter().chain(long).collect()
}

pub fn run_specs() -> Vec<Vec<u8>> {
    specs().iter().map(|spec| serde_json::to_vec(spec).expect("plain data")).collect()
}

/// A dataset's manifest.
pub fn manifest(bytes: &[u8]) {
    let folder = put(&[("manifest.json", bytes)]);
    let Ok(dataset) = Dataset::open(&folder) else { return };
    let manifest = dataset.manifest();
    assert!(manifest.train_samples() > 0 && manifest.token_bytes() > 0);
    assert_eq!(dataset.blobs().count(), manifest.train.len() + manifest.heldout.len());
    let json = serde_json::to_vec(manifest).expect("plain data");
    assert_eq!(serde_json::from_slice::<Manifest>(&json).expect("what was written is read"), *manifest);
}

fn manifest_of(shard: &[u8], samples: u32) -> Manifest {
    let info =
        ShardInfo { hash: BlobHash::of(shard), bytes: shard.len() as u64, samples, text_bytes: u64::from(samples) };
    Manifest {
        format: 1,
        context: 8,
        vocab_size: 256,
        tokenizer: None,
        end_of_text: None,
        train: vec![info.clone()],
        heldout: vec![info],
    }
}

pub fn manifests() -> Vec<Vec<u8>> {
    vec![serde_json::to_vec_pretty(&manifest_of(b"shard", 9)).expect("plain data")]
}

/// A shard of a few samples; the first byte says how many there should be.
pub fn shard(bytes: &[u8]) {
    let Some((samples, shard)) = bytes.split_first() else { return };
    let manifest = serde_json::to_vec(&manifest_of(shard, u32::from(*samples))).expect("plain data");
    let folder = put(&[("manifest.json", &manifest), (&format!("blobs/{}", BlobHash::of(shard)), shard)]);
    let Ok(tokens) = Dataset::open(&folder).and_then(|dataset| dataset.read_shard(0)) else { return };
    assert_eq!(tokens.len(), 9 * usize::from(*samples));
    assert!(tokens.iter().all(|token| *token < 256));
}

pub fn shards() -> Vec<Vec<u8>> {
    let tokens: Vec<u8> = (0..9 * 5u16).flat_map(|token| (token % 250).to_le_bytes()).collect();
    vec![[vec![5], zstd::bulk::compress(&tokens, 1).expect("memory")].concat()]
}
