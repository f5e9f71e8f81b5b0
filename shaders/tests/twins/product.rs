//! The products of a linear layer by matrix units. Where the device has none (of Mesa's software driver it is those
//! before 2025), other functions of ours stand in for them.

use super::common::{self, close, draw, read, recording, same_bits, upload, upload_half};
use burn::tensor::{DType, Device, Tensor};
use nightjar_shaders::{
    cpu::product::{Matrices, product},
    kernel::{MatrixUnits, substitute},
    op,
    table::KERNELS,
};

/// Rows, inner dimension, columns: below a tile, beside its edges, more than a workgroup makes either way, more than
/// two slabs deep, and one that several workgroups share.
const SIZES: [[usize; 3]; 6] =
    [[1, 4, 4], [61, 36, 20], [64, 40, 132], [130, 72, 260], [300, 260, 140], [36, 2052, 40]];

/// `a·b`, either of them turned in memory.
fn want(a: &[f32], turn_a: bool, b: &[f32], turn_b: bool, [rows, inner, columns]: [usize; 3]) -> Vec<f32> {
    let strides = |turned: bool, rows: usize, columns: usize| if turned { [0, 0, 1, rows] } else { [0, 0, columns, 1] };
    let a = Matrices::new(a, [1, 1, rows, inner], strides(turn_a, rows, inner)).unwrap();
    let b = Matrices::new(b, [1, 1, inner, columns], strides(turn_b, inner, columns)).unwrap();
    product(a, b)
}

/// Normal numbers of which a sum of so many products is about 1.
fn factor(seed: u64, stream: u64, shape: [usize; 2], inner: usize, device: &Device) -> Option<(Tensor<2>, Vec<f32>)> {
    let values: Vec<f32> =
        draw(seed, stream, shape[0] * shape[1]).iter().map(|x| x / (inner as f32).powf(0.25)).collect();
    upload_half(&values, shape, device)
}

pub fn check(device: &Device, seed: u64) -> Result<(), String> {
    if let Some(units) = MatrixUnits::current() {
        println!("{units:?}");
        return products(device, seed);
    }
    let kernel = substitute("product", None);
    let ships = KERNELS.iter().find(|kernel| kernel.name == "product").ok_or("no kernel")?.source;
    let source = kernel.as_deref().unwrap_or(ships);
    // More subgroups than a workgroup has parts, and half as many, which make two laps.
    let of_all = [16, 64].into_iter().try_for_each(|subgroup| {
        MatrixUnits::set(Some(MatrixUnits { tile: 8, subgroup }));
        substitute("product", Some(stand_in(source, subgroup).into()));
        products(device, seed).map_err(|e| format!("by stand-ins of {subgroup}: {e}"))
    });
    MatrixUnits::set(None);
    substitute("product", kernel);
    of_all
}

/// The kernel for a device without matrix units: a tile is a place in memory, or what each invocation of a subgroup
/// holds of a sum. Slow, but all else is as it ships: what goes where, laps, shares.
fn stand_in(source: &str, subgroup: u32) -> String {
    let mut text = source.to_owned();
    let mut put = |from: &str, to: &str| {
        assert!(text.contains(from), "product.wgsl has no '{from}'");
        text = text.replace(from, to);
    };
    put("enable wgpu_cooperative_matrix;\n", "");
    put("alias Left = coop_mat16x16<f16, A>;\n", "struct Left { by_rows: bool, at: u32, stride: u32 }\n");
    put("alias Right = coop_mat16x16<f16, B>;\n", "struct Right { by_rows: bool, at: u32, stride: u32 }\n");
    // A component of a vector could not be written beside another.
    put("array<vec4<f32>, 8u * STRIPE>", "array<f32, 32u * STRIPE>");
    let four = [0, 1, 2, 3].map(|n| format!("stripes[4u * i + {n}u]")).join(", ");
    put("var sum = stripes[i];", &format!("var sum = vec4<f32>({four});"));
    put("alias Sum = coop_mat16x16<f32, C>;\n", "alias Sum = array<f32, TILE * TILE / LANES>;\n");
    for (tile, slab, strides) in [("Left", "a", ["WIDE_A", "LONG"]), ("Right", "b", ["LONG", "WIDE_B"])] {
        // A mutant may have only one of the two.
        for (load, by_rows) in [("coopLoadT", true), ("coopLoad", false)] {
            text = text.replace(&format!("{load}<{tile}>(&slab_{slab}["), &format!("{tile}({by_rows}, "));
        }
        for stride in strides {
            text = text.replace(&format!("], {stride});\n"), &format!(", {stride});\n"));
        }
    }
    let text =
        text.replace("coopMultiplyAdd(", "multiply_add(").replace("coopStoreT(", "store(").replace("&stripes[", "");
    let text = text.replace("], TILE / 2u);", ", TILE / 2u);");
    let text =
        text.replace("    @builtin(subgroup_id) subgroup: u32,\n    @builtin(num_subgroups) subgroups: u32,\n", "");
    let begin = "    let row = group.y * ROWS;\n";
    let parts = "    let subgroups = 256u / LANES;\n    let subgroup = lane / LANES;\n    own = lane % LANES;\n";
    let text = text.replace(begin, &format!("{parts}{begin}"));
    text + &STAND_IN.replace("LANES_OF_ONE", &format!("{subgroup}u"))
}

const STAND_IN: &str = "
const LANES: u32 = LANES_OF_ONE;
var<private> own: u32;

// A value's place in a tile that lies by rows or by columns, rows so many quads apart.
fn place(by_rows: bool, at: u32, stride: u32, row: u32, column: u32) -> u32 {
    return 4u * at + select(column * 4u * stride + row, row * 4u * stride + column, by_rows);
}

fn multiply_add(l: Left, r: Right, sum: Sum) -> Sum {
    var out = sum;
    for (var i = 0u; i < TILE * TILE / LANES; i++) {
        let row = (i * LANES + own) / TILE;
        let column = (i * LANES + own) % TILE;
        for (var k = 0u; k < TILE; k++) {
            let x = place(l.by_rows, l.at, l.stride, row, k);
            let y = place(r.by_rows, r.at, r.stride, k, column);
            out[i] += f32(slab_a[x / 4u][x % 4u]) * f32(slab_b[y / 4u][y % 4u]);
        }
    }
    return out;
}

fn store(sum: Sum, at: u32, stride: u32) {
    var values = sum;
    for (var i = 0u; i < TILE * TILE / LANES; i++) {
        let to = place(true, at, stride, (i * LANES + own) / TILE, (i * LANES + own) % TILE);
        stripes[to] = values[i];
    }
}
";

fn products(device: &Device, seed: u64) -> Result<(), String> {
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

        let Some((dy, dy_values)) = factor(seed, 10, [rows, columns], columns, device) else {
            return Err("no f16".into());
        };
        let [y, dx, dw] = of_burn(&a_values, &b_values, &dy_values, dims)?;
        whole("forward against Burn", op::linear(&a, &b), &y, DType::F16)?;
        close(&what("dx against autodiff"), op::linear_backward(&dy, &b), &dx, 1e-3)?;
        close(&what("dw against autodiff"), op::linear_backward_weight(None, &dy, &a), &dw, 1e-4)?;

        let Some((b, b_values)) = factor(seed, 4, [inner, columns], inner, device) else { return Err("no f16".into()) };
        let result = want(&a_values, false, &b_values, false, dims);
        whole("backward", op::linear_backward(&a, &b), &result, DType::F16)?;

        // Whose rows are the other way round: four of them lie side by side.
        if rows % 4 == 0 {
            let Some((a, a_values)) = factor(seed, 5, [inner, rows], inner, device) else {
                return Err("no f16".into());
            };
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
    same_bits("rows beside those that are not finite", &got, &clean)
}

/// Burn's own gradients of `(x·wᵀ · dy).sum()`, in f32.
fn of_burn(x: &[f32], w: &[f32], dy: &[f32], [rows, inner, columns]: [usize; 3]) -> Result<[Vec<f32>; 3], String> {
    let device = recording();
    let x = upload(x, [rows, inner], &device).require_grad();
    let w = upload(w, [columns, inner], &device).require_grad();
    let y = x.clone().matmul(w.clone().transpose());
    let gradients = (y.clone() * upload(dy, [rows, columns], &device)).sum().backward();
    let of = |tensor: &Tensor<2>| tensor.grad(&gradients).ok_or("no gradient");
    Ok([read(y)?, read(of(&x)?)?, read(of(&w)?)?])
}

/// A weight's gradient of no rows is nothing, and adds nothing: never what lay in memory.
#[test]
fn no_rows_make_nothing() {
    for device in [Some(Device::flex()), common::device()].into_iter().flatten() {
        for round in 0..3 {
            // What memory is taken from next has something in it.
            let left_behind = read(upload(&[7.0; 15], [3, 5], &device) * 2.0).unwrap();
            assert_eq!(left_behind, [14.0; 15], "round {round}");
            let (dy, x) = (Tensor::zeros([0, 3], &device), Tensor::zeros([0, 5], &device));
            assert_eq!(read(op::linear_backward_weight(None, &dy, &x)).unwrap(), [0.0; 15]);
            let earlier = upload(&[2.5; 15], [3, 5], &device);
            assert_eq!(read(op::linear_backward_weight(Some(earlier), &dy, &x)).unwrap(), [2.5; 15]);
            assert_eq!(op::linear(&x, &Tensor::ones([4, 5], &device)).dims(), [0, 4]);
        }
    }
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
    ("product", "return coopLoadT<Left>(", "return coopLoad<Left>("),
    ("product", "return coopLoad<Right>(", "return coopLoadT<Right>("),
    ("product", "return coopLoadT<Right>(", "return coopLoad<Right>("),
];
