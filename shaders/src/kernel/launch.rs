//! One launch of a kernel as a Burn operation: one extension, whatever the kernel. Fusion sees an opaque
//! operation with so many tensors in and out, and puts it in its place among Burn's own.

use burn::backend::{
    Backend, Dispatch, DispatchDevice, DispatchTensor, ExtensionType, backend_extension, fusion::custom::TensorSpec,
    tensor::FloatTensor,
};
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_wgpu::{CubeTensor, KernelSource, SourceKernel, SourceTemplate, into_contiguous};
use cubecl::{
    CubeCount, CubeDim, ExecutionMode,
    prelude::KernelId,
    server::{KernelArguments, MetadataBindingInfo},
};
use nightjar_wgsl::{Elem, Kernel, Parameters, spread};
use std::sync::Arc;

/// Whether WGSL kernels run on this device: not on CUDA, nor in a build whose `wgpu` devices take SPIR-V.
pub fn runs_on(device: &Device) -> bool {
    !cfg!(feature = "vulkan") && matches!(device.as_dispatch(), DispatchDevice::Cube(cubecl::Device::Wgpu(_)))
}

/// What holds a tensor of this type in a kernel; `None` where WGSL has nothing that does.
pub fn elem_of(dtype: DType) -> Option<Elem> {
    match dtype {
        DType::F32 => Some(Elem::F32),
        DType::F16 => Some(Elem::F16),
        _ => None,
    }
}

/// Up to seven tensors: with the parameters as many storage buffers as WebGPU promises. Burn's extensions want a type
/// that says how many.
#[derive(ExtensionType)]
#[extension_type(fusion)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Pack<B: Backend> {
    One(FloatTensor<B>),
    Two(FloatTensor<B>, FloatTensor<B>),
    Three(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    Four(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    Five(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    Six(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    Seven(
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
    ),
}

/// Builds and takes apart a pack-like enum.
macro_rules! packs {
    ($pack:ident, $list:expr) => {{
        let mut list = $list.into_iter();
        let many = list.len();
        let mut next = || list.next().expect("as many as the variant has");
        match many {
            1 => $pack::One(next()),
            2 => $pack::Two(next(), next()),
            3 => $pack::Three(next(), next(), next()),
            4 => $pack::Four(next(), next(), next(), next()),
            5 => $pack::Five(next(), next(), next(), next(), next()),
            6 => $pack::Six(next(), next(), next(), next(), next(), next()),
            7 => $pack::Seven(next(), next(), next(), next(), next(), next(), next()),
            _ => panic!("a kernel takes and makes one to seven tensors, not {many}"),
        }
    }};
}

impl<B: Backend> Pack<B> {
    fn into_vec(self) -> Vec<FloatTensor<B>> {
        match self {
            Pack::One(a) => vec![a],
            Pack::Two(a, b) => vec![a, b],
            Pack::Three(a, b, c) => vec![a, b, c],
            Pack::Four(a, b, c, d) => vec![a, b, c, d],
            Pack::Five(a, b, c, d, e) => vec![a, b, c, d, e],
            Pack::Six(a, b, c, d, e, f) => vec![a, b, c, d, e, f],
            Pack::Seven(a, b, c, d, e, f, g) => vec![a, b, c, d, e, f, g],
        }
    }
}

/// What stands at one binding.
#[derive(Clone, Debug)]
enum Slot {
    /// The next input, only read.
    Read,
    /// The next input, changed in place (in a copy where someone else holds it); also the next output.
    Change,
    /// Bytes from the host.
    Host(Arc<[u8]>),
    /// A new tensor, the next output; whatever is in its memory.
    Output { shape: Shape, dtype: DType },
}

/// All of a launch but its tensors.
#[derive(Clone, Debug)]
pub struct Plan {
    text: Arc<str>,
    workgroup: [u32; 3],
    groups: [u32; 3],
    slots: Vec<Slot>,
    /// Its parameters, two of their words in each.
    parameters: Vec<u64>,
    /// Shapes and types of the outputs, in order.
    made: Vec<(Shape, DType)>,
}

/// Burn's side of a launch.
#[backend_extension(Cube, Fusion)]
pub trait Kernels: Backend {
    /// Launches what the plan says.
    #[fusion(meta = |_inputs, plan: &Arc<Plan>| {
        let specs: Vec<TensorSpec> = plan.made.iter().map(|(shape, dtype)| TensorSpec::new(shape.clone(), *dtype)).collect();
        packs!(PackMetadata, specs)
    })]
    fn nightjar_kernel(#[extension_type] inputs: Pack<Self>, plan: Arc<Plan>) -> Pack<Self>;
}

/// A text with its workgroup. The text is part of its key, with all that it was specialised by.
struct Wgsl {
    text: Arc<str>,
    workgroup: [u32; 3],
}

impl KernelSource for Wgsl {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(&*self.text)
    }

    fn id(&self) -> KernelId {
        // Unchecked: every loop of ours ends by its own bounds, and no counter is put into it to make sure.
        KernelId::new::<Self>().info((self.text.clone(), self.workgroup)).mode(ExecutionMode::Unchecked)
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

impl Kernels for CubeBackend {
    fn nightjar_kernel(inputs: Pack<Self>, plan: Arc<Plan>) -> Pack<Self> {
        let mut inputs = inputs.into_vec().into_iter();
        let mut next = || into_contiguous(inputs.next().expect("one for each slot that takes one"));
        let first = next();
        let (client, device) = (first.client.clone(), first.device.clone());
        let mut first = Some(first);
        let mut outputs: Vec<CubeTensor> = vec![];
        let mut buffers = vec![];
        for slot in &plan.slots {
            let handle = match slot {
                Slot::Read => first.take().unwrap_or_else(&mut next).handle,
                Slot::Change => {
                    let tensor = first.take().unwrap_or_else(&mut next);
                    let tensor = if tensor.can_mut() { tensor } else { tensor.copy() };
                    outputs.push(tensor.clone());
                    tensor.handle
                }
                Slot::Host(bytes) => client.create_from_slice(bytes),
                Slot::Output { shape, dtype } => {
                    let bytes = shape.num_elements() * dtype.size();
                    let memory = client.empty(bytes);
                    let tensor =
                        CubeTensor::new_contiguous(client.clone(), device.clone(), shape.clone(), memory, *dtype);
                    outputs.push(tensor.clone());
                    tensor.handle
                }
            };
            buffers.push(handle.binding());
        }
        let ([x, y, z], [w, h, d]) = (plan.groups, plan.workgroup);
        // Parameters go the way that Burn's own kernels' do: bytes that a client uploads are written by the queue, and
        // what was gathered up to there is submitted first.
        let parameters = MetadataBindingInfo::custom(plan.parameters.clone());
        client.launch(
            Box::new(SourceKernel::new(
                Wgsl { text: plan.text.clone(), workgroup: plan.workgroup },
                CubeDim::new_3d(w, h, d),
            )),
            CubeCount::Static(x, y, z),
            KernelArguments::new().with_buffers(buffers).with_info(parameters),
        );
        packs!(Pack, outputs)
    }
}

/// A launch in the making. Each call takes the next binding; the parameters have the last.
///
/// Tensors are `f32` (or `f16`) to Burn; a kernel may as well bind `array<u32>` and keep bits in them.
#[must_use = "nothing happens before run"]
pub struct Launch {
    kernel: &'static Kernel,
    constants: Vec<(&'static str, u32)>,
    elem: Elem,
    slots: Vec<Slot>,
    parameters: Vec<u64>,
    inputs: Vec<DispatchTensor>,
    made: Vec<(Shape, DType)>,
}

impl Launch {
    /// A launch of `kernel`; `parameters` must be of the type that it was declared with.
    pub fn new<P: Parameters>(kernel: &'static Kernel, parameters: &P) -> Self {
        assert_eq!(kernel.parameters, P::FIELDS, "{} has other parameters", kernel.name);
        let pair = |words: &[u32]| words.iter().rev().fold(0, |pair, word| pair << 32 | u64::from(*word));
        let parameters = parameters.words().chunks(2).map(pair).collect();
        Launch { kernel, constants: vec![], elem: Elem::F32, slots: vec![], parameters, inputs: vec![], made: vec![] }
    }

    /// Gives the `override` of this name another default.
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, value));
        self
    }

    /// Sets what `alias Elem` stands for.
    ///
    /// # Panics
    /// If no kernel holds this type: whoever launches has asked `choice::takes`.
    pub fn elem(mut self, dtype: DType) -> Self {
        self.elem = elem_of(dtype).expect("a type that kernels hold");
        self
    }

    /// A tensor that is only read.
    pub fn read<const D: usize>(mut self, tensor: &Tensor<D>) -> Self {
        self.slots.push(Slot::Read);
        self.inputs.push(tensor.clone().into_dispatch());
        self
    }

    /// A tensor that is changed in place, and comes out as the next output. Nobody else's view of it changes: where
    /// another holds its memory, the change is made in a copy.
    pub fn change<const D: usize>(mut self, tensor: Tensor<D>) -> Self {
        self.slots.push(Slot::Change);
        self.made.push((tensor.shape(), tensor.dtype()));
        self.inputs.push(tensor.into_dispatch());
        self
    }

    /// The kernel's table from the host: at binding 0, of the type that it was declared with, and at least one row.
    pub fn table<R: Parameters>(self, rows: &[R]) -> Self {
        assert_eq!((self.kernel.table, self.slots.len()), (R::FIELDS, 0), "{} has another table", self.kernel.name);
        self.words(rows.iter().flat_map(R::words))
    }

    /// Words from the host; at least one, since a binding cannot be empty. What was launched before is submitted first.
    pub fn words(mut self, words: impl IntoIterator<Item = u32>) -> Self {
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        self.slots.push(Slot::Host(bytes.into()));
        self
    }

    /// A new `f32` tensor; the kernel writes all of it.
    pub fn output<const D: usize>(self, shape: [usize; D]) -> Self {
        self.output_of(shape, DType::F32)
    }

    /// A new tensor of another type.
    pub fn output_of<const D: usize>(mut self, shape: [usize; D], dtype: DType) -> Self {
        let shape = Shape::from(shape);
        self.made.push((shape.clone(), dtype));
        self.slots.push(Slot::Output { shape, dtype });
        self
    }

    /// Launches `groups` workgroups, at least one; beyond 1024 in rows of so many, or of more where there would be too
    /// many rows. A kernel finds its number as
    /// `group.y * groups.x + group.x` and passes over numbers that are too large.
    pub fn run(self, groups: usize) -> Outputs {
        self.run_3d(spread(groups))
    }

    /// Launches so many workgroups in each dimension, each at most 65535.
    pub fn run_3d(self, groups: [u32; 3]) -> Outputs {
        let text = self.kernel.text(&self.constants, self.elem);
        let Launch { kernel, slots, parameters, made, .. } = self;
        let plan = Plan { text, workgroup: kernel.workgroup, groups, slots, parameters, made };
        let pack = Dispatch::nightjar_kernel(packs!(Pack, self.inputs), plan.into());
        Outputs(pack.into_vec().into_iter())
    }
}

/// What a launch changed and made, in the order of its bindings.
pub struct Outputs(std::vec::IntoIter<DispatchTensor>);

impl Outputs {
    /// The next one.
    ///
    /// # Panics
    /// If there is none: kernel and wrapper are of one build.
    pub fn tensor<const D: usize>(&mut self) -> Tensor<D> {
        Tensor::from_dispatch(self.0.next().expect("one for each change and output"))
    }
}
