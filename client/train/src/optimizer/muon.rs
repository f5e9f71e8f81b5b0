//! Muon (Jordan et al. 2024, github.com/KellerJordan/Muon): a matrix's step is its momentum with all singular values
//! brought near 1, so that no direction is stepped further than another. Scaled as in Moonlight (Liu et al., arXiv
//! 2502.16982), whose steps have AdamW's root mean square: learning rate and decay carry over.

use burn::tensor::Tensor;
use nightjar_shaders::op;
use std::ops::Range;

/// Of the quintic that is iterated: its slope at 0 is as steep as it can be with all of (0, 1] brought to about
/// 0.7 to 1.2 in five iterations.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ITERATIONS: usize = 5;
/// A norm below this is taken for it.
const NORM_MIN: f32 = 1e-7;
/// Root mean square of AdamW's steps, as Moonlight has measured it.
const ADAMW_RMS: f64 = 0.2;

/// The momentum after a gradient that is to be multiplied by `scale`: `μ·m + (1 − μ)·g`.
pub fn momentum(m: Tensor<2>, g: &Tensor<2>, scale: f32, momentum: f32) -> Tensor<2> {
    m.mul_scalar(momentum) + g.clone().mul_scalar((1.0 - momentum) * scale)
}

/// The step of a block of matrices, to be multiplied by the learning rate: of each, which has these rows, Nesterov's
/// momentum orthogonalised, with AdamW's root mean square.
pub fn step(m: &Tensor<2>, g: &Tensor<2>, scale: f32, momentum: f32, rows: &[Range<usize>]) -> Tensor<2> {
    let ahead = m.clone().mul_scalar(momentum) + g.clone().mul_scalar((1.0 - momentum) * scale);
    let columns = ahead.dims()[1];
    let scaled = |matrix: Tensor<2>| {
        let longer = matrix.dims()[0].max(columns) as f64;
        orthogonalised(matrix).mul_scalar((ADAMW_RMS * longer.sqrt()) as f32)
    };
    match rows {
        [_] => scaled(ahead),
        rows => Tensor::cat(rows.iter().map(|rows| scaled(ahead.clone().slice([rows.clone()]))).collect(), 0),
    }
}

/// The nearest matrix with singular values near 1, by Newton and Schulz's iteration: with `A = X·Xᵀ`,
/// `X ← a·X + (b·A + c·A²)·X`. In f32.
fn orthogonalised(matrix: Tensor<2>) -> Tensor<2> {
    let [rows, columns] = matrix.dims();
    // The square products have the shorter side.
    let is_tall = rows > columns;
    let wide = if is_tall { matrix.transpose() } else { matrix };
    let norm = op::sum_of_squares(&wide).sqrt().clamp_min(NORM_MIN).unsqueeze::<2>();
    let mut x = wide / norm;
    let [a, b, c] = QUINTIC;
    for _ in 0..ITERATIONS {
        let square = op::linear(&x, &x);
        // It is symmetric.
        let fourth = op::linear(&square, &square);
        let factor = square.mul_scalar(b) + fourth.mul_scalar(c);
        x = x.clone().mul_scalar(a) + op::linear_backward(&factor, &x);
    }
    if is_tall { x.transpose() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    fn random(dims: [usize; 2]) -> Tensor<2> {
        Tensor::random(dims, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// However long, or tall or wide, all its singular values come near 1: `tr(XXᵀ)` and `tr((XXᵀ)²)` tell it.
    #[test]
    fn singular_values_come_near_1() {
        for (dims, length) in [([16, 48], 1.0), ([48, 16], 1e-3), ([32, 32], 1e4)] {
            let x = orthogonalised(random(dims).mul_scalar(length));
            assert_eq!(x.dims(), dims);
            let least = dims[0].min(dims[1]) as f32;
            let gram =
                if dims[0] > dims[1] { x.clone().transpose().matmul(x) } else { x.clone().matmul(x.transpose()) };
            let second: f32 = values(gram.clone()).iter().map(|g| g * g).sum();
            let first: f32 = (0..least as usize).map(|i| values(gram.clone())[i * least as usize + i]).sum();
            assert!((0.6..1.3).contains(&(first / least)), "{dims:?}: mean of squares {}", first / least);
            assert!(second / least - (first / least).powi(2) < 0.15, "{dims:?}: they differ");
        }
    }

    #[test]
    fn each_matrix_of_a_block_is_orthogonalised_by_itself() {
        let (m, g) = (random([24, 16]), random([24, 16]));
        let both = values(step(&m, &g, 0.5, 0.9, &[0..8, 8..24]));
        let part = |rows: Range<usize>| {
            let [m, g] = [&m, &g].map(|t| t.clone().slice([rows.clone()]));
            values(step(&m, &g, 0.5, 0.9, std::slice::from_ref(&(0..rows.len()))))
        };
        let apart = [part(0..8), part(8..24)].concat();
        assert!(both.iter().zip(&apart).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn nothing_stays_nothing() {
        let zero = Tensor::zeros([8, 4], &Device::flex());
        assert!(values(step(&zero, &zero, 1.0, 0.95, std::slice::from_ref(&(0..8)))).iter().all(|x| *x == 0.0));
    }
}
