//! How fast deltas are encoded, and decoded and accumulated, on one core, beside a plain copy of the same floats:
//! `cargo bench --manifest-path shared/benches/Cargo.toml`. GiB/s are of dense f32 covered, whatever the delta's
//! length.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nightjar_shared::{
    delta::{self, CodecId},
    model_spec::ModelSpec,
    rng,
    run_spec::DeltaSpec,
};
use std::hint::black_box;

/// 16.9 M parameters in 6 layers.
fn model() -> ModelSpec {
    ModelSpec { vocab_size: 8192, hidden_size: 448, intermediate_size: 1200, num_hidden_layers: 6, ..ModelSpec::tiny() }
}

/// Normal draws are slow to make and would be most of the run's time; a few thousand, again and again at odd places,
/// do.
fn gradient(n: usize) -> Vec<f32> {
    let draws: Vec<f32> = (0..65_521).map(|i| 1e-3 * rng::normal(1, 0, i) as f32).collect();
    (0..n).map(|i| draws[i % draws.len()]).collect()
}

fn codecs() -> Vec<(String, DeltaSpec)> {
    let sparse = [16, 64, 256].map(|k| (format!("sparse2 k={k}"), CodecId::Sparse2, k));
    let dense = [CodecId::Blocks8, CodecId::Blocks4, CodecId::Blocks2, CodecId::F32].map(|c| (format!("{c:?}"), c, 64));
    let spec = |(name, codec, k)| (name, DeltaSpec { codec, k, ..DeltaSpec::default() });
    sparse.into_iter().chain(dense).map(spec).collect()
}

fn codec(c: &mut Criterion) {
    let model = model();
    let n = model.parameters();
    let gradient = gradient(n);
    let mut target = vec![0f32; n];
    let mut group = c.benchmark_group("delta");
    group.sample_size(20).throughput(Throughput::Bytes(4 * n as u64));
    group.bench_function("copy", |b| b.iter(|| black_box(&mut target).copy_from_slice(black_box(&gradient))));
    for (name, spec) in codecs() {
        let mut residual = vec![0f32; n];
        // The first delta has no residual yet; later ones are what a device does.
        let bytes = delta::encode(&model, &spec, &gradient, &mut residual);
        println!("{name}: {:.4} bits a parameter", 8.0 * bytes.len() as f64 / n as f64);
        group.bench_function(BenchmarkId::new("encode", &name), |b| {
            b.iter(|| delta::encode(&model, &spec, black_box(&gradient), &mut residual))
        });
        let quarter = vec![0.25; model.tensors().len()];
        group.bench_function(BenchmarkId::new("add_scaled", &name), |b| {
            b.iter(|| delta::add_scaled(&model, black_box(&bytes), &quarter, &mut target).unwrap())
        });
        group.bench_function(BenchmarkId::new("measure", &name), |b| {
            b.iter(|| delta::measure(&model, black_box(&bytes)).unwrap())
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
