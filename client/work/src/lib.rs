//! What a lease's work takes and leaves, whatever computes it: base weights, samples, the optimizer's state, checkpoints,
//! what the owner allows meanwhile, and at the end a delta with the state that belongs to it. The native worker and a
//! page both work through here, so a lease means the same to both.
//!
//! Never here: a GPU, a clock, a thread, or an async runtime.

pub mod base;
pub mod batches;
pub mod checkpoint;
mod error;
pub mod files;
pub mod lease;
mod live;
mod optimizer;
pub mod trial;

pub use error::LeaseError;
pub use lease::{Lease, Start};
pub use live::{At, DUTY_MIN, Live, Signs};
pub use optimizer::{AdamWConfig, Moments, OptimizerConfig, StateSizes, Update};
