//! Every kernel, with its parameters.

use crate::{Kernel, parameters};

/// All kernels. Tests go through it, so that none is without its checks of text, layout, twin and mutants.
pub static KERNELS: &[&Kernel] = &[
    &ADAMW,
    &ATTENTION_BACKWARD_KEYS,
    &ATTENTION_BACKWARD_QUERIES,
    &ATTENTION_FORWARD,
    &COLUMN_SUMS,
    &CROSS_ENTROPY,
    &DELTA_ENCODE,
    &EMBEDDING,
    &EMBEDDING_BACKWARD,
    &GRAD_NORM,
    &PRODUCT,
    &PRODUCT_F32,
    &RMS_NORM,
    &RMS_NORM_BACKWARD,
    &ROPE,
    &SWIGLU,
    &SWIGLU_BACKWARD,
];

/// A kernel whose file is `wgsl/NAME.wgsl`.
macro_rules! kernel {
    ($name:literal, $parameters:ty, $invocations:literal) => {
        Kernel::new::<$parameters>($name, include_str!(concat!("../", $name, ".wgsl")), [$invocations, 1, 1])
    };
}

parameters! {
    /// Of [`ADAMW`].
    pub struct AdamWShape {
        values: u32,
        gradient_scale: f32,
        decay: f32,
        beta1: f32,
        beta2: f32,
        step_size: f32,
        second_correction: f32,
        epsilon: f32,
    }
}
/// One update, in place.
pub static ADAMW: Kernel = kernel!("adamw", AdamWShape, 256);

parameters! {
    /// Of the three kernels of attention.
    pub struct AttentionShape { context: u32, heads: u32, kv: u32, scale: f32 }
}
/// The result, and the logarithm of each row's sum.
pub static ATTENTION_FORWARD: Kernel = kernel!("attention_forward", AttentionShape, 256);
/// The gradient in the queries.
pub static ATTENTION_BACKWARD_QUERIES: Kernel = kernel!("attention_backward_queries", AttentionShape, 256);
/// The gradients in keys and values.
pub static ATTENTION_BACKWARD_KEYS: Kernel = kernel!("attention_backward_keys", AttentionShape, 256);

/// Queries, and keys, of a tile of attention.
pub const ATTENTION_TILE: usize = 64;

/// Whether the kernels of attention hold heads of so many numbers: an invocation's registers hold its share of a row in
/// quads.
pub fn attention_holds(head_size: usize) -> bool {
    const SIZE_MAX: usize = 128;
    head_size.is_multiple_of(4) && (4..=SIZE_MAX).contains(&head_size)
}

parameters! {
    /// Of [`COLUMN_SUMS`].
    pub struct ColumnSumsShape { rows: u32, width: u32 }
}
/// The sum of each column, on top of what is there.
pub static COLUMN_SUMS: Kernel = kernel!("column_sums", ColumnSumsShape, 64);

parameters! {
    /// Of [`CROSS_ENTROPY`].
    pub struct CrossEntropyShape { rows: u32, vocabulary: u32, scale: f32, gradient: u32, nan: f32 }
}
/// Loss, and gradient in place.
pub static CROSS_ENTROPY: Kernel = kernel!("cross_entropy", CrossEntropyShape, 256);

parameters! {
    /// Of [`DELTA_ENCODE`].
    pub struct DeltaShape { chunks: u32, feedback: f32, zero: u32 }
}
parameters! {
    /// `Chunk` in [`DELTA_ENCODE`].
    pub struct DeltaChunk { start: u32, len: u32, entries: u32, keep: u32 }
}
/// Choice, values and residual.
pub static DELTA_ENCODE: Kernel = kernel!("delta_encode", DeltaShape, 256).with_table::<DeltaChunk>();

parameters! {
    /// Of [`EMBEDDING`].
    pub struct EmbeddingShape { values: u32, width: u32 }
}
/// A row of the table for each token.
pub static EMBEDDING: Kernel = kernel!("embedding", EmbeddingShape, 256);

parameters! {
    /// Of [`EMBEDDING_BACKWARD`].
    pub struct EmbeddingBackwardShape { tokens: u32, width: u32 }
}
/// Each token's gradient, on top of its row's.
pub static EMBEDDING_BACKWARD: Kernel = kernel!("embedding_backward", EmbeddingBackwardShape, 64);

parameters! {
    /// Of [`GRAD_NORM`].
    pub struct SpanShape { values: u32, span: u32 }
}
/// Sums of squares, and sums of those.
pub static GRAD_NORM: Kernel = kernel!("grad_norm", SpanShape, 256);

/// Values of one workgroup of the first launch of [`GRAD_NORM`]: 64 an invocation.
pub const GRAD_NORM_SPAN: usize = 16_384;

parameters! {
    /// Of [`PRODUCT`].
    pub struct ProductShape { rows: u32, inner: u32, columns: u32, share: u32 }
}
/// One product on matrix units, which no browser has.
pub static PRODUCT: Kernel = kernel!("product", ProductShape, 256);

parameters! {
    /// Of [`PRODUCT_F32`].
    pub struct ProductF32Shape { rows: u32, inner: u32, columns: u32 }
}
/// One product in f32, for any GPU.
pub static PRODUCT_F32: Kernel = kernel!("product_f32", ProductF32Shape, 256);

/// Side of what a workgroup of [`PRODUCT_F32`] makes.
pub const PRODUCT_F32_TILE: usize = 64;

parameters! {
    /// Of [`RMS_NORM`].
    pub struct RmsNormShape { rows: u32, width: u32, eps: f32 }
}
/// Result and inverse roots.
pub static RMS_NORM: Kernel = kernel!("rms_norm", RmsNormShape, 64);

parameters! {
    /// Of [`RMS_NORM_BACKWARD`].
    pub struct RmsNormBackwardShape { rows: u32, width: u32 }
}
/// Both gradients.
pub static RMS_NORM_BACKWARD: Kernel = kernel!("rms_norm_backward", RmsNormBackwardShape, 64);

/// How many of so many rows a workgroup of [`RMS_NORM_BACKWARD`] takes, each of which leaves a partial sum of the gain's
/// width: workgroups enough to fill a large GPU, and few enough that adding their sums up is nothing. A power of two:
/// each is a pipeline of its own.
pub fn rms_norm_backward_rows(rows: usize) -> usize {
    const PARTS_MAX: usize = 512;
    rows.div_ceil(PARTS_MAX).next_power_of_two()
}

parameters! {
    /// Of [`ROPE`].
    pub struct RopeShape { pairs: u32, context: u32, heads: u32, half: u32, row: u32, direction: f32 }
}
/// Rotates queries and keys.
pub static ROPE: Kernel = kernel!("rope", RopeShape, 256);

/// Cosines and sines of every angle that [`ROPE`] turns by, `[context, head_size / 2]` each; `theta` is the base of the
/// wavelengths.
pub fn rope_tables(context: usize, head_size: usize, theta: f64) -> [Vec<f32>; 2] {
    let half = head_size / 2;
    let angle = |i: usize| (i / half) as f64 * theta.powf(-2.0 * (i % half) as f64 / head_size as f64);
    [f64::cos as fn(f64) -> f64, f64::sin].map(|f| (0..context * half).map(|i| f(angle(i)) as f32).collect())
}

parameters! {
    /// Of [`SWIGLU`] and [`SWIGLU_BACKWARD`].
    pub struct SwigluShape { results: u32, width: u32 }
}
/// The result.
pub static SWIGLU: Kernel = kernel!("swiglu", SwigluShape, 256);
/// The gradient in place, and the result once more.
pub static SWIGLU_BACKWARD: Kernel = kernel!("swiglu_backward", SwigluShape, 256);
