//! Matrix products by the `gemm` crate, which Burn's `flex` device computes them with as well. Burn fills a result with
//! zeros, copies that to where it is aligned, and cannot add to what is there; here a result is written once, or added
//! to. On two cores that makes a step of 0.8, 10 and 125 million parameters 1.3, 1.15 and 1.2 times as fast (`cargo
//! xtask bench train`).

use gemm::Parallelism;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// A batch of matrices of one shape that lie in one slice, each number where the strides say.
#[derive(Clone, Copy, Debug)]
pub struct Matrices<'a> {
    values: &'a [f32],
    /// Two dimensions of the batch, rows, columns.
    dims: [usize; 4],
    strides: [usize; 4],
}

/// Multiplications below which one product is not worth a second thread: about a tenth of a millisecond.
const SHARED_FROM: usize = 192 * 192 * 192;

impl<'a> Matrices<'a> {
    /// `None` where a number would lie outside of `values`.
    pub fn new(values: &'a [f32], dims: [usize; 4], strides: [usize; 4]) -> Option<Self> {
        let mut last = 0usize;
        for (dim, stride) in dims.iter().zip(strides) {
            last = last.checked_add(dim.saturating_sub(1).checked_mul(stride)?)?;
        }
        (dims.contains(&0) || last < values.len()).then_some(Matrices { values, dims, strides })
    }

    /// Matrices in all.
    fn count(&self) -> usize {
        self.dims[0] * self.dims[1]
    }

    /// The first number of matrix `i`.
    fn at(&self, i: usize) -> &'a f32 {
        &self.values[i / self.dims[1] * self.strides[0] + i % self.dims[1] * self.strides[1]]
    }
}

/// `a·b` of each pair, one behind the other, each row by row.
///
/// # Panics
/// If the batches are not the same, or `a`'s columns are not `b`'s rows.
pub fn product(a: Matrices, b: Matrices) -> Vec<f32> {
    let [count, each] = [a.count(), a.dims[2] * b.dims[3]];
    assert!(a.dims[..2] == b.dims[..2] && a.dims[3] == b.dims[2], "{:?} times {:?}", a.dims, b.dims);
    if count * each * a.dims[3] == 0 {
        return vec![0.0; count * each];
    }
    let multiplications = each * a.dims[3];
    let mut out = Vec::with_capacity(count * each);
    let room = &mut out.spare_capacity_mut()[..count * each];
    let one = |(i, out): (usize, &mut [MaybeUninit<f32>]), threads| multiply(a, b, i, To::Room(out), threads);
    // Where there are enough matrices each thread takes whole ones, and packs nothing that another one packs too.
    if count >= 4.max(rayon::current_num_threads() / 2) && count * multiplications >= SHARED_FROM {
        room.par_chunks_mut(each).enumerate().for_each(|chunk| one(chunk, Parallelism::None));
    } else {
        room.chunks_mut(each).enumerate().for_each(|chunk| one(chunk, threads(multiplications)));
    }
    // SAFETY: each matrix wrote all of its chunk.
    #[allow(unsafe_code)]
    unsafe {
        out.set_len(count * each);
    }
    out
}

/// `sum + a·b`, of one matrix each, in `sum`'s place.
///
/// # Panics
/// If `a`'s columns are not `b`'s rows, or `sum` is not as long as their product.
pub fn add_product(sum: &mut [f32], a: Matrices, b: Matrices) {
    let fits = a.dims[3] == b.dims[2] && sum.len() == a.dims[2] * b.dims[3];
    assert!(a.count() == 1 && b.count() == 1 && fits, "{:?} times {:?} onto {}", a.dims, b.dims, sum.len());
    let multiplications = sum.len() * a.dims[3];
    if multiplications > 0 {
        multiply(a, b, 0, To::Sum(sum), threads(multiplications));
    }
}

fn threads(multiplications: usize) -> Parallelism {
    if multiplications >= SHARED_FROM { Parallelism::Rayon(0) } else { Parallelism::None }
}

/// Where a product goes.
enum To<'a> {
    /// Room that nothing is in yet.
    Room(&'a mut [MaybeUninit<f32>]),
    /// Onto what is there.
    Sum(&'a mut [f32]),
}

/// The product of pair `i`, none of whose dimensions is 0.
fn multiply(a: Matrices, b: Matrices, i: usize, to: To<'_>, parallelism: Parallelism) {
    let [_, _, rows, inner] = a.dims;
    let columns = b.dims[3];
    let (out, len, add) = match to {
        To::Room(room) => (room.as_mut_ptr().cast::<f32>(), room.len(), false),
        To::Sum(sum) => (sum.as_mut_ptr(), sum.len(), true),
    };
    assert!(len == rows * columns && inner == b.dims[2], "{:?} times {:?} to {len}", a.dims, b.dims);
    let stride = |m: &Matrices, dim: usize| m.strides[dim] as isize;
    // SAFETY: `Matrices::new` saw that all numbers of `a` and `b` are in their slices; `out` is rows × columns numbers,
    // which are read only where they are added to.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out,
            1,
            columns as isize,
            add,
            a.at(i),
            stride(&a, 3),
            stride(&a, 2),
            b.at(i),
            stride(&b, 3),
            stride(&b, 2),
            1.0f32,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
