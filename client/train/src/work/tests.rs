//! Leases on a small model: state, checkpoints, faults, and what is kept from one to the next.

use super::*;
use crate::{DeviceSettings, open_device};
use nightjar_shared::{
    delta,
    disk::{Disk, FolderDisk},
    ids::BlobHash,
    model_spec::ModelSpec,
    rng,
    run_spec::InnerState,
    version::{Weights, keyframe},
    wire::worker::{Base, Slice, Train, Trained},
};
use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

const STEPS: u32 = 4;

/// A folder with version 0 as a keyframe and a shard of random tokens, and a lease on both.
fn scene() -> (tempfile::TempDir, FolderDisk, Train, ModelSpec) {
    let folder = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(folder.path()).unwrap();
    let model = ModelSpec {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 8,
        ..ModelSpec::tiny()
    };
    let spec = serde_json::json!({ "name": "x", "token_budget": 1000, "model": model, "inner": { "batch_samples": 2 } });
    let weights = Weights::start(&model, &model.draw_all(1));
    disk.write("blobs/keyframe", &keyframe::encode(&model, &weights)).unwrap();
    let tokens = (0..20 * 9).flat_map(|i| (rng::below(1, 0, i, 256) as u16).to_le_bytes()).collect::<Vec<u8>>();
    disk.write("blobs/shard", &zstd::encode_all(&tokens[..], 1).unwrap()).unwrap();
    let digest = weights.digest().to_vec();
    let job = Train {
        lease_id: 7,
        run_spec_json: spec.to_string(),
        base: Some(Base { keyframe_file: "blobs/keyframe".into(), digest, ..Default::default() }),
        slice: Some(Slice { shard_file: "blobs/shard".into(), shard_samples: 20, first_sample: 3, samples: 2 * STEPS }),
        steps: STEPS,
        progress_tokens_per_step: 50,
        codec: 1,
        ..Default::default()
    };
    (folder, disk, job, model)
}

fn train(disk: &FolderDisk, job: &Train, stop: bool) -> Result<Trained, WorkError> {
    let device = open_device(&DeviceSettings { choice: "flex".parse().unwrap(), threads: 1, cache: None }).unwrap();
    let stop = AtomicBool::new(stop);
    let room = Room { disk, checkpoint: "work/checkpoint", memory_free: 1 << 30, stop: &stop, say: &|_| {} };
    Bench::new(device.device).train(job, &room)
}

#[test]
fn a_lease_becomes_a_delta_with_its_state() {
    let (_folder, disk, job, model) = scene();
    let trained = train(&disk, &Train { checkpoint_ms: 60_000, ..job.clone() }, false).unwrap();
    assert_eq!((trained.steps, trained.samples), (STEPS, 2 * STEPS));
    assert_eq!(trained.weights_file, "work/weights-0");
    let delta = disk.read(&trained.delta_file).unwrap().unwrap();
    assert_eq!(trained.delta_hash, BlobHash::of(&delta).0);
    let mut norm = 0.0;
    delta::decode(&model, &delta, |_, values| norm += values.iter().map(|v| f64::from(v * v)).sum::<f64>()).unwrap();
    assert!(norm > 0.0);
    // The next lease goes on from that state.
    let base = Base { keyframe_file: String::new(), weights_file: trained.weights_file, ..job.base.clone().unwrap() };
    let (residual_file, optimizer_file) = (trained.residual_file, trained.optimizer_file);
    let next = Train { lease_id: 8, base: Some(base), residual_file, optimizer_file, ..job };
    let next = train(&disk, &next, false).unwrap();
    assert_eq!(next.weights_file, "work/weights-0");
    assert_ne!(next.delta_hash, trained.delta_hash, "the moments make a difference");
}

#[test]
fn a_lease_goes_on_from_its_checkpoint_as_if_never_interrupted() {
    let (_folder, disk, job, _) = scene();
    let whole = train(&disk, &Train { checkpoint_ms: 60_000, ..job.clone() }, false).unwrap();
    assert_eq!(disk.list("work").unwrap().iter().filter(|n| n.starts_with("checkpoint")).count(), 0);
    // With a checkpoint after every step, the last is of the step before the last: as after a kill.
    train(&disk, &job, false).unwrap();
    let again = train(&disk, &job, false).unwrap();
    assert_eq!(again.delta_hash, whole.delta_hash);
    assert_eq!((again.steps, again.loss_first, again.loss_last), (whole.steps, whole.loss_first, whole.loss_last));
    // Stopped at once, it reports the steps of the checkpoint.
    let stopped = train(&disk, &job, true).unwrap();
    assert_eq!((stopped.steps, stopped.samples), (STEPS - 1, 2 * (STEPS - 1)));
    // A checkpoint is good for its own lease only.
    let other = train(&disk, &Train { lease_id: 9, ..job }, true).unwrap();
    assert_eq!((other.steps, other.delta_file.as_str()), (0, ""));
}

#[test]
fn a_wrong_base_is_told_apart_from_other_faults() {
    let (_folder, disk, job, _) = scene();
    let base = Base { digest: vec![1; 32], ..job.base.clone().unwrap() };
    assert!(matches!(train(&disk, &Train { base: Some(base), ..job.clone() }, false), Err(WorkError::Base(_))));
    let slice = Slice { shard_samples: 19, ..job.slice.clone().unwrap() };
    assert!(matches!(train(&disk, &Train { slice: Some(slice), ..job.clone() }, false), Err(WorkError::Shard(_))));
    assert!(matches!(train(&disk, &Train { codec: 9, ..job }, false), Err(WorkError::Codec(9))));
}

#[test]
fn the_rate_is_kept() {
    let (_folder, disk, job, _) = scene();
    let start = Instant::now();
    // 4 steps of 2 samples of 8 tokens at 160 tokens a second.
    train(&disk, &Train { tokens_per_s_max: 160.0, checkpoint_ms: 60_000, ..job }, false).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_run_that_resets_its_optimizer_neither_reads_nor_keeps_its_state() {
    let (_folder, disk, job, _) = scene();
    let fresh = train(&disk, &job, false).unwrap();
    let mut spec: serde_json::Value = serde_json::from_str(&job.run_spec_json).unwrap();
    spec["inner"]["state"] = serde_json::to_value(InnerState::Reset).unwrap();
    // The state of an earlier lease is there, and makes no difference.
    let resets = Train { lease_id: 8, run_spec_json: spec.to_string(), optimizer_file: fresh.optimizer_file, ..job };
    let trained = train(&disk, &resets, false).unwrap();
    assert_eq!((trained.delta_hash, trained.optimizer_file.as_str()), (fresh.delta_hash, ""));
}

#[test]
fn a_residual_counts_by_its_scale() {
    let (_folder, disk, job, model) = scene();
    let first = train(&disk, &job, false).unwrap();
    let residual = read_residual(&disk, &first.residual_file, model.parameters()).unwrap();
    assert!(residual.iter().any(|r| *r != 0.0));
    let with = |lease_id, residual_file: &str, residual_scale| {
        let again = Train { lease_id, residual_file: residual_file.into(), residual_scale, ..job.clone() };
        let trained = train(&disk, &again, false).unwrap();
        (trained.delta_hash, read_residual(&disk, &trained.residual_file, model.parameters()).unwrap())
    };
    let file = first.residual_file.as_str();
    assert_eq!(with(8, file, 0.0), with(9, "", 1.0));
    // Halved in the file or by the scale: the same bits.
    files::write_residual(&disk, "work/half", &residual.iter().map(|r| r * 0.5).collect::<Vec<_>>()).unwrap();
    assert_eq!(with(10, file, 0.5), with(11, "work/half", 1.0));
    assert_ne!(with(12, file, 1.0), with(13, file, 0.5));
}
