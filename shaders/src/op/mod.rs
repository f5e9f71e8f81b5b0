//! The operations that a training step is made of, each a forward and a backward function on Burn tensors. On the
//! `flex` device they run the CPU twins ([`crate::cpu`]); on `wgpu` a hand-written kernel where this device was
//! measured to gain by it ([`crate::choice`]); elsewhere Burn's own operations, which fuse on a GPU.
//!
//! Gradients are written out instead of recorded: a step then allocates only what its backward pass reads, several
//! outputs come from one pass, and a hand-written kernel takes the place of exactly one function.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod delta;
mod embedding;
mod host;
pub mod linear;
mod product;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;

pub use crate::cpu::{adamw::Update, heads::Heads};
pub use adamw::{adamw, sum_of_squares};
pub use attention::{Saved, Scores, Tables, attention, attention_backward, attention_scores};
pub use cross_entropy::{chunk_tokens, cross_entropy, linear_cross_entropy, linear_cross_entropy_in_chunks};
pub use embedding::{embedding, embedding_backward};
pub use host::is_host;
pub use linear::{linear, linear_backward, linear_backward_weight, linear_onto};
pub use product::product;
pub use rms_norm::{RmsNormBackward, rms_norm, rms_norm_backward};
pub use rope::rope;
pub use swiglu::{SwigluBackward, swiglu, swiglu_backward};
