//! The hand-written kernels, each a plain WGSL file beside this folder: their texts, their parameters as Rust has them,
//! and how a text is specialised. Both who computes through Burn and who speaks to WebGPU by itself take them from here.
//!
//! Never here: a GPU, a tensor, or what a kernel is used for.

mod kernel;
mod parameters;
mod table;

pub use kernel::{Elem, GROUPS_MAX, Kernel, spread, substitute};
pub use parameters::{Field, Parameters, Word};
pub use table::*;

pub(crate) use parameters::parameters;
