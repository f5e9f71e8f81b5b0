//! The trial that a page's GPU answers: its answer is this trainer's.

use burn::tensor::Device;
use nightjar_train::{AdamWConfig, Trainer};
use nightjar_work::trial;

#[test]
fn the_trials_answer_is_the_native_trainers() {
    let spec = trial::spec();
    let config = AdamWConfig::default();
    let mut trainer = Trainer::new(&spec, &trial::weights(), config, trial::AT_ONCE, &Device::flex()).unwrap();
    let step = |_| {
        let report = trainer.step(&trial::batch(), trial::RATE).unwrap();
        [report.loss, report.grad_norm]
    };
    let steps: Vec<[f64; 2]> = trial::ANSWER.map(step).to_vec();
    assert_eq!(trial::mistake(&steps), None);
}
