//! The model: a Llama-family decoder as Hugging Face's `LlamaForCausalLM` computes it (RMSNorm, rotate-half RoPE,
//! SwiGLU, grouped-query attention, tied or untied head), forward and, by hand, backward.

use crate::{
    precision::Precision,
    weights::{Sum, Weights, WeightsError},
};
use burn::tensor::{Device, FloatDType, Tensor};
use nightjar_shaders::op::{self, Heads, Saved, Tables};
use nightjar_shared::model_spec::{Layout, ModelSpec, ModelSpecError, Role};
use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

/// Why a model cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The spec describes no model.
    #[error(transparent)]
    Spec(#[from] ModelSpecError),
    /// The weights do not fit it.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A token is outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: u32,
    },
    /// The tokens are none, more than the model's context, or no whole number of sequences.
    #[error("{tokens} tokens in sequences of {context}; the model's longest context is {longest}")]
    WrongContext {
        /// Tokens given.
        tokens: usize,
        /// Tokens a sequence.
        context: usize,
        /// `max_position_embeddings`.
        longest: usize,
    },
    /// The device failed.
    #[error("reading from the device failed: {0}")]
    Read(String),
}

/// A model on a device.
pub struct Model {
    spec: ModelSpec,
    layout: Layout,
    device: Device,
    pub(crate) weights: Weights,
    /// Tables of the context length last used.
    tables: Mutex<Option<(usize, Arc<Tables>)>>,
}

/// One pass of some sequences through the model.
struct Pass<'m> {
    model: &'m Model,
    /// The weights as products take them: matrices in their type, gains in f32.
    operands: &'m Weights,
    shape: Heads,
    tables: Arc<Tables>,
}

/// What a layer's backward pass reads; `x` and `middle`, which flow past the layers, are f32, all else is of the type
/// of products. What a norm or SwiGLU made is not here: their gradients make it once more, for the product that took
/// it.
struct LayerTape {
    x: Tensor<2>,
    inverse1: Tensor<2>,
    saved: Saved,
    attended: Tensor<2>,
    middle: Tensor<2>,
    inverse2: Tensor<2>,
    gate_up: Tensor<2>,
}

/// What is kept of a layer from the forward pass to the backward pass.
enum Kept {
    /// All that the backward pass reads.
    Tape(Box<LayerTape>),
    /// Its input, from which the rest is computed anew: activation checkpointing.
    Input(Box<Tensor<2>>),
}

/// What the forward pass leaves for the backward pass.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Nothing,
    Inputs,
    Tapes,
}

/// How a gradient is taken.
pub(crate) struct Gradients<'a> {
    /// The weights as products take them: [`Model::operands`].
    pub operands: &'a Weights,
    /// What the sum of nats is multiplied by.
    pub scale: f32,
    /// What earlier micro-batches of the same batch gave, which this one's is added to.
    pub earlier: Option<Weights>,
    /// Whether a layer keeps only its input and runs forward once more in the backward pass: about a third more
    /// arithmetic for a fraction of the memory.
    pub recompute: bool,
    /// Asked before each layer, on either way.
    pub go_on: &'a mut dyn FnMut() -> bool,
}

/// Loss of one micro-batch, and the gradient up to it.
pub(crate) struct Gradient {
    /// Nats of each token (`[tokens]`), still on the device.
    pub nats: Tensor<1>,
    pub sum: Weights,
}

impl Model {
    /// Builds a model from its spec and its flat vector.
    pub fn new(spec: &ModelSpec, flat: &[f32], device: &Device) -> Result<Self, ModelError> {
        spec.validate()?;
        let device = device.clone().without_autodiff();
        let weights = Weights::from_flat(spec, flat, &device)?;
        Ok(Self::of(spec, device, weights))
    }

    /// Builds a model from parts of its flat vector, which `values` is asked for front to back, so that never a second
    /// whole model is held.
    pub fn from_blocks<E: From<ModelError>>(
        spec: &ModelSpec,
        device: &Device,
        values: impl FnMut(Range<usize>) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        spec.validate().map_err(ModelError::Spec)?;
        let device = device.clone().without_autodiff();
        let weights = Weights::from_blocks(spec, &device, values)?;
        Ok(Self::of(spec, device, weights))
    }

    fn of(spec: &ModelSpec, device: Device, weights: Weights) -> Self {
        Model { spec: spec.clone(), layout: Layout::of(spec), device, weights, tables: Mutex::new(None) }
    }

    /// What it was built from.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Replaces the weights by those of a flat vector.
    pub fn load(&mut self, flat: &[f32]) -> Result<(), ModelError> {
        self.weights = Weights::from_flat(&self.spec, flat, &self.device)?;
        Ok(())
    }

    /// The weights as a flat vector.
    pub fn to_flat(&self) -> Result<Vec<f32>, ModelError> {
        Ok(self.weights.to_flat()?)
    }

    /// The logits after each token, `[tokens.len() · vocab_size]`; `tokens` holds whole sequences of `context`.
    pub fn logits(&self, tokens: &[u32], context: usize) -> Result<Vec<f32>, ModelError> {
        let h = self.pass(&self.weights, tokens, context)?.hidden(tokens);
        read(op::linear(&h, &self.head(&self.weights)))
    }

    /// The logits after the last token of one sequence (`[vocab_size]`).
    pub fn next_logits(&self, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let h = self.pass(&self.weights, tokens, tokens.len())?.hidden(tokens);
        let last = h.narrow(0, tokens.len() - 1, 1);
        read(op::linear(&last, &self.head(&self.weights)))
    }

    /// The loss of each token in nats; `targets[i]` is the token after `tokens[i]`.
    pub fn nats(&self, tokens: &[u32], targets: &[u32], context: usize) -> Result<Vec<f32>, ModelError> {
        Ok(self.nats_while(tokens, targets, context, &mut || true)?.expect("it goes on"))
    }

    /// The same, asking `go_on` before each layer; `None` if it was not to go on.
    pub(crate) fn nats_while(
        &self,
        tokens: &[u32],
        targets: &[u32],
        context: usize,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        self.check(targets, context)?;
        let pass = self.pass(&self.weights, tokens, context)?;
        let Some((x, _)) = pass.residual(tokens, Keep::Nothing, go_on) else { return Ok(None) };
        let (h, _) = pass.norm(&x, Role::FinalNorm, None);
        let (nats, _) = op::linear_cross_entropy(&h, &self.head(&self.weights), targets, None);
        read(nats).map(Some)
    }

    /// The weights as products of this precision take them. To be made once a step, and dropped before the weights
    /// change: as long as they are held, f32 matrices cannot be changed in place.
    pub(crate) fn operands(&self, precision: Precision) -> Weights {
        self.weights.with_matrices_in(precision.dtype(), &self.layout)
    }

    /// Nats a token, and the gradient of `scale` times their sum, in f32, with what was there earlier; `None` if it was
    /// not to go on.
    pub(crate) fn gradient(
        &self,
        how: Gradients<'_>,
        tokens: &[u32],
        targets: &[u32],
        context: usize,
    ) -> Result<Option<Gradient>, ModelError> {
        let Gradients { operands, scale, earlier, recompute, go_on } = how;
        self.check(targets, context)?;
        let pass = self.pass(operands, tokens, context)?;
        let keep = if recompute { Keep::Inputs } else { Keep::Tapes };
        let Some((x, kept)) = pass.residual(tokens, keep, go_on) else { return Ok(None) };
        let (h, inverse) = pass.norm(&x, Role::FinalNorm, None);

        let (nats, gradients) = op::linear_cross_entropy(&h, &self.head(operands), targets, Some(scale));
        let [dh, dhead] = gradients.expect("asked for by the scale");
        drop(h);
        let nothing = Tensor::zeros(x.dims(), &self.device);
        let last = op::rms_norm_backward(dh, &x, pass.operand(Role::FinalNorm, None), &inverse, nothing);
        let mut dx = last.dx;
        drop((x, last.y));

        let mut sum = Sum::onto(earlier, self.layout.blocks.len());
        let dtable = match self.layout.find(Role::Head, None) {
            Some(head) => {
                sum.add(head, dhead);
                Tensor::zeros(self.embedding().dims(), &self.device)
            }
            None => dhead,
        };
        sum.add(self.layout.place(Role::FinalNorm, None), last.dgain);
        for (l, kept) in kept.into_iter().enumerate().rev() {
            if !go_on() {
                return Ok(None);
            }
            let tape = match kept {
                Kept::Tape(tape) => *tape,
                Kept::Input(x) => pass.layer(l, *x),
            };
            dx = pass.layer_backward(l, tape, dx, &mut sum);
        }
        sum.add(self.layout.place(Role::Embedding, None), op::embedding_backward(&dx, tokens, dtable));
        Ok(Some(Gradient { nats, sum: sum.finish() }))
    }

    fn pass<'m>(&'m self, operands: &'m Weights, tokens: &[u32], context: usize) -> Result<Pass<'m>, ModelError> {
        self.check(tokens, context)?;
        let (heads, kv) = (self.spec.num_attention_heads as usize, self.spec.num_key_value_heads as usize);
        let shape = Heads { batch: tokens.len() / context, context, heads, kv, size: self.spec.head_size() };
        Ok(Pass { model: self, operands, shape, tables: self.tables(shape) })
    }

    fn layers(&self) -> usize {
        self.spec.num_hidden_layers as usize
    }

    fn head(&self, operands: &Weights) -> Tensor<2> {
        operands.blocks[self.layout.head()].clone()
    }

    /// The embedding in f32.
    fn embedding(&self) -> &Tensor<2> {
        &self.weights.blocks[self.layout.place(Role::Embedding, None)]
    }

    fn tables(&self, shape: Heads) -> Arc<Tables> {
        let mut last = self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*last {
            Some((context, tables)) if *context == shape.context => tables.clone(),
            _ => {
                let tables = Arc::new(Tables::new(shape.context, shape, self.spec.rope_theta, &self.device));
                *last = Some((shape.context, tables.clone()));
                tables
            }
        }
    }

    fn check(&self, tokens: &[u32], context: usize) -> Result<(), ModelError> {
        let longest = self.spec.max_position_embeddings as usize;
        if tokens.is_empty() || context == 0 || context > longest || !tokens.len().is_multiple_of(context) {
            return Err(ModelError::WrongContext { tokens: tokens.len(), context, longest });
        }
        let vocab_size = self.spec.vocab_size;
        match tokens.iter().find(|t| **t >= vocab_size) {
            Some(&token) => Err(ModelError::UnknownToken { token, vocab_size }),
            None => Ok(()),
        }
    }
}

impl Pass<'_> {
    /// The normed output of the last layer.
    fn hidden(&self, tokens: &[u32]) -> Tensor<2> {
        let (x, _) = self.residual(tokens, Keep::Nothing, &mut || true).expect("it goes on");
        self.norm(&x, Role::FinalNorm, None).0
    }

    /// The residual stream after the last layer, and what is kept of each layer; `None` if it was not to go on.
    fn residual(&self, tokens: &[u32], keep: Keep, go_on: &mut dyn FnMut() -> bool) -> Option<(Tensor<2>, Vec<Kept>)> {
        let layers = self.model.layers();
        let mut kept = Vec::with_capacity(layers);
        let mut x = op::embedding(self.model.embedding(), tokens);
        for l in 0..layers {
            if !go_on() {
                return None;
            }
            if keep == Keep::Inputs {
                kept.push(Kept::Input(Box::new(x.clone())));
            }
            let tape = self.layer(l, x);
            x = self.add_product(&tape.middle, &op::swiglu(&tape.gate_up), l, Role::Down);
            if keep == Keep::Tapes {
                kept.push(Kept::Tape(Box::new(tape)));
            }
        }
        Some((x, kept))
    }

    /// A layer up to gate and up; SwiGLU and the last product are the caller's.
    fn layer(&self, l: usize, x: Tensor<2>) -> LayerTape {
        let (h1, inverse1) = self.norm(&x, Role::AttentionNorm, Some(l));
        // Queries, keys and values are one block.
        let (attended, saved) = op::attention(self.product(&h1, l, Role::Query), self.shape, &self.tables);
        let middle = self.add_product(&x, &attended, l, Role::AttentionOutput);
        let (h2, inverse2) = self.norm(&middle, Role::FeedForwardNorm, Some(l));
        let gate_up = self.product(&h2, l, Role::Gate);
        LayerTape { x, inverse1, saved, attended, middle, inverse2, gate_up }
    }

    /// A block as products take it.
    fn operand(&self, role: Role, layer: Option<usize>) -> &Tensor<2> {
        &self.operands.blocks[self.model.layout.place(role, layer)]
    }

    /// Rows normed, as a product takes them, with their inverse roots.
    fn norm(&self, x: &Tensor<2>, gain: Role, layer: Option<usize>) -> (Tensor<2>, Tensor<2>) {
        op::rms_norm(x, self.operand(gain, layer), self.model.spec.rms_norm_eps, self.dtype())
    }

    /// Rows times a layer's matrix.
    fn product(&self, rows: &Tensor<2>, l: usize, matrix: Role) -> Tensor<2> {
        op::linear(rows, self.operand(matrix, Some(l)))
    }

    /// What flows past a layer's matrix, with rows times the matrix.
    fn add_product(&self, past: &Tensor<2>, rows: &Tensor<2>, l: usize, matrix: Role) -> Tensor<2> {
        op::linear_onto(past.clone(), rows, self.operand(matrix, Some(l)))
    }

    /// Adds a layer's gradients to the sum, and returns that in its input.
    fn layer_backward(&self, l: usize, tape: LayerTape, dx: Tensor<2>, sum: &mut Sum) -> Tensor<2> {
        // For y = x·wᵀ: dw = dyᵀ·x and dx = dy·w.
        let w = |role| self.operand(role, Some(l));
        let place = |role| self.model.layout.place(role, Some(l));
        let dy = dx.clone().cast(self.dtype());
        let swiglu = op::swiglu_backward(tape.gate_up, op::linear_backward(&dy, w(Role::Down)));
        sum.add_product(place(Role::Down), dy, swiglu.y);
        let dh2 = op::linear_backward(&swiglu.dgate_up, w(Role::Gate));
        let norm2 = op::rms_norm_backward(dh2, &tape.middle, w(Role::FeedForwardNorm), &tape.inverse2, dx);
        sum.add_product(place(Role::Gate), swiglu.dgate_up, norm2.y);
        sum.add(place(Role::FeedForwardNorm), norm2.dgain);
        let dy = norm2.dx.clone().cast(self.dtype());
        let dattended = op::linear_backward(&dy, w(Role::AttentionOutput));
        let dqkv = op::attention_backward(dattended, tape.saved, self.shape, &self.tables);
        sum.add_product(place(Role::AttentionOutput), dy, tape.attended);
        let dh1 = op::linear_backward(&dqkv, w(Role::Query));
        let norm1 = op::rms_norm_backward(dh1, &tape.x, w(Role::AttentionNorm), &tape.inverse1, norm2.dx);
        sum.add_product(place(Role::Query), dqkv, norm1.y);
        sum.add(place(Role::AttentionNorm), norm1.dgain);
        norm1.dx
    }

    /// The type of products.
    fn dtype(&self) -> FloatDType {
        self.operand(Role::Embedding, None).dtype().into()
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    let data = tensor.try_into_data().map_err(|e| ModelError::Read(e.to_string()))?;
    data.try_to_vec::<f32>().map_err(|e| ModelError::Read(e.to_string()))
}
