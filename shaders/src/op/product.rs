//! Matrix products: on the processor by [`crate::cpu::product`], elsewhere Burn's own, tuned for the device.

use super::host::{Strided, Target, tensor};
use crate::cpu;
use burn::tensor::{DType, Tensor};

/// `a·b`, of the last two dimensions, of one type.
///
/// Both must have the same other dimensions, and be on one device.
///
/// # Panics
/// If `a` has not as many columns as `b` has rows.
pub fn product<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> Tensor<D> {
    let mut dims = a.dims();
    assert_eq!(dims[D - 1], b.dims()[D - 2], "columns of {dims:?} for the rows of {:?}", b.dims());
    if dims[D - 1] == 0 {
        // Burn leaves memory as it finds it where there is nothing to add up.
        dims[D - 1] = b.dims()[D - 1];
        return Tensor::zeros(dims, (&a.device(), a.dtype()));
    }
    let (Some(left), Some(right)) = (Strided::of(a), Strided::of(b)) else { return a.clone().matmul(b.clone()) };
    dims[D - 1] = b.dims()[D - 1];
    tensor(cpu::product::product(left.matrices(), right.matrices()), dims)
}

/// `sum + a·b` in f32, whatever type the product is computed in; with no `sum` the product alone.
pub fn add_product(sum: Option<Tensor<2>>, a: &Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
    let Some(sum) = sum else { return product(a, b).cast(DType::F32) };
    let (Some(left), Some(right)) = (Strided::of(a), Strided::of(b)) else {
        return sum + product(a, b).cast(DType::F32);
    };
    let mut sum = Target::of(sum).expect("all operands are f32 on one device");
    cpu::product::add_product(sum.slice(), left.matrices(), right.matrices());
    sum.tensor()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    fn random<const D: usize>(dims: [usize; D]) -> Tensor<D> {
        Tensor::random(dims, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn assert_close<const D: usize>(got: Tensor<D>, want: Tensor<D>) {
        assert_eq!(got.dims(), want.dims());
        let [got, want] = [got, want].map(|t| t.into_data().try_to_vec::<f32>().unwrap());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "value {i} is {got} instead of {want}");
        }
    }

    #[test]
    fn a_product_is_burns_however_its_factors_lie() {
        // Below and above what is worth several threads; odd sizes.
        for [m, k, n] in [[1, 1, 1], [5, 17, 3], [64, 129, 33], [200, 301, 257]] {
            let (a, b, sum) = (random([m, k]), random([k, n]), random([m, n]));
            let (at, bt) = (a.clone().transpose() * 1.0, b.clone().transpose() * 1.0);
            for a in [a.clone(), at.transpose(), a.clone().flip([0]).flip([0])] {
                for b in [b.clone(), bt.clone().transpose()] {
                    let want = a.clone().matmul(b.clone());
                    assert_close(product(&a, &b), want.clone());
                    assert_close(add_product(None, &a, &b), want.clone());
                    // What others hold too stays as it is.
                    assert_close(add_product(Some(sum.clone()), &a, &b), sum.clone() + want);
                }
            }
        }
    }

    #[test]
    fn a_batch_is_multiplied_pair_by_pair() {
        for [rows, size] in [[3, 5], [150, 64]] {
            let (a, b) = (random([2, 3, rows, size]), random([2, 3, size, rows + 1]));
            assert_close(product(&a, &b), a.clone().matmul(b));
            // As attention takes them: a part of the keys, turned.
            let keys = random([2, 3, rows + 7, size]).narrow(2, 2, rows).transpose();
            assert_close(product(&a, &keys), a.clone().matmul(keys));
            let one = a.clone().narrow(0, 1, 1).narrow(1, 2, 1);
            assert_close(product(&one.clone().transpose(), &one), one.clone().transpose().matmul(one));
        }
    }

    #[test]
    fn nothing_times_nothing_is_nothing() {
        let nothing = |dims| Tensor::<2>::zeros(dims, &Device::flex());
        assert_close(product(&nothing([2, 0]), &nothing([0, 3])), nothing([2, 3]));
        assert_eq!(product(&nothing([0, 4]), &random([4, 3])).dims(), [0, 3]);
        let sum = random([2, 3]);
        assert_close(add_product(Some(sum.clone()), &nothing([2, 0]), &nothing([0, 3])), sum);
    }
}
