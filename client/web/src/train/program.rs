//! What a GPU is to do, as a list: launches of kernels on numbered buffers, copies, and what is set to zero. Made by
//! whoever knows the model, carried out by whoever has the GPU.

use nightjar_wgsl::{Kernel, Parameters};

/// A buffer of 32-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its place among all buffers.
    pub id: usize,
    /// How many numbers it holds.
    pub numbers: usize,
}

/// A part of a buffer: what one binding of a launch stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of which buffer.
    pub buffer: Buffer,
    /// The first number; a multiple of [`ALIGNMENT`].
    pub first: usize,
    /// How many.
    pub numbers: usize,
}

/// What the first number of a part is a multiple of, by WebGPU's limits.
pub const ALIGNMENT: usize = 64;

impl From<Buffer> for Part {
    fn from(buffer: Buffer) -> Self {
        Part { buffer, first: 0, numbers: buffer.numbers }
    }
}

impl Buffer {
    /// Some of its numbers.
    pub fn part(self, first: usize, numbers: usize) -> Part {
        debug_assert!(first.is_multiple_of(ALIGNMENT) && first + numbers <= self.numbers, "{self:?} from {first}");
        Part { buffer: self, first, numbers }
    }
}

/// One launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Of which kernel.
    pub kernel: &'static Kernel,
    /// What its text is specialised by.
    pub constants: Vec<(&'static str, u32)>,
    /// The words of its last binding.
    pub parameters: Vec<u32>,
    /// Its other bindings, in order.
    pub parts: Vec<Part>,
    /// Workgroups in each dimension.
    pub groups: [u32; 3],
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Run a kernel.
    Launch(Launch),
    /// Copy the first numbers of a buffer to another's.
    Copy {
        /// From here.
        from: Buffer,
        /// To here.
        to: Buffer,
        /// So many.
        numbers: usize,
    },
    /// Make it zeros.
    Clear(Buffer),
}

/// Things to do in this order.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The order.
    pub steps: Vec<Step>,
}

impl Program {
    /// Adds a launch of `kernel`, whose parameters are of the type that it was declared with.
    pub fn launch<P: Parameters>(
        &mut self,
        kernel: &'static Kernel,
        constants: &[(&'static str, u32)],
        parameters: &P,
        parts: impl IntoIterator<Item = Part>,
        groups: [u32; 3],
    ) {
        debug_assert_eq!(kernel.parameters, P::FIELDS, "{} has other parameters", kernel.name);
        let (constants, parts) = (constants.to_vec(), parts.into_iter().collect());
        self.steps.push(Step::Launch(Launch { kernel, constants, parameters: parameters.words(), parts, groups }));
    }

    /// Adds a copy.
    pub fn copy(&mut self, from: Buffer, to: Buffer, numbers: usize) {
        self.steps.push(Step::Copy { from, to, numbers });
    }

    /// Adds zeros.
    pub fn clear(&mut self, buffer: Buffer) {
        self.steps.push(Step::Clear(buffer));
    }

    /// The launches, in order.
    pub fn launches(&self) -> impl Iterator<Item = &Launch> {
        self.steps.iter().filter_map(|step| match step {
            Step::Launch(launch) => Some(launch),
            Step::Copy { .. } | Step::Clear(_) => None,
        })
    }
}
