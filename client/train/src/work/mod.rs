//! A worker's jobs as a library: files and a message in, files and a message out. The worker's process
//! (`nightjar worker`) and the simulator's devices both work their leases here, so what the simulator finds is what
//! ships.
//!
//! Never here: a process, a pipe, a message loop. All that is around a job comes in as an [`Environment`].

mod ahead;
mod duty;
mod environment;
mod error;
mod evaluation;
mod lease;
mod steps;
pub mod synthetic;

#[cfg(test)]
mod tests;

pub use ahead::LeaseEnd;
pub use environment::Environment;
pub use error::WorkError;
pub use lease::LeaseRunner;
pub use nightjar_work::{
    LeaseError, Live, Signs,
    base::{BaseError, build as build_base},
    files::{FileError, read_moments, read_residual, read_weights},
};
