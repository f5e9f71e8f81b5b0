//! The operations that a training step is made of: Burn's own on any device, a CPU twin of each that the `flex` device
//! runs, and hand-written WGSL kernels, each held against its twin and used where measuring found it faster.
//!
//! Never here: an async runtime, a socket, or what a model looks like; an operation knows shapes, not layers.

pub mod autodiff;
pub mod choice;
pub mod cpu;
pub mod kernel;
pub mod op;
pub mod runtime;
pub mod table;
pub mod tuning;
