//! Three rounds of DiLoCo (arXiv 2311.08105) with the shipping trainer, codecs and merger, beside what the independent
//! PyTorch reference computed: two devices, four inner steps a round, outer rate 0.7, momentum 0.9.

use burn::tensor::Device;
use nightjar_coordinator::engine::{
    event::MergeOrder,
    merge::{Merger, nesterov::Nesterov},
};
use nightjar_shared::{
    delta::{self, CodecId},
    ids::{BlobHash, LeaseId},
    run_spec::{Average, DeltaSpec, MergeRule, MergeSpec, RunSpec},
};
use nightjar_train::{batches::Batch, optimizer::AdamWConfig, trainer::Trainer};
use serde_json::Value;
use std::{fs, path::PathBuf};

const DEVICES: u64 = 2;
const STEPS: u64 = 4;
const ROUNDS: u64 = 3;
/// The reference's norms are summed in f32: the start's, 37.3738, reads 37.3728.
const NORM_OFF: f64 = 3e-3;

/// The folder beside the repository that holds the reference and its data; `None` where it is absent outside CI.
fn shared_folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    if folder.join("reference/golden.json").exists() {
        return Some(folder);
    }
    let missing =
        format!("{} is missing: the reference belongs beside the checkout (docs/testing.md)", folder.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

/// What both sides are given.
struct Lab {
    spec: RunSpec,
    train: Vec<u32>,
    heldout: Batch,
    /// The reference's rounds; the first is the start.
    rounds: Vec<Value>,
}

impl Lab {
    fn open(kind: &str, delta: DeltaSpec) -> Option<Self> {
        let folder = shared_folder()?;
        let golden: Value =
            serde_json::from_str(&fs::read_to_string(folder.join("reference/golden.json")).unwrap()).unwrap();
        let tokens = |name: &str| -> Vec<u32> {
            fs::read(folder.join("data").join(name)).unwrap().into_iter().map(u32::from).collect()
        };
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "reference", "token_budget": 12288}"#).unwrap();
        assert_eq!(golden["batch"], u64::from(spec.inner.batch_samples));
        assert_eq!(spec.token_budget, ROUNDS * DEVICES * STEPS * spec.tokens_per_step());
        (spec.seed, spec.delta) = (golden["seed"].as_u64().unwrap(), delta);
        spec.merge = MergeSpec {
            rule: MergeRule::Nesterov { momentum: 0.9 },
            average: Some(Average::Mean),
            quorum: Some(2),
            learning_rate: 0.7,
            ..MergeSpec::default()
        };
        // Three rounds are too few for what coarser updates leave to later ones.
        spec.publish.codec = CodecId::Blocks8;
        let context = spec.tokens_per_sample() as usize;
        let heldout = Batch::spaced_windows(&tokens("valid.txt"), context, 96);
        let rounds = golden["diloco"][kind]["rounds"].as_array().unwrap().clone();
        assert_eq!(rounds.len() as u64, ROUNDS + 1);
        Some(Lab { spec, train: tokens("train.txt"), heldout, rounds })
    }

    /// Trains all rounds; `merge` makes the next weights of a round's deltas. Compares sum, norm and held-out loss of
    /// each round's weights with the reference's, to within the tolerances given.
    fn compare(
        &self,
        start: Vec<f32>,
        [sum_off, norm_off, loss_off]: [f64; 3],
        mut merge: impl FnMut(&[Vec<u8>]) -> Vec<f32>,
    ) {
        let (spec, inner) = (&self.spec, &self.spec.inner);
        let device = Device::flex();
        let (samples, context) = (inner.batch_samples as usize, spec.tokens_per_sample() as usize);
        let new = || Trainer::new(&spec.model, &start, AdamWConfig::default(), samples, &device).unwrap();
        let mut trainers: Vec<Trainer> = (0..DEVICES).map(|_| new()).collect();
        let mut residuals = vec![vec![0.0; spec.model.parameters()]; DEVICES as usize];
        let mut theta = start.clone();
        for round in 0..=ROUNDS {
            trainers[0].load_weights(&theta).unwrap();
            let (nats, tokens) = trainers[0].evaluate(&self.heldout).unwrap();
            let squares = theta.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let got = [theta.iter().map(|v| f64::from(*v)).sum::<f64>(), squares.sqrt(), nats / tokens as f64];
            let want = ["sum", "norm", "valid"].map(|key| self.rounds[round as usize][key].as_f64().unwrap());
            println!("round {round}: {got:.5?}, the reference has {want:.5?}");
            for ((got, want), off) in got.iter().zip(want).zip([sum_off, norm_off, loss_off]) {
                assert!((got - want).abs() < off, "round {round}: {got}, the reference has {want}");
            }
            if round == ROUNDS {
                return;
            }
            let before = round * DEVICES * STEPS * spec.tokens_per_step();
            let mut deltas = vec![];
            for (worker, (trainer, residual)) in trainers.iter_mut().zip(&mut residuals).enumerate() {
                trainer.load_weights(&theta).unwrap();
                for step in 0..STEPS {
                    let tokens = before + step * DEVICES * spec.tokens_per_step();
                    let rate = inner.learning_rate_at(tokens as f64 / spec.token_budget as f64);
                    let at = round * STEPS + step;
                    let batch = Batch::drawn(&self.train, context, spec.seed, worker as u64, at, samples);
                    trainer.step(&batch, rate).unwrap();
                }
                let trained = trainer.weights().unwrap();
                let change: Vec<f32> = theta.iter().zip(&trained).map(|(from, to)| from - to).collect();
                deltas.push(delta::encode(&spec.model, &spec.delta, &change, residual));
            }
            theta = merge(&deltas);
        }
    }

    fn start(&self) -> Vec<f32> {
        self.spec.model.draw_all(self.spec.seed)
    }

    /// The outer step alone, on weights in f32 as the reference has them.
    fn compare_rule(&self, tolerances: [f64; 3]) {
        let model = &self.spec.model;
        let mut theta = self.start();
        let mut outer = Nesterov::new(0.9, theta.len());
        self.compare(theta.clone(), tolerances, |deltas| {
            let (mut mean, equal) = (vec![0.0; theta.len()], vec![1.0 / DEVICES as f32; model.tensors().len()]);
            for bytes in deltas {
                delta::add_scaled(model, bytes, &equal, &mut mean).unwrap();
            }
            outer.step(0.7, &mean, &mut theta);
            theta.clone()
        });
    }

    /// The merger, whose weights are whole numbers of steps that start in bf16.
    fn compare_merger(&self, tolerances: [f64; 3]) {
        let mut merger = Merger::start(self.spec.clone(), &self.start());
        merger.publish(merger.weights().version, true).unwrap();
        let tokens = STEPS * self.spec.tokens_per_step();
        self.compare(merger.weights().flat(), tolerances, |deltas| {
            for bytes in deltas {
                let seq = merger.last_seq() + 1;
                let order = MergeOrder { seq, lease: LeaseId(seq), delta: BlobHash::of(bytes), tokens, weight: 1.0 };
                merger.add(&order, bytes).unwrap();
            }
            merger.publish(merger.weights().version.next(), false).unwrap();
            merger.weights().flat()
        });
    }
}

fn delta(codec: CodecId) -> DeltaSpec {
    DeltaSpec { codec, feedback: 0.0, ..DeltaSpec::default() }
}

#[test]
fn rounds_of_the_reference_in_f32() {
    let Some(lab) = Lab::open("fp32", delta(CodecId::F32)) else { return };
    lab.compare_rule([0.02, NORM_OFF, 3e-4]);
}

#[test]
fn rounds_of_the_reference_in_f32_through_the_merger() {
    let Some(lab) = Lab::open("fp32", delta(CodecId::F32)) else { return };
    lab.compare_merger([0.2, 2.0 * NORM_OFF, 1e-3]);
}

#[test]
fn rounds_of_the_reference_in_8_bits() {
    let Some(lab) = Lab::open("int8", delta(CodecId::Blocks8)) else { return };
    lab.compare_rule([0.1, NORM_OFF, 1e-3]);
}

/// The reference cuts the flat vector into chunks, we cut tensors, and our magnitudes are 8-bit logarithms: near, not
/// equal.
#[test]
fn rounds_of_the_reference_in_sparse_2_bits() {
    let sparse = DeltaSpec { codec: CodecId::Sparse2, k: 128, feedback: 1.0, ..DeltaSpec::default() };
    let Some(lab) = Lab::open("topk2", sparse) else { return };
    lab.compare_rule([5.0, 0.03, 0.03]);
}
