//! What a simulated lease costs in real mode: `real_speed [s|nano] BATCH CONTEXT THREADS [codec]`. Leases of 16 and of
//! 48 steps tell the steps' time from what surrounds them (files, hashes, the delta).

use nightjar_shared::{
    disk::Disk,
    model_spec::ModelSpec,
    run_spec::RunSpec,
    version::{Weights, keyframe},
    wire::worker::{Base, Slice, Train, from_worker, to_worker},
};
use nightjar_sim::{
    disk::SimDisk,
    real::Real,
    text::{TextDataset, TextSettings},
    training::{Job, Training},
};
use std::{sync::Arc, time::Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or(default.into());
    let number = |i, default| arg(i, default).parse::<u32>().expect("a number");
    let (batch, context, threads) = (number(1, "2"), number(2, "128"), number(3, "1"));
    let model = match arg(0, "s").as_str() {
        "s" => ModelSpec { max_position_embeddings: context, ..ModelSpec::tiny() },
        _ => ModelSpec {
            hidden_size: 64,
            intermediate_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            max_position_embeddings: context,
            ..ModelSpec::tiny()
        },
    };
    let spec = serde_json::json!({
        "name": "speed", "token_budget": 1_000_000, "model": model,
        "inner": { "batch_samples": batch }, "delta": { "codec": arg(4, "blocks8") },
    });
    let spec: RunSpec = serde_json::from_value(spec).expect("it is valid");
    let text: Vec<u8> = (0..200_000u64).map(|i| (i * i / 7 % 251) as u8).collect();
    let settings = TextSettings { context, shard_samples: 512, partition: Default::default(), seed: 1 };
    let dataset = TextDataset::new(&[&text], &text[..10_000], &settings).expect("it is long enough");
    let weights = Weights::start(&spec.model, &spec.model.draw_all(1));

    let mut real = Real::new(&spec.model, None, threads as usize);
    let mut disks: Vec<Device> = (0..threads).map(|_| Device::new(&spec, &weights, &dataset)).collect();
    let mut leases = |steps: u32, rounds: u32| -> f64 {
        let start = Instant::now();
        for _ in 0..rounds {
            let ids: Vec<_> = disks.iter_mut().map(|d| real.begin(d.job(&spec, steps))).collect();
            for (id, device) in ids.into_iter().zip(&mut disks) {
                device.ended(real.finish(id, steps, 0));
            }
        }
        start.elapsed().as_secs_f64() / f64::from(rounds)
    };
    leases(16, 2);
    let once = (leases(16, 1)).max(1e-3);
    let rounds = (6.0 / once).clamp(2.0, 200.0) as u32;
    let (short, long) = (leases(16, rounds), leases(48, (rounds / 3).max(1)));
    let step = (long - short) / 32.0;
    let tokens = f64::from(batch * context);
    println!(
        "{} parameters, {batch} x {context}, {threads} threads: {:.0} tokens/s a thread in steps, {:.0} in leases of 16 \
         ({:.1} ms a lease beside {:.1} ms a step: {:.1} %)",
        spec.model.parameters(),
        tokens / step,
        16.0 * tokens / short,
        (short - 16.0 * step) * 1e3,
        step * 1e3,
        100.0 * (1.0 - 16.0 * step / short),
    );
}

/// A device that trains lease after lease on version 0.
struct Device {
    disk: Arc<SimDisk>,
    train: Train,
}

impl Device {
    fn new(spec: &RunSpec, weights: &Weights, dataset: &TextDataset) -> Self {
        let disk = Arc::new(SimDisk::default());
        disk.write("k", &keyframe::encode(&spec.model, weights)).expect("it is memory");
        disk.write("s", &dataset.blobs[0].1).expect("it is memory");
        let shard_samples = dataset.manifest.train[0].samples;
        let train = Train {
            run_spec_json: serde_json::to_string(spec).expect("it is plain"),
            base: Some(Base { keyframe_file: "k".into(), digest: weights.digest().to_vec(), ..Default::default() }),
            slice: Some(Slice { shard_file: "s".into(), shard_samples, first_sample: 0, samples: shard_samples }),
            progress_tokens: 100_000,
            codec: spec.delta.codec as u32,
            residual_scale: 1.0,
            ..Default::default()
        };
        Device { disk, train }
    }

    fn job(&mut self, spec: &RunSpec, steps: u32) -> Job {
        self.train.lease_id += 1;
        self.train.steps = steps;
        let body = to_worker::Body::Train(self.train.clone());
        Job { device: 0, disk: self.disk.clone(), body, spec: Arc::new(spec.clone()), ahead: None }
    }

    fn ended(&mut self, said: from_worker::Body) {
        let from_worker::Body::Trained(trained) = said else { panic!("{said:?}") };
        (self.train.residual_file, self.train.optimizer_file) = (trained.residual_file, trained.optimizer_file);
        let base = self.train.base.as_mut().expect("it was set");
        (base.weights_file, base.keyframe_file) = (trained.weights_file, String::new());
        let keep = [&self.train.residual_file, &self.train.optimizer_file, &base.weights_file].map(Clone::clone);
        for name in self.disk.list("work").expect("it is memory") {
            let name = format!("work/{name}");
            if !keep.contains(&name) {
                self.disk.remove(&name).expect("it is memory");
            }
        }
    }
}
