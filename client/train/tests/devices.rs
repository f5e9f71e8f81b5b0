//! The GPU path against the CPU path: Mesa's software driver stands in for a GPU.

use burn::tensor::Device;
use nightjar_shaders::{
    choice::{self, Choices, Op},
    kernel::substitute,
    runtime,
    table::KERNELS,
};
use nightjar_shared::{model_spec::ModelSpec, rng};
use nightjar_train::*;
use std::{
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Held by every test here: which kernels run is the whole process's choice, and a runner may have many tests in one.
fn choosing() -> MutexGuard<'static, ()> {
    static CHOOSING: Mutex<()> = Mutex::new(());
    CHOOSING.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        ..ModelSpec::tiny()
    }
}

/// The best adapter; `None` where there is none outside CI.
fn opened() -> Option<OpenDevice> {
    if adapters().is_empty() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no wgpu adapter: install mesa-vulkan-drivers and libvulkan1"
        );
        eprintln!("skipped: this machine has no wgpu adapter");
        return None;
    }
    // Nearly all of the time goes into compiling kernels, candidates for the same product among them (8 s); the
    // cache spares a later run the tuning.
    let cache = Some(env!("CARGO_TARGET_TMPDIR").into());
    Some(open_device(&DeviceSettings { choice: DeviceChoice::Wgpu(None), cache, ..DeviceSettings::default() }).unwrap())
}

/// The same if it has f16, as Mesa's software driver does under Vulkan.
fn opened_with_half() -> Option<OpenDevice> {
    let opened = opened().filter(|opened| opened.device.supports_dtype(burn::tensor::FloatDType::F16));
    if opened.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no f16: install mesa-vulkan-drivers");
        eprintln!("skipped: no f16");
    }
    opened
}

#[test]
fn wgpu_trains_as_flex_does() {
    let start = Instant::now();
    let Some(opened) = opened() else { return };
    let _choosing = choosing();
    for (tied, choices, recompute) in
        [(true, Choices::NONE, false), (false, Choices::all(), false), (true, Choices::all(), true)]
    {
        choice::set(choices);
        let spec = ModelSpec { tie_word_embeddings: tied, ..spec() };
        let w: Vec<f32> = spec
            .draw_all(3)
            .iter()
            .enumerate()
            .map(|(i, w)| w * 5.0 + 0.1 * rng::normal(9, 0, i as u64) as f32)
            .collect();
        let batch = Batch::new((0..2 * 17).map(|i| rng::below(5, 5, i, 32) as u32).collect(), 16).unwrap();
        let run = |device: &Device| {
            // beta1 = 0: the first moment is the gradient of the last step. A large epsilon, as otherwise the first
            // update is the gradient's sign, which rounding turns where the gradient is nearly 0.
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

/// Mixed precision learns what f32 learns: a text of few patterns, from the same start, to the same loss within noise.
#[test]
fn half_the_width_trains_to_the_same_loss() {
    let Some(opened) = opened_with_half() else { return };
    let _choosing = choosing();
    let spec = spec();
    let start = spec.draw_all(7);
    // Each token follows from the one before, but for one in eight.
    let batch = |step: u64| {
        let mut token = rng::below(11, step, 0, 32) as u32;
        let next = |i: u64| {
            let drawn = rng::below(12, step, i, 8 * 32) as u32;
            token = if drawn < 32 { drawn } else { (token * 5 + 3) % 32 };
            token
        };
        Batch::new((1..=4 * 17).map(next).collect(), 16).unwrap()
    };
    for choices in [Choices::NONE, Choices::all()] {
        choice::set(choices);
        let train = |precision: Precision| {
            let mut trainer = Trainer::new(&spec, &start, AdamWConfig::default(), 2, &opened.device).unwrap();
            trainer.set_precision(precision);
            let losses: Vec<f64> = (0..30).map(|step| trainer.step(&batch(step), 1e-2).unwrap().loss).collect();
            assert_eq!(trainer.precision(), precision, "no step had to be made in f32");
            // Adam hardly minds how large gradients are, but whoever goes on from these moments in f32 does.
            let moment = trainer.moments().unwrap().m.iter().map(|m| f64::from(*m).powi(2)).sum::<f64>().sqrt();
            (losses[0], losses[20..].iter().sum::<f64>() / 10.0, moment)
        };
        let (full, half) = (train(Precision::Full), train(Precision::Half));
        println!("{choices:?}: first and last losses and the moment in f32 {full:?}, in f16 {half:?}");
        assert!((full.0 - half.0).abs() < 5e-3, "the first loss differs");
        assert!(full.1 < 0.6 * full.0, "nothing was learnt");
        assert!((full.1 / half.1 - 1.0).abs() < 0.02, "the last losses differ: {} and {}", full.1, half.1);
        assert!((full.2 / half.2 - 1.0).abs() < 0.05, "the moments differ: {} and {}", full.2, half.2);
    }
}

/// A gradient that leaves f16's range is taken again with a smaller scale, and nothing else comes of it.
#[test]
fn a_gradient_too_large_for_half_the_width_is_taken_again() {
    let Some(opened) = opened_with_half() else { return };
    let _choosing = choosing();
    let spec = spec();
    let mut steep = spec.draw_all(7);
    // What comes back through the head is as large as its weights.
    let head = spec.tensors().into_iter().last().unwrap();
    let head = if spec.tie_word_embeddings { spec.tensors().remove(0) } else { head };
    steep[head.range()].iter_mut().for_each(|w| *w *= 5000.0);
    let batch = Batch::new((0..2 * 17).map(|i| rng::below(5, 5, i, 32) as u32).collect(), 16).unwrap();
    let step = |precision: Precision| {
        let mut trainer = Trainer::new(&spec, &steep, AdamWConfig::default(), 2, &opened.device).unwrap();
        trainer.set_precision(precision);
        let before = trainer.loss_scale();
        let report = trainer.step(&batch, 1e-3).unwrap();
        (report, trainer.precision(), before / trainer.loss_scale())
    };
    for choices in [Choices::NONE, Choices::all()] {
        choice::set(choices);
        let (full, half) = (step(Precision::Full), step(Precision::Half));
        println!("in f32 {full:?}, in f16 {half:?}");
        assert!(half.1 == Precision::Half && half.2 >= 2.0, "{half:?}");
        assert!(
            (half.0.loss / full.0.loss - 1.0).abs() < 0.01 && (half.0.grad_norm / full.0.grad_norm - 1.0).abs() < 0.02
        );
    }
}

/// On the processor half the width is Burn's own, should somebody ask for it.
#[test]
fn the_processor_trains_in_half_the_width_too() {
    let spec = spec();
    let flat = spec.draw_all(7);
    let batch = Batch::new((0..2 * 17).map(|i| rng::below(5, 5, i, 32) as u32).collect(), 16).unwrap();
    let step = |precision: Precision| {
        let mut trainer = Trainer::new(&spec, &flat, AdamWConfig::default(), 2, &Device::flex()).unwrap();
        trainer.set_precision(precision);
        (trainer.step(&batch, 1e-3).unwrap(), trainer.precision())
    };
    let (full, half) = (step(Precision::Full).0, step(Precision::Half));
    assert_eq!(half.1, Precision::Half);
    let differs = |half: f64, full: f64| (half / full - 1.0).abs();
    assert!(
        differs(half.0.loss, full.loss) < 0.01 && differs(half.0.grad_norm, full.grad_norm) < 0.02,
        "{half:?}, {full:?}"
    );
    assert_ne!(half.0.loss, full.loss);
}

/// Weights whose products leave f16's range train all the same: the step is taken in f32, and so are later ones.
#[test]
fn what_half_the_width_cannot_hold_is_trained_in_full() {
    let Some(opened) = opened_with_half() else { return };
    let _choosing = choosing();
    let spec = spec();
    let mut huge = spec.draw_all(7);
    // The products of one matrix reach a million; what follows is normed, so that f32 thinks nothing of it.
    let up = spec.tensors().into_iter().find(|t| t.name.contains("up_proj")).unwrap();
    huge[up.range()].iter_mut().for_each(|w| *w *= 1e8);
    let down = spec.tensors().into_iter().find(|t| t.name.contains("down_proj")).unwrap();
    huge[down.range()].iter_mut().for_each(|w| *w *= 1e-8);
    let batch = Batch::new((0..2 * 17).map(|i| rng::below(5, 5, i, 32) as u32).collect(), 16).unwrap();
    let step = |precision: Precision| {
        let mut trainer = Trainer::new(&spec, &huge, AdamWConfig::default(), 2, &opened.device).unwrap();
        trainer.set_precision(precision);
        (trainer.step(&batch, 1e-3).unwrap(), trainer.precision())
    };
    let (full, half) = (step(Precision::Full), step(Precision::Half));
    assert_eq!((half.1, half.0), (Precision::Full, full.0));
}

/// What a portion is reckoned to take is about what the runtime comes to hold, sample by sample, in f32 and with a
/// context of one block: it neither takes an owner's GPU by surprise nor leaves half of what it may have unused.
#[test]
fn a_portion_takes_about_what_is_reckoned() {
    let Some(opened) = opened() else { return };
    let _choosing = choosing();
    let spec = ModelSpec {
        vocab_size: 64,
        hidden_size: 128,
        intermediate_size: 256,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 128,
        ..spec()
    };
    let start = spec.draw_all(7);
    let held = |portion: Portion| {
        opened.device.memory_cleanup();
        let drawn = |i| rng::below(5, 5, i, 64) as u32;
        let batch = Batch::new((0..portion.micro_batch as u64 * 129).map(drawn).collect(), 128).unwrap();
        let mut trainer = Trainer::new(&spec, &start, AdamWConfig::default(), 1, &opened.device).unwrap();
        trainer.set_portion(portion);
        trainer.step(&batch, 1e-3).unwrap();
        runtime::held(&opened.device).unwrap()
    };
    for (choices, recompute) in [(Choices::all(), false), (Choices::all(), true), (Choices::NONE, false)] {
        choice::set(choices);
        let [few, many] = [4, 24].map(|micro_batch| Portion { micro_batch, recompute });
        let reckoned = [few, many].map(|portion| portion.bytes(&spec, 128, &opened.device));
        let took = [few, many].map(held);
        let ratio = (took[1] - took[0]) as f64 / (reckoned[1] - reckoned[0]) as f64;
        println!("{choices:?}, recompute {recompute}: {took:?} of {reckoned:?}, {ratio:.2} of a sample's");
        assert!((0.7..1.3).contains(&ratio), "{choices:?}, recompute {recompute}: {took:?} of {reckoned:?} reckoned");
    }
}

/// In a process of its own: a device is opened once, and here it is refused.
#[test]
fn a_device_that_computes_wrongly_is_refused() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--ignored", "--exact", "a_wrong_device", "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "started by a_device_that_computes_wrongly_is_refused"]
fn a_wrong_device() {
    if adapters().is_empty() {
        return;
    }
    choice::set(Choices::all());
    let right = KERNELS.iter().find(|kernel| kernel.name == "swiglu").unwrap().source;
    let wrong = right.replace(" * up);", ");");
    assert_ne!(wrong, right);
    substitute("swiglu", Some(wrong.into()));
    let settings = DeviceSettings { choice: DeviceChoice::Wgpu(None), ..DeviceSettings::default() };
    let refusal = open_device(&settings).unwrap_err();
    assert!(matches!(refusal, DeviceError::Wrong { op: Op::Swiglu, .. }), "{refusal}");
    assert!(
        refusal.to_string().contains("computes wrongly and is not used: its result of swiglu differs"),
        "{refusal}"
    );
}
