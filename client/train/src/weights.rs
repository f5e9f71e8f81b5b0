//! The weights as tensors on a device: blocks of the flat vector, in flat order. Gradients and the optimizer's moments
//! have the same shape and use the same type.
//!
//! q, k and v are one block, and so are gate and up: they lie side by side in the flat vector, and one wide matrix
//! product is faster than several narrow ones. Matrices stay `[out, in]`, as the flat vector and Hugging Face have
//! them; with hand-written gradients no transposed copy is ever needed.

use burn::tensor::{Device, FloatDType, Tensor, TensorData, Transaction};
use nightjar_shaders::op;
use nightjar_shared::model_spec::ModelSpec;
use std::ops::Range;

/// What the blocks of one decoder layer are, by position.
pub(crate) const LAYER_BLOCKS: usize = 6;
/// First norm's gain (`[1, hidden]`), within a layer.
pub(crate) const NORM1: usize = 0;
/// Queries, keys and values (`[(heads + 2·kv)·size, hidden]`).
pub(crate) const QKV: usize = 1;
/// Attention's output projection (`[hidden, hidden]`).
pub(crate) const OUT: usize = 2;
/// Second norm's gain.
pub(crate) const NORM2: usize = 3;
/// Gate and up (`[2·intermediate, hidden]`).
pub(crate) const GATE_UP: usize = 4;
/// Down (`[hidden, intermediate]`).
pub(crate) const DOWN: usize = 5;

/// A vector does not fit the model it is for.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum WeightsError {
    /// The flat vector's length is not the model's number of parameters.
    #[error("the model has {want} parameters, the flat vector holds {got} values")]
    WrongLength {
        /// Parameters of the model.
        want: usize,
        /// Length of the vector.
        got: usize,
    },
    /// The device could not hand the values over.
    #[error("reading the weights from the device failed: {0}")]
    Read(String),
}

/// The blocks' shapes, from a model's spec.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub shape: [usize; 2],
    /// Whether weight decay applies: to matrices, not to gains.
    pub decays: bool,
}

pub(crate) fn blocks(spec: &ModelSpec) -> Vec<Block> {
    let mut list: Vec<Block> = Vec::new();
    for t in spec.tensors() {
        let [rows, columns] = match t.shape[..] {
            [rows, columns] => [rows, columns],
            _ => [1, t.len()],
        };
        let joins = ["self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj"].iter().any(|part| t.name.contains(part));
        match list.last_mut().filter(|_| joins) {
            Some(block) => block.shape[0] += rows,
            None => list.push(Block { shape: [rows, columns], decays: t.decays }),
        }
    }
    list
}

/// One tensor a block, in flat order.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub blocks: Vec<Tensor<2>>,
}

impl Weights {
    pub fn zeros(spec: &ModelSpec, device: &Device) -> Self {
        Weights { blocks: blocks(spec).iter().map(|b| Tensor::zeros(b.shape, device)).collect() }
    }

    pub fn from_flat(spec: &ModelSpec, flat: &[f32], device: &Device) -> Result<Self, WeightsError> {
        let want = spec.parameters();
        if flat.len() != want {
            return Err(WeightsError::WrongLength { want, got: flat.len() });
        }
        Self::from_blocks(spec, device, |range| Ok(flat[range].to_vec()))
    }

    /// Uploads a block at a time. `values` gives a part of the flat vector, as long as the range says.
    pub fn from_blocks<E>(
        spec: &ModelSpec,
        device: &Device,
        mut values: impl FnMut(Range<usize>) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let (mut list, mut at) = (vec![], 0);
        for block in blocks(spec) {
            let from = at;
            at += block.shape[0] * block.shape[1];
            list.push(Tensor::from_data(TensorData::new(values(from..at)?, block.shape), device));
        }
        Ok(Weights { blocks: list })
    }

    /// All values in flat order, read from the device in one transaction.
    pub fn to_flat(&self) -> Result<Vec<f32>, WeightsError> {
        let all = self.blocks.iter().fold(Transaction::default(), |all, b| all.register(b.clone()));
        let data = all.try_execute().map_err(|e| WeightsError::Read(e.to_string()))?;
        let mut flat = Vec::with_capacity(self.blocks.iter().map(|b| b.shape().num_elements()).sum());
        for block in data {
            flat.extend_from_slice(block.as_slice::<f32>().map_err(|e| WeightsError::Read(format!("{e:?}")))?);
        }
        Ok(flat)
    }

    /// The same with its matrices in another type; gains, which no product takes, stay as they are.
    pub fn with_matrices_in(&self, dtype: FloatDType, spec: &ModelSpec) -> Weights {
        let cast = |(tensor, block): (&Tensor<2>, Block)| {
            if block.decays { tensor.clone().cast(dtype) } else { tensor.clone() }
        };
        Weights { blocks: self.blocks.iter().zip(blocks(spec)).map(cast).collect() }
    }

    /// The type of the matrices.
    pub fn matrix_dtype(&self) -> FloatDType {
        self.embedding().dtype().into()
    }

    pub fn layer(&self, l: usize, part: usize) -> &Tensor<2> {
        &self.blocks[1 + l * LAYER_BLOCKS + part]
    }

    pub fn embedding(&self) -> &Tensor<2> {
        &self.blocks[0]
    }

    pub fn last_norm(&self, layers: usize) -> &Tensor<2> {
        &self.blocks[1 + layers * LAYER_BLOCKS]
    }

    /// The head's matrix (`[vocabulary, hidden]`); the embedding where they are tied.
    pub fn head(&self, layers: usize) -> &Tensor<2> {
        self.blocks.get(2 + layers * LAYER_BLOCKS).unwrap_or(&self.blocks[0])
    }
}

/// A gradient in the making. The backward pass gives its last block first; each is added to what earlier micro-batches
/// gave as soon as it is there, so that never two whole gradients are held.
pub(crate) struct Sum {
    earlier: Vec<Tensor<2>>,
    made: Vec<Tensor<2>>,
}

impl Sum {
    /// On top of what there is; with nothing, the gradient by itself.
    pub fn onto(earlier: Option<Weights>) -> Self {
        let earlier = earlier.map_or(vec![], |weights| weights.blocks);
        Sum { made: Vec::with_capacity(earlier.len()), earlier }
    }

    /// The next block from the end: a matrix's, `dyᵀ·x` where the matrix makes `y` of `x`.
    pub fn push_matrix(&mut self, dy: Tensor<2>, x: Tensor<2>) {
        let earlier = self.earlier.pop();
        self.made.push(op::linear_backward_weight(earlier, &dy, &x));
    }

    /// The next block from the end.
    pub fn push(&mut self, block: Tensor<2>) {
        self.made.push(match self.earlier.pop() {
            Some(earlier) => earlier + block,
            None => block,
        });
    }

    /// After the first block.
    pub fn finish(mut self) -> Weights {
        self.made.reverse();
        Weights { blocks: self.made }
    }
}
