//! How fast deltas are merged, beside a plain copy of the same floats in the same run, and whether memory grows with how
//! many of them come: `cargo run --release -p nightjar-coordinator --example merge`. GB/s are of dense f32 covered.

use nightjar_coordinator::engine::{event::MergeOrder, merge::Merger};
use nightjar_shared::{
    delta,
    ids::{BlobHash, LeaseId, Version},
    model_spec::ModelSpec,
    rng,
    run_spec::{Average, RunSpec},
};
use std::{fs, hint::black_box, time::Instant};

/// Deltas of a version.
const DELTAS: u64 = 20;

/// Of this process, in MiB; 0 where the system does not tell.
fn memory_mib() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse::<u64>().ok());
    (pages.unwrap_or(0) * 4096) >> 20
}

/// Seconds of the quickest of a few tries.
fn quickest(mut work: impl FnMut()) -> f64 {
    let tries = (0..DELTAS).map(|_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64()
    });
    tries.fold(f64::INFINITY, f64::min)
}

fn main() {
    // 16.9 M parameters in 6 layers.
    let model = ModelSpec {
        vocab_size: 8192,
        hidden_size: 448,
        intermediate_size: 1200,
        num_hidden_layers: 6,
        ..ModelSpec::tiny()
    };
    let n = model.parameters();
    // Normal draws are slow to make; a few thousand, again and again at odd places, do.
    let draws: Vec<f32> = (0..65_521).map(|i| 1e-4 * rng::normal(1, 0, i) as f32).collect();
    let gradient: Vec<f32> = (0..n).map(|i| draws[i % draws.len()]).collect();
    let mut target = vec![0f32; n];
    let gbs = |seconds: f64| 4.0 * n as f64 / seconds / 1e9;
    let copy = gbs(quickest(|| black_box(&mut target).copy_from_slice(black_box(&gradient))));
    println!("a plain copy: {copy:.2} GB/s");
    for average in [Average::Mean, Average::Rda] {
        let mut spec: RunSpec =
            serde_json::from_str(r#"{"name": "merge", "token_budget": 1000000000}"#).expect("a run spec");
        spec.model = model.clone();
        spec.merge.average = Some(average);
        let bytes = delta::encode(&model, &spec.delta, &gradient, &mut vec![0.0; n]);
        let mut merger = Merger::start(spec, &vec![0.0; n]);
        merger.publish(Version(0), true).expect("a first version");
        let mut seq = 0;
        let mut add = || {
            seq += 1;
            let order = MergeOrder { seq, lease: LeaseId(seq), delta: BlobHash::of(&bytes), tokens: 1000, weight: 1.0 };
            merger.add(&order, black_box(&bytes)).expect("a sound delta");
        };
        add();
        let before = memory_mib();
        let speed = gbs(quickest(&mut add));
        let grown = memory_mib().saturating_sub(before);
        println!(
            "{average:?}: {speed:.2} GB/s, {:.0} % of the copy; {grown} MiB more after {DELTAS} deltas",
            100.0 * speed / copy
        );
    }
}
