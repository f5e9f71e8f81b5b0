//! The weights as tensors on a device: one block a group of the model's tensors, in flat order. Gradients and the
//! optimizer's moments have the same shape and use the same type.
//!
//! q, k and v are one block, and so are gate and up: they lie side by side in the flat vector, and one wide matrix
//! product is faster than several narrow ones. Matrices stay `[out, in]`, as the flat vector and Hugging Face have
//! them; with hand-written gradients no transposed copy is ever needed.

use burn::tensor::{Device, FloatDType, Tensor, TensorData, Transaction};
use nightjar_shaders::op;
use nightjar_shared::model_spec::{Block, Layout, ModelSpec};
use std::ops::Range;

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

/// One tensor a block, in flat order.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    pub blocks: Vec<Tensor<2>>,
}

impl Weights {
    pub fn zeros(spec: &ModelSpec, device: &Device) -> Self {
        Weights { blocks: Layout::of(spec).blocks.iter().map(|b| Tensor::zeros(b.shape, device)).collect() }
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
        for block in Layout::of(spec).blocks {
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
    pub fn with_matrices_in(&self, dtype: FloatDType, layout: &Layout) -> Weights {
        let cast = |(tensor, block): (&Tensor<2>, &Block)| {
            if block.role.is_gain() { tensor.clone() } else { tensor.clone().cast(dtype) }
        };
        Weights { blocks: self.blocks.iter().zip(&layout.blocks).map(cast).collect() }
    }
}

/// A gradient in the making. Each block is added to what earlier micro-batches gave as soon as it is there, so that
/// never two whole gradients are held.
pub(crate) struct Sum {
    blocks: Vec<Option<Tensor<2>>>,
}

impl Sum {
    /// Of so many blocks, on top of what there is; with nothing, the gradient by itself.
    pub fn onto(earlier: Option<Weights>, blocks: usize) -> Self {
        let blocks = match earlier {
            Some(earlier) => earlier.blocks.into_iter().map(Some).collect(),
            None => vec![None; blocks],
        };
        Sum { blocks }
    }

    /// A matrix's block: `dyᵀ·x` where the matrix makes `y` of `x`.
    pub fn add_product(&mut self, place: usize, dy: Tensor<2>, x: Tensor<2>) {
        let earlier = self.blocks[place].take();
        self.blocks[place] = Some(op::linear_backward_weight(earlier, &dy, &x));
    }

    /// Any block.
    pub fn add(&mut self, place: usize, block: Tensor<2>) {
        self.blocks[place] = Some(match self.blocks[place].take() {
            Some(earlier) => earlier + block,
            None => block,
        });
    }

    /// When every block was added to.
    pub fn finish(self) -> Weights {
        Weights { blocks: self.blocks.into_iter().map(|block| block.expect("a gradient for each block")).collect() }
    }
}
