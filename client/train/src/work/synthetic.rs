//! A lease of nobody's: random weights and random tokens, for benches and tests that need a worker at work and no
//! coordinator.

use nightjar_shared::{
    disk::Disk,
    model_spec::ModelSpec,
    rng,
    version::{Weights, keyframe},
    wire::worker::{Base, Slice, Train},
};
use std::io;

/// Writes version 0 of a model and a shard of random tokens to the disk; gives back a lease on both: `steps` steps of
/// `batch_samples` samples.
pub fn lease(disk: &dyn Disk, model: &ModelSpec, batch_samples: u32, steps: u32) -> io::Result<Train> {
    let spec = serde_json::json!({
        "name": "synthetic", "token_budget": 1_000_000_000_000u64, "model": model, "inner": { "batch_samples": batch_samples },
    });
    let weights = Weights::start(model, &model.draw_all(1));
    disk.write("blobs/keyframe", &keyframe::encode(model, &weights))?;
    let samples = batch_samples * steps;
    let tokens = u64::from(samples) * (u64::from(model.max_position_embeddings) + 1);
    let draw = |i| (rng::below(1, 0, i, u64::from(model.vocab_size)) as u16).to_le_bytes();
    let bytes: Vec<u8> = (0..tokens).flat_map(draw).collect();
    disk.write("blobs/shard", &zstd::encode_all(&bytes[..], 1)?)?;
    Ok(Train {
        lease_id: 1,
        run_spec_json: spec.to_string(),
        base: Some(Base {
            keyframe_file: "blobs/keyframe".into(),
            digest: weights.digest().to_vec(),
            ..Default::default()
        }),
        slice: Some(Slice { shard_file: "blobs/shard".into(), shard_samples: samples, first_sample: 0, samples }),
        steps,
        progress_tokens_per_step: tokens / u64::from(steps.max(1)),
        codec: 1,
        checkpoint_ms: 60_000,
        ..Default::default()
    })
}
