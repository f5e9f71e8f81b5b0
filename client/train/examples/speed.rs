//! Tokens a second of a training step: `speed [nano|tiny|small] [flex|wgpu] SAMPLES SECONDS THREADS CONTEXT`.

use burn::tensor::{Device, DeviceKind};
use nightjar_shared::model_spec::ModelSpec;
use nightjar_train::{batches::Batch, optimizer::AdamWConfig, trainer::Trainer};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or(default.into());
    let context: u32 = arg(5, "128").parse().unwrap();
    // A model of 98,624 parameters, for studies of many devices.
    let nano = ModelSpec {
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        ..ModelSpec::tiny()
    };
    let spec = match arg(0, "tiny").as_str() {
        "small" => ModelSpec::small(),
        "nano" => nano,
        _ => ModelSpec::tiny(),
    };
    let spec = ModelSpec { max_position_embeddings: context, ..spec };
    let device = if arg(1, "flex") == "wgpu" { Device::wgpu(DeviceKind::DefaultDevice) } else { Device::flex() };
    let samples: usize = arg(2, "16").parse().unwrap();
    let seconds: f64 = arg(3, "5").parse().unwrap();
    let threads: usize = arg(4, "2").parse().unwrap();
    // One thread: as the simulator's devices train, without a pool to hand work to.
    let _alone = (threads == 1).then(|| nightjar_train::device::compute_alone().unwrap());
    if threads > 1 {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    }
    let tokens: Vec<u32> = (0..1 << 20).map(|i: u64| (nightjar_shared::rng::draw(1, 2, i) % 256) as u32).collect();
    let mut trainer = Trainer::new(&spec, &spec.draw_all(1), AdamWConfig::default(), samples, &device).unwrap();
    let mut step = 0;
    let mut one = || {
        step += 1;
        trainer.step(&Batch::drawn(&tokens, context as usize, 1, 0, step, samples), 1e-3).unwrap()
    };
    for _ in 0..3 {
        one();
    }
    let mut rates = vec![];
    for _ in 0..3 {
        let (start, mut n) = (Instant::now(), 0);
        while start.elapsed().as_secs_f64() < seconds / 3.0 {
            n += one().tokens;
        }
        rates.push(n as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    println!("{samples} x {context}, {threads} threads: {:.0} {:.0} {:.0} tokens/s", rates[0], rates[1], rates[2]);
}
