//! The head's projection and softmax cross-entropy in one, a chunk of tokens at a time: the twin of what is done to a
//! chunk's logits is [`crate::cpu::cross_entropy`], the kernel `cross_entropy.wgsl`.
//!
//! Logits are tokens × vocabulary: for a micro-batch of 8192 tokens and a vocabulary of 32k they are 1 GiB, and single
//! operations hold them three times over (logits, logarithms, gradient). Here a chunk of tokens makes the whole way at
//! once: logits by a matrix product, loss and gradient in their place, and two more products that add to the gradients
//! of the tokens and of the head. What is held is chunk × vocabulary, however many tokens there are, and nothing of it
//! is kept for the backward pass: the gradient is made with the loss, since its scale is known beforehand.
//! On a large vocabulary the products dominate, and those stay Burn's, tuned for the device; the kernel takes the row
//! passes between them, which single operations make six of.

use super::{
    embedding::assert_are_tokens,
    host::{Target, is_host, is_twins, tensor},
    linear::{linear, linear_backward, linear_backward_weight},
};
use crate::{
    choice::{self, Op},
    cpu,
    kernel::Launch,
};
use burn::tensor::{DType, Int, Tensor, TensorData, activation::log_softmax};
use nightjar_shared::model_spec::{self, HOST_LOGITS};
use nightjar_wgsl::{CROSS_ENTROPY, CrossEntropyShape};

/// Logits held at once elsewhere than on the processor: 64 MiB.
const DEVICE_LOGITS: usize = 1 << 24;

/// Tokens of a chunk.
pub fn chunk_tokens(vocabulary: usize, host: bool) -> usize {
    model_spec::chunk_tokens(vocabulary, if host { HOST_LOGITS } else { DEVICE_LOGITS })
}

/// Each token's loss in nats (`[n]`) under the logits `h·headᵀ` (h `[n, width]`, head `[vocabulary, width]`, of one
/// type); and, if `scale` is given, the gradients of `scale` times their sum in `h`, of its type, and in the head, in
/// f32.
///
/// # Panics
/// If there are not as many targets as rows, or one is not below the vocabulary's size.
pub fn linear_cross_entropy(
    h: &Tensor<2>,
    head: &Tensor<2>,
    targets: &[u32],
    scale: Option<f32>,
) -> (Tensor<1>, Option<[Tensor<2>; 2]>) {
    let chunk = chunk_tokens(head.dims()[0], is_host(&h.device()));
    linear_cross_entropy_in_chunks(h, head, targets, scale, chunk)
}

/// The same in chunks of so many tokens, at least one.
///
/// # Panics
/// As [`linear_cross_entropy`].
pub fn linear_cross_entropy_in_chunks(
    h: &Tensor<2>,
    head: &Tensor<2>,
    targets: &[u32],
    scale: Option<f32>,
    chunk: usize,
) -> (Tensor<1>, Option<[Tensor<2>; 2]>) {
    assert_eq!(targets.len(), h.dims()[0], "a target for each row");
    assert_are_tokens(targets, head.dims()[0]);
    if targets.is_empty() {
        let device = h.device();
        let nothing = || [Tensor::zeros(h.dims(), (&device, h.dtype())), Tensor::zeros(head.dims(), &device)];
        return (Tensor::zeros([0], &device), scale.map(|_| nothing()));
    }
    let (mut nats, mut dhs, mut dhead) = (vec![], vec![], None);
    for (i, targets) in targets.chunks(chunk).enumerate() {
        let part = if targets.len() == h.dims()[0] { h.clone() } else { h.clone().narrow(0, i * chunk, targets.len()) };
        let (loss, gradient) = cross_entropy(linear(&part, head), targets, scale);
        nats.push(loss);
        if let Some(gradient) = gradient {
            // Chunks add up in f32, whatever the products are computed in.
            dhead = Some(linear_backward_weight(dhead, &gradient, &part));
            dhs.push(linear_backward(&gradient, head));
        }
    }
    let one = |mut parts: Vec<Tensor<2>>| if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
    let nats = if nats.len() == 1 { nats.remove(0) } else { Tensor::cat(nats, 0) };
    (nats, dhead.map(|dhead| [one(dhs), dhead]))
}

/// Each row's loss in nats (`[n]`) and, if `scale` is given, `scale` times its gradient in the logits (`[n,
/// vocabulary]`).
///
/// A row with a logit that is NaN or +∞ has a loss that is NaN.
///
/// # Panics
/// If there are not as many targets as rows, or one is not below the vocabulary's size.
pub fn cross_entropy(logits: Tensor<2>, targets: &[u32], scale: Option<f32>) -> (Tensor<1>, Option<Tensor<2>>) {
    let [n, vocabulary] = logits.dims();
    assert_eq!(targets.len(), n, "a target for each row");
    assert_are_tokens(targets, vocabulary);
    let device = logits.device();
    if is_twins(&logits) {
        let mut logits = Target::of(logits).expect("is_twins said so");
        let mut nats = vec![0.0; n];
        cpu::cross_entropy::forward(logits.slice(), targets, scale, &mut nats);
        return (tensor(nats, [n]), scale.map(|_| logits.tensor()));
    }
    if choice::takes(Op::CrossEntropy, &logits) {
        let (rows, vocabulary, gradient) = (n as u32, vocabulary as u32, u32::from(scale.is_some()));
        let parameters = CrossEntropyShape { rows, vocabulary, scale: scale.unwrap_or(0.0), gradient, nan: f32::NAN };
        let launch = Launch::new(&CROSS_ENTROPY, &parameters)
            .elem(logits.dtype())
            .change(logits)
            .words(targets.iter().copied())
            .output([n]);
        let mut made = launch.run(n);
        let gradient = made.tensor();
        return (made.tensor(), scale.map(|_| gradient));
    }
    if n == 0 {
        // Burn refuses to expand nothing.
        return (Tensor::zeros([0], &device), scale.map(|_| logits));
    }
    let index: Vec<i32> = targets.iter().map(|t| *t as i32).collect();
    let index = Tensor::<2, Int>::from_data(TensorData::new(index, [n, 1]), &device);
    let dtype = logits.dtype();
    let log_p = log_softmax(logits.cast(DType::F32), 1);
    let nats = log_p.clone().gather(1, index.clone()).neg().reshape([n]);
    let gradient = scale.map(|scale| {
        let columns = Tensor::<1, Int>::arange(0..vocabulary as i64, &device).reshape([1, vocabulary]);
        let hot = index.expand([n, vocabulary]).equal(columns.expand([n, vocabulary])).float();
        (log_p.exp() - hot).mul_scalar(scale).cast(dtype)
    });
    (nats, gradient)
}
