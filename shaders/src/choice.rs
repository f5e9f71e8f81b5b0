//! What there are two ways for, a kernel of ours and Burn's own operations, and which of them this process goes. An
//! operation asks here; [`crate::tuning`] measures and decides.

use crate::kernel::{self, MatrixUnits, elem_of};
use burn::tensor::{DType, Device, Tensor};
use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

/// Declares [`Op`] with its names.
macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident = $name:literal,)*) => {
        /// What there are two ways for: an operation with a kernel, and the type of products.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $op),* }

        impl Op {
            /// All of them.
            pub const ALL: &'static [Op] = &[$(Op::$op),*];

            /// Its name in files and tables.
            pub fn name(self) -> &'static str {
                match self { $(Op::$op => $name),* }
            }
        }
    };
}

ops! {
    /// RMSNorm, forward.
    RmsNorm = "rms_norm",
    /// RMSNorm's gradients.
    RmsNormBackward = "rms_norm_backward",
    /// Rotary embedding in place.
    Rope = "rope",
    /// SwiGLU, forward.
    Swiglu = "swiglu",
    /// SwiGLU's gradient.
    SwigluBackward = "swiglu_backward",
    /// Attention, both ways.
    Attention = "attention",
    /// The head's product and the loss, both ways.
    CrossEntropy = "cross_entropy",
    /// Products of f16 by the GPU's matrix units, where it has such.
    Product = "product",
    /// Products of f16 instead of f32, accumulated in f32: no kernel of ours, but a choice of the device's all the
    /// same.
    HalfProducts = "half_products",
    /// The optimizer's update.
    AdamW = "adamw",
    /// A gradient's sum of squares.
    GradNorm = "grad_norm",
    /// The sparse delta's encoder.
    DeltaEncode = "delta_encode",
}

impl Op {
    /// Whether the device that this process trains on has what our kernel needs.
    pub fn has_two_ways(self) -> bool {
        self != Op::Product || MatrixUnits::current().is_some()
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// For which operations our kernels run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices(u32);

impl Choices {
    /// Burn's own way for all: what holds before anything was measured.
    pub const NONE: Choices = Choices(0);

    /// Our kernels for all.
    pub fn all() -> Self {
        Op::ALL.iter().fold(Choices::NONE, |choices, op| choices.with(*op, true))
    }

    /// The same but for one operation.
    pub fn with(self, op: Op, ours: bool) -> Self {
        let bit = 1 << op as u8;
        Choices(if ours { self.0 | bit } else { self.0 & !bit })
    }

    /// Whether our kernel runs for it.
    pub fn has(self, op: Op) -> bool {
        self.0 >> op as u8 & 1 == 1
    }
}

/// A process trains on one device, so one set of choices is enough.
static CHOICES: AtomicU32 = AtomicU32::new(0);

/// Decides for this process, from its next operation on.
pub fn set(choices: Choices) {
    CHOICES.store(choices.0, Ordering::Relaxed);
}

/// What is decided.
pub fn current() -> Choices {
    Choices(CHOICES.load(Ordering::Relaxed))
}

/// Whether our kernel runs for an operation on this device.
pub fn uses(op: Op, device: &Device) -> bool {
    current().has(op) && kernel::runs_on(device)
}

/// Whether products are computed in f16 on this device: where it can, and was measured to gain.
pub fn halves_products(device: &Device) -> bool {
    uses(Op::HalfProducts, device) && device.supports_dtype(DType::F16)
}

/// Most values of a tensor. What walks over it in strides (`grad_norm.wgsl`: 16384 values a workgroup) reckons one
/// stride beyond the last, which must be countable in 32 bits too.
const VALUES_MAX: usize = (u32::MAX - (1 << 18)) as usize;

/// Whether a tensor's places are countable in 32 bits.
pub(crate) fn is_countable(values: usize) -> bool {
    values <= VALUES_MAX
}

/// Whether our kernel runs for an operation on this tensor: of a type that the kernel takes, not empty, and its places
/// countable in 32 bits.
pub fn takes<const D: usize>(op: Op, tensor: &Tensor<D>) -> bool {
    // What stands between two products is of their type; all else is f32.
    let between_products = matches!(op, Op::Attention | Op::CrossEntropy | Op::Rope | Op::Swiglu | Op::SwigluBackward);
    let is_held = match tensor.dtype() {
        dtype if between_products => elem_of(dtype).is_some(),
        dtype if op == Op::Product => dtype == DType::F16,
        dtype => dtype == DType::F32,
    };
    let values = tensor.shape().num_elements();
    current().has(op) && is_held && values > 0 && is_countable(values) && kernel::runs_on(&tensor.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_one_operations_own() {
        assert!(Op::ALL.iter().all(|op| !Choices::NONE.has(*op) && Choices::all().has(*op)));
        let one = Choices::NONE.with(Op::Swiglu, true);
        assert!(Op::ALL.iter().all(|op| one.has(*op) == (*op == Op::Swiglu)));
        assert_eq!(one.with(Op::Swiglu, false), Choices::NONE);
    }
}
