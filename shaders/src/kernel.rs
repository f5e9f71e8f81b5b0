//! Hand-written WGSL kernels: each a plain file in `wgsl/` with a [`Kernel`] that describes it, all of them in [`TABLE`],
//! and [`Launch`], which puts one on the GPU's queue as a Burn operation. docs/adding-a-kernel.md is the way in.
//!
//! Never here: which operation uses a kernel, and whether it is the faster way (`op/`, `tuning`).

mod launch;
mod parameters;
mod source;

pub use launch::{Elem, Launch, Outputs, runs_on};
pub use parameters::{Field, Parameters, Word};
pub use source::{Kernel, substitute};

pub(crate) use parameters::parameters;

use crate::op;

/// All kernels. Tests go through it, so that none is without its checks of text, layout, twin and mutants.
pub static TABLE: &[&Kernel] = &[
    &op::attention::FORWARD,
    &op::attention::BACKWARD_QUERIES,
    &op::attention::BACKWARD_KEYS,
    &op::cross_entropy::IN_PLACE,
    &op::rms_norm::FORWARD,
    &op::rms_norm::BACKWARD,
    &op::rope::ROTATE,
    &op::swiglu::FORWARD,
    &op::swiglu::BACKWARD,
    &op::adamw::UPDATE,
    &op::adamw::SQUARES,
    &op::delta::ENCODE,
    &op::delta::ADD,
    &op::update::APPLY,
];

/// Names all kernels as they are in this build: what was measured with other texts does not hold for these.
pub fn version() -> String {
    let mut all = Vec::new();
    for kernel in TABLE {
        all.extend_from_slice(kernel.name.as_bytes());
        all.extend_from_slice(kernel.source.as_bytes());
    }
    nightjar_shared::ids::BlobHash::of(&all).to_string()
}
