//! The three products of a linear layer `y = x·wᵀ`: forward, and backward in its input and its weight. On the processor
//! by [`crate::cpu::product`]; on a GPU with matrix units, where both factors are f16, by a kernel that multiplies
//! whole tiles (`product.wgsl`); elsewhere Burn's own, tuned for the device.
//!
//! Such units are what cooperative matrices are called for in WebGPU: NVIDIA's tensor cores, AMD's WMMA, Apple's
//! simdgroup matrices. Burn's WGSL does not use them, so its products run on the units for single values, which are
//! slower by far and reckon with f16 hardly faster than with f32. A workgroup makes 8 × 16 tiles from slabs of both
//! factors in workgroup memory, and fetches the next slabs into registers while it multiplies. Sums are f32; a weight's
//! gradient, of which there is one sum for all micro-batches, is added to in place. A small result of a long inner
//! dimension, as a weight's gradient is, would occupy few workgroups: several then share the inner dimension, and what
//! each leaves is added up.

use super::product::{add_product, product};
use crate::{
    choice::{self, Op},
    kernel::{Launch, MatrixUnits},
};
use burn::tensor::{DType, Tensor};
use nightjar_wgsl::{GROUPS_MAX, PRODUCT, ProductShape};

/// Workgroups that occupy a large GPU, and what one should at least have to do: so much of the inner dimension.
const WORKGROUPS: usize = 128;
const SHARE_MIN: usize = 512;
/// Most workgroups that share an inner dimension, each of which leaves a result of its own to be added up.
const SHARERS_MAX: usize = 16;

/// `x·wᵀ` of their type, for `x` `[n, in]` and `w` `[out, in]`.
pub fn linear(x: &Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    let by_kernel = Factors { a: x, turn_a: false, b: w, turn_b: true }.product();
    by_kernel.unwrap_or_else(|| product(x, &w.clone().transpose()))
}

/// `past + x·wᵀ` in f32.
///
/// # Panics
/// If `past` is of another shape or type.
pub fn linear_onto(past: Tensor<2>, x: &Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    assert_eq!((past.dims(), past.dtype()), ([x.dims()[0], w.dims()[0]], DType::F32), "what a product is added to");
    let factors = Factors { a: x, turn_a: false, b: w, turn_b: true };
    match factors.holds() {
        Some(units) => factors.launch(units, DType::F32, Some(past)),
        None => add_product(Some(past), x, &w.clone().transpose()),
    }
}

/// The gradient in `x`: `dy·w`, of their type.
pub fn linear_backward(dy: &Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    Factors { a: dy, turn_a: false, b: w, turn_b: false }.product().unwrap_or_else(|| product(dy, w))
}

/// The gradient in `w`, `dyᵀ·x` in f32, on top of what earlier rows gave.
///
/// # Panics
/// If that is of another shape or type.
pub fn linear_backward_weight(earlier: Option<Tensor<2>>, dy: &Tensor<2>, x: &Tensor<2>) -> Tensor<2> {
    if let Some(earlier) = &earlier {
        assert_eq!(
            (earlier.dims(), earlier.dtype()),
            ([dy.dims()[1], x.dims()[1]], DType::F32),
            "what a product is added to"
        );
    }
    let factors = Factors { a: dy, turn_a: true, b: x, turn_b: false };
    match factors.holds() {
        Some(units) => factors.launch(units, DType::F32, earlier),
        None => add_product(earlier, &dy.clone().transpose(), x),
    }
}

/// Two factors, each perhaps turned in memory.
struct Factors<'a> {
    a: &'a Tensor<2>,
    turn_a: bool,
    b: &'a Tensor<2>,
    turn_b: bool,
}

impl Factors<'_> {
    /// Of their type, if by the kernel.
    fn product(self) -> Option<Tensor<2>> {
        self.holds().map(|units| self.launch(units, DType::F16, None))
    }

    /// Rows, inner dimension, columns.
    fn dims(&self) -> [usize; 3] {
        let ([a0, a1], [b0, b1]) = (self.a.dims(), self.b.dims());
        let [rows, inner] = if self.turn_a { [a1, a0] } else { [a0, a1] };
        let [inner_b, columns] = if self.turn_b { [b1, b0] } else { [b0, b1] };
        assert_eq!(inner, inner_b, "inner dimensions of a product");
        [rows, inner, columns]
    }

    /// The units that multiply them, if the kernel is to: it reads and writes four values at a time, which must lie
    /// side by side.
    fn holds(&self) -> Option<MatrixUnits> {
        let units = MatrixUnits::current()?;
        let [rows, inner, columns] = self.dims();
        let in_fours = |tensor: &Tensor<2>| tensor.dims()[1].is_multiple_of(4);
        let fits = in_fours(self.a) && in_fours(self.b) && columns.is_multiple_of(4);
        let [across, down] = groups(units, rows, columns);
        let (sharers, _) = shares(across * down, inner, units.depth());
        let countable = choice::is_countable(sharers * rows * columns) && across.max(down) <= GROUPS_MAX;
        let takes = choice::takes(Op::Product, self.a) && choice::takes(Op::Product, self.b);
        (takes && fits && countable).then_some(units)
    }

    /// The product as a new tensor, or on top of one of the same type.
    fn launch(self, units: MatrixUnits, dtype: DType, past: Option<Tensor<2>>) -> Tensor<2> {
        let [rows, inner, columns] = self.dims();
        let [across, down] = groups(units, rows, columns);
        let (sharers, share) = shares(across * down, inner, units.depth());
        let [m, k, n, share] = [rows, inner, columns, share].map(|n| n as u32);
        let add = sharers == 1 && past.is_some();
        let launch = Launch::new(&PRODUCT, &ProductShape { rows: m, inner: k, columns: n, share })
            .constant("TURN_A", u32::from(self.turn_a))
            .constant("TURN_B", u32::from(self.turn_b))
            .constant("ADD", u32::from(add))
            .constant("LAPS", units.laps())
            .constant("TILE", units.tile)
            .read(self.a)
            .read(self.b);
        let run = |launch: Launch| launch.run_3d([across, down, sharers].map(|n| n as u32)).tensor::<2>();
        if sharers > 1 {
            let sums = run(launch.output([sharers, rows * columns]));
            let sum = sums.sum_dim(0).reshape([rows, columns]).cast(dtype);
            return match past {
                Some(past) => past + sum,
                None => sum,
            };
        }
        let launch = launch.elem(dtype);
        match past {
            Some(past) => run(launch.change(past)),
            None => run(launch.output_of([rows, columns], dtype)),
        }
    }
}

/// Workgroups across and down a result.
fn groups(units: MatrixUnits, rows: usize, columns: usize) -> [usize; 2] {
    let [high, wide] = units.sides();
    [columns.div_ceil(wide), rows.div_ceil(high)]
}

/// Into how many shares an inner dimension goes where so many workgroups make a result, and how much of it each has.
fn shares(workgroups: usize, inner: usize, depth: usize) -> (usize, usize) {
    let wanted = (WORKGROUPS / workgroups.max(1)).min(inner / SHARE_MIN).clamp(1, SHARERS_MAX);
    let share = inner.div_ceil(wanted).max(1).next_multiple_of(depth);
    (inner.div_ceil(share), share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_dimension_is_shared_where_workgroups_are_few() {
        assert_eq!(shares(200, 8192, 32), (1, 8192));
        assert_eq!(shares(18, 8192, 32), (7, 1184));
        assert_eq!(shares(1, 1 << 20, 32), (16, 1 << 16));
        assert_eq!(shares(1, 100, 32), (1, 128));
        // All of it is somebody's, and nobody's share is empty.
        for inner in (4..20_000).step_by(36) {
            for workgroups in [1, 7, 64, 128] {
                let (sharers, share) = shares(workgroups, inner, 16);
                assert!(share % 16 == 0 && (sharers - 1) * share < inner && inner <= sharers * share);
            }
        }
    }
}
