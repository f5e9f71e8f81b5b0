//! Embedding lookup: the twin is [`crate::cpu::embedding`].

use super::host::{Source, Target, tensor};
use crate::cpu;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

/// Row `tokens[i]` of the table, for each `i` (`[n, width]`).
///
/// # Panics
/// If a token is not below the table's height.
pub fn embedding(table: &Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    let [height, width] = table.dims();
    assert_are_tokens(tokens, height);
    if let Some(table) = Source::of(table) {
        let mut y = vec![0.0; tokens.len() * width];
        cpu::embedding::forward(table.slice(), width, tokens, &mut y);
        return tensor(y, [tokens.len(), width]);
    }
    table.clone().select(0, index(tokens, &table.device()))
}

/// Adds the gradient of [`embedding`] to that of the table.
///
/// # Panics
/// If a token is not below the table's height, or there are not as many as rows of `dy`.
pub fn embedding_backward(dy: &Tensor<2>, tokens: &[u32], dtable: Tensor<2>) -> Tensor<2> {
    let [height, width] = dtable.dims();
    assert_eq!(dy.dims(), [tokens.len(), width], "a gradient for each token");
    assert_are_tokens(tokens, height);
    if let Some(dy) = Source::of(dy) {
        let mut dtable = Target::of(dtable).expect("all operands are f32 on one device");
        cpu::embedding::backward(dy.slice(), width, tokens, dtable.slice());
        return dtable.tensor();
    }
    let index = index(tokens, &dy.device());
    dtable.select_assign(0, index, dy.clone(), IndexingUpdateOp::Add)
}

fn index(tokens: &[u32], device: &Device) -> Tensor<1, Int> {
    let index: Vec<i32> = tokens.iter().map(|t| *t as i32).collect();
    Tensor::from_data(TensorData::new(index, [tokens.len()]), device)
}

/// Tokens and targets come from a shard or a caller; beyond the vocabulary a GPU reads where there is nothing.
pub(super) fn assert_are_tokens(tokens: &[u32], vocabulary: usize) {
    let beyond = tokens.iter().find(|token| **token as usize >= vocabulary);
    if let Some(token) = beyond {
        panic!("token {token} of a vocabulary of {vocabulary}");
    }
}
