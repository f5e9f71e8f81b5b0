//! A worker's jobs as a library: files and a message in, files and a message out. The worker's process
//! (`nightjar worker`) and the simulator's devices both work their leases here, so what the simulator finds is what
//! ships.
//!
//! Never here: a process, a pipe, a message loop. All that is around a job comes in as a [`Room`].

mod ahead;
mod base;
mod duty;
mod evaluation;
mod files;
mod lease;
mod live;
mod steps;
pub mod synthetic;

#[cfg(test)]
mod tests;

pub use ahead::Cut;
pub use base::{BaseError, build as build_base};
pub use files::{FileError, read_moments, read_residual, read_weights};
pub use lease::{Bench, Room, WorkError};
pub use live::{Live, Signs};
