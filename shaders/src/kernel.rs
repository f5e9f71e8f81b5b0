//! Hand-written WGSL kernels: each a plain file in `wgsl/` with a [`Kernel`] that describes it, and [`Launch`], which
//! puts one on the GPU's queue as a Burn operation. docs/adding/kernel.md is the way in.
//!
//! Never here: which kernels there are, which operation uses one, and whether it is the faster way (`table`, `op/`,
//! `choice`).

mod launch;
mod matrix_units;

pub use launch::{Launch, Outputs, elem_of, runs_on};
pub use matrix_units::MatrixUnits;
pub use nightjar_wgsl::{Elem, Field, Kernel, Parameters, substitute};
