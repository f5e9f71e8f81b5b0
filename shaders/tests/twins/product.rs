//! The products of a linear layer by matrix units, where the device has such. Mesa's software driver has since 2025.

use super::common::{close, draw, read, same_bits, upload, upload_half};
use burn::tensor::{DType, Device, Tensor};
use nightjar_shaders::{
    cpu::product::{Matrices, product},
    kernel::MatrixUnits,
    op,
};

/// Rows, inner dimension, columns: below a tile, beside its edges, more than a workgroup makes either way, more than two slabs
/// deep, and one that several workgroups share.
const SIZES: [[usize; 3]; 6] = [[1, 4, 4], [61, 36, 20], [64, 40, 132], [130, 72, 260], [300, 260, 140], [36, 2052, 40]];

/// `a·b`, either of them turned in memory.
fn want(a: &[f32], turn_a: bool, b: &[f32], turn_b: bool, [rows, inner, columns]: [usize; 3]) -> Vec<f32> {
    let strides = |turned: bool, rows: usize, columns: usize| if turned { [0, 0, 1, rows] } else { [0, 0, columns, 1] };
    let a = Matrices::new(a, [1, 1, rows, inner], strides(turn_a, rows, inner)).unwrap();
    let b = Matrices::new(b, [1, 1, inner, columns], strides(turn_b, inner, columns)).unwrap();
    product(a, b)
}

/// Normal numbers of which a sum of so many products is about 1.
fn factor(seed: u64, stream: u64, shape: [usize; 2], inner: usize, device: &Device) -> Option<(Tensor<2>, Vec<f32>)> {
    let values: Vec<f32> = draw(seed, stream, shape[0] * shape[1]).iter().map(|x| x / (inner as f32).powf(0.25)).collect();
    upload_half(&values, shape, device)
}

pub fn check(device: &Device, seed: u64) -> Result<(), String> {
    let units = MatrixUnits::current().ok_or("no matrix units")?;
    println!("{units:?}");
    for dims @ [rows, inner, columns] in SIZES {
        let what = |name: &str| format!("{name} {rows}x{inner}x{columns}");
        let whole = |name: &str, got: Tensor<2>, want: &[f32], dtype: DType| {
            let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-3 };
            if (got.dims(), got.dtype()) != ([rows, columns], dtype) {
                return Err(format!("{} is {:?} of {:?}", what(name), got.dims(), got.dtype()));
            }
            close(&what(name), got, want, tolerance)
        };
        let Some((a, a_values)) = factor(seed, 1, [rows, inner], inner, device) else { return Err("no f16".into()) };
        let Some((b, b_values)) = factor(seed, 2, [columns, inner], inner, device) else { return Err("no f16".into()) };
        let result = want(&a_values, false, &b_values, true, dims);
        whole("forward", op::linear(&a, &b), &result, DType::F16)?;
        let past = draw(seed, 3, rows * columns);
        let on_past = upload(&past, [rows, columns], device);
        let sum: Vec<f32> = past.iter().zip(&result).map(|(past, y)| past + y).collect();
        whole("forward onto", op::linear_onto(on_past.clone(), &a, &b), &sum, DType::F32)?;
        same_bits("what was added to, held by another", &read(on_past)?, &past)?;

        let Some((b, b_values)) = factor(seed, 4, [inner, columns], inner, device) else { return Err("no f16".into()) };
        let result = want(&a_values, false, &b_values, false, dims);
        whole("backward", op::linear_backward(&a, &b), &result, DType::F16)?;

        // Whose rows are the other way round: four of them lie side by side.
        if rows % 4 == 0 {
            let Some((a, a_values)) = factor(seed, 5, [inner, rows], inner, device) else { return Err("no f16".into()) };
            let result = want(&a_values, true, &b_values, false, dims);
            whole("backward in the weight", op::linear_backward_weight(None, &a, &b), &result, DType::F32)?;
            let earlier = upload(&past, [rows, columns], device);
            let sum: Vec<f32> = past.iter().zip(&result).map(|(past, y)| past + y).collect();
            whole("backward onto", op::linear_backward_weight(Some(earlier), &a, &b), &sum, DType::F32)?;
        }
    }
    // What the kernel does not take goes Burn's way.
    let Some((a, a_values)) = factor(seed, 6, [5, 7], 7, device) else { return Err("no f16".into()) };
    let Some((b, b_values)) = factor(seed, 7, [3, 7], 7, device) else { return Err("no f16".into()) };
    close("odd", op::linear(&a, &b), &want(&a_values, false, &b_values, true, [5, 7, 3]), 1e-3)?;
    // What is no number spoils its row and its column, and nothing else.
    let (rows, inner, columns) = (20, 8, 24);
    let Some((a, mut values)) = factor(seed, 8, [rows, inner], inner, device) else { return Err("no f16".into()) };
    let Some((b, _)) = factor(seed, 9, [columns, inner], inner, device) else { return Err("no f16".into()) };
    let clean = read(op::linear(&a, &b))?;
    (values[3 * inner + 2], values[17 * inner]) = (f32::NAN, f32::INFINITY);
    let Some((sick, _)) = upload_half(&values, [rows, inner], device) else { return Err("no f16".into()) };
    let mut got = read(op::linear(&sick, &b))?;
    for row in [3, 17] {
        let spoilt = row * columns..(row + 1) * columns;
        if got[spoilt.clone()].iter().any(|x| x.is_finite()) {
            return Err(format!("row {row} of what is not finite is finite"));
        }
        got[spoilt.clone()].copy_from_slice(&clean[spoilt]);
    }
    same_bits("rows beside those that are not finite", &got, &clean)?;
    Ok(())
}

pub const MUTANTS: &[(&str, &str, &str)] = &[
    ("product", "s33 = coopMultiplyAdd(l3, r3, s33);", "s33 = coopMultiplyAdd(l3, r2, s33);"),
    ("product", "let l2 = left(top + 2u * TILE, k);", "let l2 = left(top, k);"),
    ("product", "outer >= shape.rows || inner >= shape.inner", "outer >= shape.rows"),
    ("product", "sum += vec4<f32>(c[quad]);", "sum -= vec4<f32>(c[quad]);"),
    ("product", "is.group.z * shape.rows + y", "y"),
    ("product", "let first = group.z * shape.share;", "let first = 0u;"),
    ("product", "let part = (lap * subgroups + subgroup) % 8u;", "let part = (lap * subgroups + subgroup) % 4u;"),
    ("product", "(part / 4u * 4u + down) * TILE", "(part / 4u * 4u) * TILE"),
    ("product", "return b[(outer * shape.inner + inner) / 4u];", "return b[(inner * shape.columns + outer) / 4u];"),
    ("product", "return a[(inner * shape.rows + outer) / 4u];", "return a[(outer * shape.inner + inner) / 4u];"),
    ("product", "return coopLoad<Left>(", "return coopLoadT<Left>("),
];
