//! Reproduces what the independent PyTorch reference computed: initial loss, and 20 steps' losses and gradient norms.

use burn::tensor::Device;
use nightjar_shared::{model_spec::ModelSpec, run_spec::InnerOptimizer};
use nightjar_train::{
    batches::Batch,
    optimizer::{AdamWConfig, OptimizerConfig},
    trainer::Trainer,
};
use std::{fs, path::PathBuf};

/// The folder beside the repository that holds the reference and its data; `None` where it is absent outside CI.
fn shared_folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if folder.join("reference/golden.json").exists() {
        return Some(folder);
    }
    let missing = format!(
        "{} is missing: the reference belongs beside the checkout (docs/testing.md)",
        folder.join("reference/golden.json").display()
    );
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

fn tokens(path: PathBuf) -> Vec<u32> {
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes.into_iter().map(u32::from).collect()
}

#[test]
fn the_references_twenty_steps() {
    let Some(folder) = shared_folder() else { return };
    let golden: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.join("reference/golden.json")).unwrap()).unwrap();
    let (train, valid) = (tokens(folder.join("data/train.txt")), tokens(folder.join("data/valid.txt")));
    let number = |key: &str| golden[key].as_u64().unwrap();
    let (seed, context, samples) = (number("seed"), number("ctx") as usize, number("batch") as usize);
    assert_eq!(train.len() as u64, number("train_bytes"));

    let spec = ModelSpec::tiny();
    let mut trainer =
        Trainer::new(&spec, &spec.draw_all(seed), AdamWConfig::default(), samples, &Device::flex()).unwrap();
    let heldout = Batch::spaced_windows(&valid, context, 96);
    let loss = |trainer: &Trainer| {
        let (nats, tokens) = trainer.evaluate(&heldout).unwrap();
        assert_eq!(tokens, 96 * 128);
        nats / tokens as f64
    };
    let (got, want) = (loss(&trainer), golden["valid_loss_init"].as_f64().unwrap());
    assert!((got - want).abs() < 1e-4, "initial held-out loss {got}, the reference has {want}");

    let rows = golden["loss_gradnorm"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for (step, row) in rows.iter().enumerate() {
        let batch = Batch::drawn(&train, context, seed, 0, step as u64, samples);
        let report = trainer.step(&batch, 1e-3).unwrap();
        let (loss, norm) = (row[0].as_f64().unwrap(), row[1].as_f64().unwrap());
        println!(
            "{step:2} loss {:.6} ({:+.1e}) norm {:.6} ({:+.1e})",
            report.loss,
            report.loss - loss,
            report.grad_norm,
            report.grad_norm / norm - 1.0
        );
        assert!((report.loss - loss).abs() < 1e-3, "step {step}: loss {}, the reference has {loss}", report.loss);
        assert!(
            (report.grad_norm / norm - 1.0).abs() < 0.01,
            "step {step}: norm {}, the reference has {norm}",
            report.grad_norm
        );
    }
    let (got, want) = (loss(&trainer), golden["valid_loss_after"].as_f64().unwrap());
    assert!((got - want).abs() < 1e-3, "held-out loss after 20 steps {got}, the reference has {want}");
}

/// The same model and batches, stepped by PyTorch's own Muon and AdamW (golden/muon.py).
#[test]
fn pytorchs_muon() {
    let Some(folder) = shared_folder() else { return };
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/muon.json")).unwrap();
    let train = tokens(folder.join("data/train.txt"));
    let [seed, context, samples] = ["seed", "context", "batch"].map(|key| golden[key].as_u64().unwrap());
    let spec = ModelSpec::tiny();
    let config = OptimizerConfig {
        optimizer: InnerOptimizer::Muon,
        momentum: 0.95,
        ..OptimizerConfig::from(AdamWConfig::default())
    };
    let mut trainer = Trainer::new(&spec, &spec.draw_all(seed), config, samples as usize, &Device::flex()).unwrap();
    let rows = |name: &str| golden[name].as_array().unwrap().clone();
    for (step, (exact, plain)) in rows("f32").iter().zip(rows("torch")).enumerate() {
        let batch = Batch::drawn(&train, context as usize, seed, 0, step as u64, samples as usize);
        let report = trainer.step(&batch, golden["lr"].as_f64().unwrap()).unwrap();
        let of = |row: &serde_json::Value| [row[0].as_f64().unwrap(), row[1].as_f64().unwrap()];
        let ([loss, norm], [rounded, _]) = (of(exact), of(&plain));
        println!("{step:2} loss {:.6} ({:+.1e}) norm {:.6}", report.loss, report.loss - loss, report.grad_norm);
        assert!((report.loss - loss).abs() < 1e-5, "step {step}: loss {}, in f32 it is {loss}", report.loss);
        assert!((report.grad_norm / norm - 1.0).abs() < 0.01, "step {step}: norm {}, not {norm}", report.grad_norm);
        // PyTorch's own iterates in bf16.
        assert!((report.loss - rounded).abs() < 2e-2, "step {step}: loss {}, PyTorch's is {rounded}", report.loss);
    }
}
