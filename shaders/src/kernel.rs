//! Hand-written WGSL kernels: each a plain file in `wgsl/` with a [`Kernel`] that describes it, and [`Launch`], which
//! puts one on the GPU's queue as a Burn operation. docs/adding/kernel.md is the way in.
//!
//! Never here: which kernels there are, which operation uses one, and whether it is the faster way (`table`, `op/`,
//! `choice`).

mod launch;
mod matrix_units;
mod parameters;
mod source;

pub(crate) use launch::GROUPS_MAX;
pub use launch::{Elem, Launch, Outputs, runs_on};
pub use matrix_units::MatrixUnits;
pub use parameters::{Field, Parameters, Word};
pub use source::{Kernel, substitute};

pub(crate) use parameters::parameters;
