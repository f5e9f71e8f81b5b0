//! Softmax cross-entropy: the twin is [`crate::cpu::cross_entropy`].

use super::host::{Target, tensor};
use crate::cpu;
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

/// Each row's loss in nats (`[n]`) and, if `scale` is given, `scale` times its gradient in the logits (`[n, vocabulary]`).
///
/// Every target must be below the vocabulary's size.
pub fn cross_entropy(logits: Tensor<2>, targets: &[u32], scale: Option<f32>) -> (Tensor<1>, Option<Tensor<2>>) {
    let [n, vocabulary] = logits.dims();
    let device = logits.device();
    if super::is_host(&device) {
        let mut logits = Target::of(logits).expect("is_host said so");
        let mut nats = vec![0.0; n];
        cpu::cross_entropy::forward(logits.slice(), targets, scale, &mut nats);
        return (tensor(nats, [n]), scale.map(|_| logits.tensor()));
    }
    let index: Vec<i32> = targets.iter().map(|t| *t as i32).collect();
    let index = Tensor::<2, Int>::from_data(TensorData::new(index, [n, 1]), &device);
    let log_p = log_softmax(logits, 1);
    let nats = log_p.clone().gather(1, index.clone()).neg().reshape([n]);
    let gradient = scale.map(|scale| {
        let columns = Tensor::<1, Int>::arange(0..vocabulary as i64, &device).reshape([1, vocabulary]);
        let hot = index.expand([n, vocabulary]).equal(columns.expand([n, vocabulary])).float();
        (log_p.exp() - hot).mul_scalar(scale)
    });
    (nats, gradient)
}
