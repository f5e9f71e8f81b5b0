//! The GPU path against the CPU path: Mesa's software driver stands in for a GPU.

use burn::tensor::Device;
use nightjar_shaders::tuning::{self, Choices};
use nightjar_shared::{model_spec::ModelSpec, rng};
use nightjar_train::*;
use std::time::Instant;

/// Sizes are alike on purpose: each distinct product is tuned and compiled anew.
fn spec() -> ModelSpec {
    ModelSpec {
        vocab_size: 32,
        hidden_size: 32,
        intermediate_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        max_position_embeddings: 16,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
    }
}

#[test]
fn wgpu_trains_as_flex_does() {
    if adapters().is_empty() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no wgpu adapter: install mesa-vulkan-drivers and libvulkan1");
        eprintln!("skipped: this machine has no wgpu adapter");
        return;
    }
    let start = Instant::now();
    // Nearly all of the time goes into compiling kernels, candidates for the same product among them (8 s); the
    // cache spares a later run the tuning.
    let opened = open_device(&DeviceSettings {
        choice: DeviceChoice::Wgpu(None),
        threads: 0,
        cache: Some(env!("CARGO_TARGET_TMPDIR").into()),
    })
    .unwrap();
    for (tied, choices, recompute) in [(true, Choices::NONE, false), (false, Choices::all(), false), (true, Choices::all(), true)]
    {
        tuning::set(choices);
        let spec = ModelSpec { tie_word_embeddings: tied, ..spec() };
        let w: Vec<f32> =
            spec.draw_all(3).iter().enumerate().map(|(i, w)| w * 5.0 + 0.1 * rng::normal(9, 0, i as u64) as f32).collect();
        let batch = Batch::new((0..2 * 17).map(|i| rng::below(5, 5, i, 32) as u32).collect(), 16).unwrap();
        let run = |device: &Device| {
            // beta1 = 0: the first moment is the gradient of the last step. A large epsilon, as otherwise the first update
            // is the gradient's sign, which rounding turns where the gradient is nearly 0.
            let config = AdamWConfig { beta1: 0.0, epsilon: 1e-3, ..Default::default() };
            let mut trainer = Trainer::new(&spec, &w, config, 3, device).unwrap();
            trainer.set_portion(Portion { micro_batch: 3, recompute });
            let steps = [trainer.step(&batch, 1e-2).unwrap(), trainer.step(&batch, 1e-2).unwrap()];
            (steps, trainer.moments().unwrap().m, trainer.evaluate(&batch).unwrap().0)
        };
        let (gpu, cpu) = (run(&opened.device), run(&Device::flex()));
        println!("tied {tied}, {choices:?}, recompute {recompute}");
        println!("{} against flex after {:.1} s: {:?} {:?}", opened.name, start.elapsed().as_secs_f64(), gpu.0, cpu.0);
        for (g, c) in gpu.0.iter().zip(&cpu.0) {
            assert!((g.loss - c.loss).abs() < 1e-4, "{g:?} {c:?}");
            assert!((g.grad_norm / c.grad_norm - 1.0).abs() < 1e-3, "{g:?} {c:?}");
        }
        for t in spec.tensors() {
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let error = norm(&mut t.range().map(|i| gpu.1[i] - cpu.1[i])) / norm(&mut t.range().map(|i| cpu.1[i]));
            assert!(error < 2e-3, "{}: gradients differ by {error:e}", t.name);
        }
        assert!((gpu.2 / cpu.2 - 1.0).abs() < 1e-4);
    }
}
