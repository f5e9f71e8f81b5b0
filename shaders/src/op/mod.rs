//! The operations that a training step is made of, each a forward and a backward function on Burn tensors. On the
//! `flex` device they run the CPU twins ([`crate::cpu`]); elsewhere Burn's own operations, which fuse on a GPU.
//!
//! Gradients are written out instead of recorded: a step then allocates only what its backward pass reads, several
//! outputs come from one pass, and a hand-written kernel takes the place of exactly one function.

mod adamw;
mod attention;
mod cross_entropy;
mod embedding;
mod host;
mod rms_norm;
mod swiglu;

pub use crate::cpu::{adamw::Update, heads::Heads};
pub use adamw::{adamw, sum_of_squares};
pub use attention::{Saved, Tables, attention, attention_backward};
pub use cross_entropy::cross_entropy;
pub use embedding::{embedding, embedding_backward};
pub use host::is_host;
pub use rms_norm::{rms_norm, rms_norm_backward};
pub use swiglu::{swiglu, swiglu_backward};
