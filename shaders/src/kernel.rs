//! Hand-written WGSL kernels: each a plain file in `wgsl/`, and here the Burn extension that launches it.

use burn::backend::{Backend, DispatchDevice, backend_extension, fusion::custom::TensorSpec, tensor::FloatTensor};
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_wgpu::{CubeTensor, KernelSource, SourceKernel, SourceTemplate, into_contiguous};
use cubecl::{CubeCount, CubeDim, prelude::KernelId, server::KernelArguments};
use std::sync::Arc;

/// RMSNorm forward, as the repository has it.
pub const RMS_NORM: &str = include_str!("../wgsl/rms_norm.wgsl");

/// Most workgroups in one dimension, by WebGPU's limits.
const GROUPS_MAX: u32 = 65_535;

/// Whether WGSL kernels run on this device.
pub fn runs_on(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(cubecl::Device::Wgpu(_)))
}

/// The operations that have a kernel. Only for devices for which [`runs_on`] holds, and contiguous or not `f32` tensors.
#[backend_extension(Cube, Fusion)]
pub trait Kernels: Backend {
    /// RMSNorm of rows `x` (`[n, d]`) with `gain` (`[1, d]`): the result and the rows' inverse roots (`[n, 1]`).
    #[fusion(meta = |x: &TensorSpec, _gain: &TensorSpec, _eps: &f32, _source: &Arc<str>| {
        (x.clone(), TensorSpec::new(Shape::from([x.shape[0], 1]), x.dtype))
    })]
    fn rms_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f32,
        source: Arc<str>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// A kernel's text; the text is part of its key, so that two texts are never taken for one.
struct Wgsl(Arc<str>);

impl KernelSource for Wgsl {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(&*self.0)
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.0.clone())
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

impl Kernels for CubeBackend {
    fn rms_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f32,
        source: Arc<str>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (x, gain) = (into_contiguous(x), into_contiguous(gain));
        let (rows, width) = (x.meta.shape()[0], x.meta.shape()[1]);
        let across = (rows as u32).clamp(1, GROUPS_MAX);
        let shape: Vec<u8> = [rows as u32, width as u32, across, eps.to_bits()].iter().flat_map(|n| n.to_le_bytes()).collect();
        let shape = x.client.create_from_slice(&shape);
        let output = |dims: [usize; 2]| {
            let memory = x.client.empty(dims[0] * dims[1] * 4);
            CubeTensor::new_contiguous(x.client.clone(), x.device.clone(), Shape::from(dims), memory, x.dtype)
        };
        let (y, inverse) = (output([rows, width]), output([rows, 1]));
        let buffers = [&x.handle, &gain.handle, &shape, &y.handle, &inverse.handle].map(|handle| handle.clone().binding());
        x.client.launch(
            Box::new(SourceKernel::new(Wgsl(source), CubeDim::new_3d(64, 1, 1))),
            CubeCount::Static(across, (rows as u32).div_ceil(across).max(1), 1),
            KernelArguments::new().with_buffers(buffers.to_vec()),
        );
        (y, inverse)
    }
}

/// RMSNorm by the kernel in `source` (the repository's is [`RMS_NORM`]; tests also pass mutants of it). `None` where no
/// WGSL kernel runs: another device, or a type other than `f32`.
pub fn rms_norm(x: &Tensor<2>, gain: &Tensor<2>, eps: f32, source: &str) -> Option<(Tensor<2>, Tensor<2>)> {
    if !runs_on(&x.device()) || x.dtype() != DType::F32 || x.dims().contains(&0) {
        return None;
    }
    let (y, inverse) =
        burn::backend::Dispatch::rms_norm(x.clone().into_dispatch(), gain.clone().into_dispatch(), eps, source.into());
    Some((Tensor::from_dispatch(y), Tensor::from_dispatch(inverse)))
}
