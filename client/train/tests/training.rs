//! Training on the processor: accumulation, other shapes of model, gradients against differences, and what is refused.

use burn::tensor::Device;
use nightjar_shared::{model_spec::ModelSpec, rng};
use nightjar_train::*;

/// A model of a few thousand parameters.
fn little() -> ModelSpec {
    ModelSpec {
        vocab_size: 32,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        max_position_embeddings: 20,
        tie_word_embeddings: false,
        ..ModelSpec::tiny()
    }
}

/// Weights large enough that every part of the model matters; norms are not 1.
fn weights(spec: &ModelSpec) -> Vec<f32> {
    let drawn = spec.draw_all(3);
    drawn.iter().enumerate().map(|(i, w)| w * 3.0 + 0.05 * rng::normal(9, 0, i as u64) as f32).collect()
}

fn batch(spec: &ModelSpec, samples: usize, context: usize) -> Batch {
    let tokens =
        (0..samples * (context + 1)).map(|i| rng::below(5, 5, i as u64, u64::from(spec.vocab_size)) as u32).collect();
    Batch::new(tokens, context).unwrap()
}

/// One step whose only effect on the weights is `-lr · gradient`, up to rounding: no clipping, no decay, no momentum,
/// and a huge epsilon in place of the second moment.
fn gradient(
    spec: &ModelSpec,
    weights: &[f32],
    batch: &Batch,
    micro_batch: usize,
    device: &Device,
) -> (StepReport, Vec<f32>) {
    let plain = AdamWConfig { beta1: 0.0, beta2: 0.0, epsilon: 1e6, weight_decay: 0.0, clip_norm: 1e9 };
    let mut trainer = Trainer::new(spec, weights, plain, micro_batch, device).unwrap();
    let report = trainer.step(batch, 0.0).unwrap();
    // With beta1 = 0 the first moment is the gradient itself.
    (report, trainer.moments().unwrap().m)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(x, y)| f64::from(*x) - f64::from(*y))) / norm(&mut b.iter().map(|x| f64::from(*x)))
}

#[test]
fn gradients_agree_with_differences_in_every_tensor() {
    for (kv, tied) in [(2, false), (6, true), (1, true), (3, false)] {
        let spec = ModelSpec { num_key_value_heads: kv, tie_word_embeddings: tied, ..little() };
        let (w, batch) = (weights(&spec), batch(&spec, 3, 17));
        let (report, g) = gradient(&spec, &w, &batch, 3, &Device::flex());
        assert!((g.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() / report.grad_norm - 1.0).abs() < 1e-4);
        let loss = |w: &[f32]| {
            let (nats, tokens) = evaluate(&Model::new(&spec, w, &Device::flex()).unwrap(), &batch, 3).unwrap();
            nats / tokens as f64
        };
        for t in spec.tensors() {
            // Along a random direction within the tensor, so that its whole gradient is in one number.
            let step = 3e-4;
            let along: Vec<f32> = t.range().map(|i| rng::normal(11, 1, i as u64) as f32).collect();
            let moved = |sign: f32| {
                let mut w = w.clone();
                w[t.range()].iter_mut().zip(&along).for_each(|(w, a)| *w += sign * step * a);
                loss(&w)
            };
            // The fourth-order difference: what is left is the third derivative's error, and f32's rounding.
            let want = (8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * f64::from(step));
            let got: f64 = g[t.range()].iter().zip(&along).map(|(g, a)| f64::from(g * a)).sum();
            assert!(
                (got - want).abs() < 3e-3 * want.abs().max(0.4),
                "{} with {kv} kv heads, tied {tied}: {got} against {want}",
                t.name
            );
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_whole_batch() {
    let spec = little();
    let (w, batch) = (weights(&spec), batch(&spec, 7, 20));
    let (whole_report, whole) = gradient(&spec, &w, &batch, 7, &Device::flex());
    for micro_batch in [1, 2, 3, 100] {
        let (report, g) = gradient(&spec, &w, &batch, micro_batch, &Device::flex());
        assert!(distance(&g, &whole) < 1e-5, "{micro_batch}: {}", distance(&g, &whole));
        assert!((report.loss - whole_report.loss).abs() < 1e-6);
        assert_eq!(report.tokens, 140);
    }
}

#[test]
fn layers_computed_anew_give_the_same_gradient() {
    let spec = little();
    let (w, batch) = (weights(&spec), batch(&spec, 5, 20));
    let run = |recompute: bool| {
        let mut trainer = Trainer::new(&spec, &w, AdamWConfig::default(), 1, &Device::flex()).unwrap();
        trainer.set_portion(Portion { micro_batch: 2, recompute });
        (trainer.step(&batch, 1e-2).unwrap(), trainer.moments().unwrap(), trainer.weights().unwrap())
    };
    assert_eq!(run(true), run(false), "not the same bits");
}

#[test]
fn a_portion_fits_the_memory() {
    let spec = ModelSpec { max_position_embeddings: 512, ..ModelSpec::tiny() };
    let fitting = |memory: u64| Portion::fitting(&spec, 512, 16, memory, &Device::flex());
    assert_eq!(fitting(u64::MAX), Portion { micro_batch: 16, recompute: false });
    assert_eq!(fitting(0), Portion { micro_batch: 1, recompute: true });
    // With less memory never more at once; layers are computed anew only below, and where that makes more fit.
    let steps: Vec<Portion> = (20..34).map(|bits| fitting(1 << bits)).collect();
    assert!(steps.is_sorted_by_key(|p| p.micro_batch), "{steps:?}");
    assert!(steps.is_sorted_by_key(|p| !p.recompute), "{steps:?}");
    let middle = steps.iter().find(|p| !p.recompute).unwrap();
    assert!(middle.micro_batch * 512 >= 1024 && middle.micro_batch < 16, "{steps:?}");
    // A model whose logits alone would fill the memory: they count by the chunk.
    let wide = ModelSpec { vocab_size: 128_000, ..spec.clone() };
    assert!(!Portion::fitting(&wide, 512, 16, 1 << 30, &Device::flex()).recompute);
}

#[test]
fn a_token_is_predicted_from_earlier_ones_only() {
    let spec = little();
    let model = Model::new(&spec, &weights(&spec), &Device::flex()).unwrap();
    let mut tokens: Vec<u32> = (0..20).collect();
    let before = model.logits(&tokens, 20).unwrap();
    tokens[12] = 31;
    let after = model.logits(&tokens, 20).unwrap();
    let vocabulary = 32;
    assert_eq!(before[..12 * vocabulary], after[..12 * vocabulary]);
    assert_ne!(before[12 * vocabulary..13 * vocabulary], after[12 * vocabulary..13 * vocabulary]);
    let shorter = model.next_logits(&tokens[..15]).unwrap();
    let longer = &after[14 * vocabulary..15 * vocabulary];
    assert!(shorter.iter().zip(longer).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn training_lowers_the_loss_and_state_goes_on_where_it_was() {
    let spec = little();
    let (w, batch) = (weights(&spec), batch(&spec, 4, 20));
    let mut trainer = Trainer::new(&spec, &w, AdamWConfig::default(), 4, &Device::flex()).unwrap();
    let first = trainer.step(&batch, 1e-2).unwrap().loss;
    for _ in 0..20 {
        trainer.step(&batch, 1e-2).unwrap();
    }
    let (weights, moments) = (trainer.weights().unwrap(), trainer.moments().unwrap());
    assert_eq!(moments.t, 21);
    let last = trainer.step(&batch, 1e-2).unwrap();
    assert!(last.loss < first - 1.0, "{first} then {}", last.loss);

    let mut again = Trainer::new(&spec, &weights, AdamWConfig::default(), 4, &Device::flex()).unwrap();
    again.load_moments(&moments).unwrap();
    assert_eq!(again.step(&batch, 1e-2).unwrap(), last);
    assert_eq!(again.weights().unwrap(), trainer.weights().unwrap());
    assert_eq!(again.moments().unwrap(), trainer.moments().unwrap());
}

#[test]
fn what_is_not_finite_is_not_applied() {
    let spec = little();
    let mut w = weights(&spec);
    let batch = batch(&spec, 2, 20);
    let last_norm = spec.tensors().into_iter().find(|t| t.name == "model.norm.weight").unwrap();
    w[last_norm.offset] = f32::NAN;
    let mut trainer = Trainer::new(&spec, &w, AdamWConfig::default(), 2, &Device::flex()).unwrap();
    let refused = trainer.step(&batch, 1e-2);
    assert!(matches!(refused, Err(TrainError::NotFinite { .. })), "{refused:?}");
    let after = trainer.weights().unwrap();
    assert!(after.iter().zip(&w).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert_eq!(trainer.moments().unwrap().t, 0);
}

#[test]
fn a_stopped_step_is_not_applied() {
    let spec = little();
    let w = weights(&spec);
    let mut trainer = Trainer::new(&spec, &w, AdamWConfig::default(), 1, &Device::flex()).unwrap();
    let mut stop_at = |gate: usize| {
        let mut passed = vec![];
        // Nothing of it counts in the next.
        trainer.load_weights(&w).unwrap();
        let ended = trainer.step_while(&batch(&spec, 3, 20), 1e-2, |gate_at_hand| {
            passed.push(gate_at_hand);
            passed.len() <= gate
        });
        (ended, passed, trainer.weights().unwrap())
    };
    // Three micro-batches, each through two layers and back.
    for gate in 0..15 {
        let (ended, passed, weights) = stop_at(gate);
        assert!(matches!(ended, Err(TrainError::Stopped)), "at gate {gate}");
        assert_eq!((passed.len(), weights), (gate + 1, w.clone()));
    }
    let (ended, passed, weights) = stop_at(15);
    assert!(ended.is_ok() && weights != w);
    assert_eq!(passed.iter().filter(|gate| **gate == Gate::MicroBatch).count(), 3);
}

/// Also through a file, in another process: it is asked for no gate twice, and comes to the same bits.
#[test]
fn a_stopped_step_goes_on_where_it_was() {
    let spec = little();
    let (w, batch) = (weights(&spec), batch(&spec, 3, 20));
    let fresh = || Trainer::new(&spec, &w, AdamWConfig::default(), 1, &Device::flex()).unwrap();
    let mut whole = fresh();
    let report = whole.step(&batch, 1e-2).unwrap();
    let mut stopped = fresh();
    // Before the second of three micro-batches: one that is left off takes the sum along.
    let mut gates = 0;
    let ended = stopped.step_while(&batch, 1e-2, |_| {
        gates += 1;
        gates <= 5
    });
    assert!(matches!(ended, Err(TrainError::Stopped)));
    let begun = stopped.begun().unwrap().unwrap();
    assert_eq!((begun.samples, stopped.samples_begun()), (1, 1));
    let mut elsewhere = fresh();
    elsewhere.go_on_from(&batch, &begun).unwrap();
    for mut trainer in [stopped, elsewhere] {
        let mut gates = 0;
        let again = trainer.step_while(&batch, 1e-2, |_| {
            gates += 1;
            true
        });
        let again = again.unwrap();
        assert_eq!((gates, again), (10, report));
        assert_eq!(trainer.weights().unwrap(), whole.weights().unwrap());
        assert_eq!(trainer.samples_begun(), 0);
    }
    // Another batch has nothing of it.
    let mut other = fresh();
    other.go_on_from(&batch, &begun).unwrap();
    let next = Batch::new(batch.inputs()[..21].to_vec(), 20).unwrap();
    assert_eq!(other.step(&next, 1e-2).unwrap(), fresh().step(&next, 1e-2).unwrap());
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let spec = little();
    let w = weights(&spec);
    assert!(matches!(
        Model::new(&spec, &w[1..], &Device::flex()),
        Err(ModelError::Weights(WeightsError::WrongLength { .. }))
    ));
    let mut trainer = Trainer::new(&spec, &w, AdamWConfig::default(), 1, &Device::flex()).unwrap();
    let unknown = Batch::new(vec![32; 21], 20).unwrap();
    assert!(matches!(trainer.step(&unknown, 1e-2), Err(TrainError::Model(ModelError::UnknownToken { token: 32, .. }))));
    let long = Batch::new(vec![1; 22], 21).unwrap();
    assert!(matches!(trainer.step(&long, 1e-2), Err(TrainError::Model(ModelError::WrongContext { longest: 20, .. }))));
    assert!(matches!(trainer.step(&Batch::new(vec![], 20).unwrap(), 1e-2), Err(TrainError::EmptyBatch)));
}

#[test]
fn text_is_continued_reproducibly() {
    let spec = little();
    let model = Model::new(&spec, &weights(&spec), &Device::flex()).unwrap();
    let sampling = Sampling { temperature: 1.0, top_k: 0, seed: 4 };
    let continued = |count: usize, sampling: &Sampling, ends: &[u32]| {
        let mut text = vec![];
        generate(&model, &[1, 2, 3], count, sampling, ends, |token| -> Result<bool, ModelError> {
            text.push(token);
            Ok(text.len() < 40)
        })
        .unwrap();
        text
    };
    let text = continued(30, &sampling, &[]);
    assert_eq!(text.len(), 30);
    assert_eq!(text, continued(30, &sampling, &[]));
    assert_ne!(text, continued(30, &Sampling { seed: 5, ..sampling }, &[]));
    // It ends before a token that ends texts, and when it is told to.
    let at = text.iter().position(|token| *token == text[20]).unwrap();
    assert_eq!(continued(30, &sampling, &[text[20], 99]), text[..at]);
    assert_eq!(continued(50, &sampling, &[]).len(), 40);
}
