//! Tensors of the `flex` device as plain slices.

use crate::cpu::product::Matrices;
use burn::backend::{DispatchDevice, Flex};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_flex::FlexTensor;

/// Whether a device's tensors are slices in this process's memory: those of f32 are the CPU twins'.
pub fn is_host(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// Whether the CPU twins take a tensor: `f32` of that device. In any other type it is Burn's.
pub(super) fn is_twins<const D: usize>(tensor: &Tensor<D>) -> bool {
    is_host(&tensor.device()) && tensor.dtype() == DType::F32
}

/// A contiguous `f32` tensor to read from. Shares the tensor's memory where its layout allows.
pub(super) struct Source(FlexTensor);

impl Source {
    /// `None` where the tensor is not the twins'.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        let inner = is_twins(tensor).then(|| tensor.clone().try_into_primitive::<Flex>().ok())??;
        Some(Source(if inner.is_contiguous() { inner } else { inner.to_contiguous() }))
    }

    pub fn slice(&self) -> &[f32] {
        self.0.as_slice::<f32>().expect("a contiguous f32 tensor: Source::of made it so")
    }
}

/// An `f32` tensor of two or four dimensions to read from as it lies: transposed, or a part of a larger one.
pub(super) struct Strided(FlexTensor);

impl Strided {
    /// `None` where the tensor is not the twins'.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        let inner = is_twins(tensor).then(|| tensor.clone().try_into_primitive::<Flex>().ok())??;
        Some(Strided(if inner.layout().strides().iter().all(|stride| *stride >= 0) {
            inner
        } else {
            inner.to_contiguous()
        }))
    }

    /// Its last two dimensions as matrices, those before them as a batch.
    pub fn matrices(&self) -> Matrices<'_> {
        let layout = self.0.layout();
        let [mut dims, mut strides] = [[1; 4], [0; 4]];
        let first = 4 - layout.num_dims();
        dims[first..].copy_from_slice(layout.shape().as_slice());
        strides[first..].iter_mut().zip(layout.strides()).for_each(|(to, stride)| *to = stride.unsigned_abs());
        let values = &self.0.storage::<f32>()[layout.start_offset()..];
        Matrices::new(values, dims, strides).expect("a tensor's layout stays within its storage")
    }
}

/// A contiguous `f32` tensor to write to. Takes over the tensor's memory where nobody else holds it.
pub(super) struct Target(FlexTensor);

impl Target {
    /// `None` where the tensor is not the twins'.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Option<Self> {
        let inner = is_twins(&tensor).then(|| tensor.try_into_primitive::<Flex>().ok())??;
        let elements = inner.layout().num_elements();
        let whole = inner.is_contiguous() && inner.layout().start_offset() == 0 && inner.bytes().len() == elements * 4;
        Some(Target(if whole { inner } else { inner.to_contiguous() }))
    }

    pub fn slice(&mut self) -> &mut [f32] {
        self.0.storage_mut::<f32>()
    }

    pub fn tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_primitive::<Flex>(self.0)
    }
}

/// A new tensor of the `flex` device, without a copy.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(FlexTensor::from_data(TensorData::new(values, shape)))
}
