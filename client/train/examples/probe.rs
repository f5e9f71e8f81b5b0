#![allow(missing_docs)]
use nightjar_shaders::memory;
use nightjar_shared::model_spec::ModelSpec;
use nightjar_train::*;
fn main() {
    let args: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let [hidden, inter, layers, heads, ctx, vocab, recompute] = args[..7].try_into().unwrap();
    let spec = ModelSpec { vocab_size: vocab as u32, hidden_size: hidden as u32, intermediate_size: inter as u32, num_hidden_layers: layers as u32, num_attention_heads: heads as u32, num_key_value_heads: heads as u32, max_position_embeddings: ctx as u32, ..ModelSpec::tiny() };
    let opened = open_device(&DeviceSettings { choice: "wgpu:0".parse().unwrap(), threads: 0, cache: Some("/tmp/probecache".into()) }).unwrap();
    let flat: Vec<f32> = (0..spec.parameters()).map(|i| ((i as f32 * 0.77).sin()) * 0.03).collect();
    let mut trainer = Trainer::new(&spec, &flat, AdamWConfig::default(), 64, &opened.device).unwrap();
    trainer.set_precision(opened.precision);
    println!("parameters {} training_bytes {} held {:?} precision {:?}", spec.parameters(), spec.training_bytes(), memory::held(&opened.device), opened.precision);
    let tokens: Vec<u32> = (0..1 << 18).map(|i| nightjar_shared::rng::below(1, 2, i, vocab as u64) as u32).collect();
    for &samples in &args[7..] {
        let portion = Portion { micro_batch: samples, recompute: recompute != 0 };
        trainer.set_portion(portion);
        for n in 1..=5 {
            let t = std::time::Instant::now();
            let report = trainer.step(&Batch::drawn(&tokens, ctx, 1, 0, n, samples), 1e-2); let report = match report { Ok(r) => r, Err(e) => { println!("samples {samples}: ERROR {:.100}", e.to_string()); continue } };
            println!("loss {} samples {samples} reckoned {:.1} MB + training {:.1}: held {:.1} MB  ({:.1} s)", report.loss, portion.bytes(&spec, ctx, &opened.device) as f64 / 1e6, spec.training_bytes() as f64 / 1e6, memory::held(&opened.device).unwrap() as f64 / 1e6, t.elapsed().as_secs_f64());
        }
    }
}
