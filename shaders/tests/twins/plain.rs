//! The kernels of those who speak to WebGPU by themselves: the product in f32, the embedding, sums of columns. Burn has
//! its own, so no operation launches these; here they are launched as they are.

use super::common::{close, draw, read, same_bits, upload};
use burn::tensor::{Device, Tensor};
use nightjar_shaders::{
    cpu::{self, product::Matrices},
    kernel::Launch,
};
use nightjar_shared::rng;
use nightjar_wgsl::{
    COLUMN_SUMS, ColumnSumsShape, EMBEDDING, EMBEDDING_BACKWARD, EmbeddingBackwardShape, EmbeddingShape, PRODUCT_F32,
    PRODUCT_F32_TILE, ProductF32Shape,
};

/// Rows, inner dimension, columns: one number, beside the edges of a quad, a slab and a tile, several tiles and slabs.
const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [3, 5, 2], [64, 16, 64], [65, 17, 63], [130, 33, 70], [20, 300, 129]];

pub fn product(device: &Device, seed: u64) -> Result<(), String> {
    for [rows, inner, columns] in SIZES {
        let (a, b, past) = (draw(seed, 1, rows * inner), draw(seed, 2, inner * columns), draw(seed, 3, rows * columns));
        for turned in 0..4 {
            let (turn_a, turn_b) = (turned & 1, turned >> 1);
            let strides = |turn: u32, height: usize, width: usize| match turn {
                0 => [0, 0, width, 1],
                _ => [0, 0, 1, height],
            };
            let fit = "factors fit their slices";
            let left = Matrices::new(&a, [1, 1, rows, inner], strides(turn_a, rows, inner)).expect(fit);
            let right = Matrices::new(&b, [1, 1, inner, columns], strides(turn_b, inner, columns)).expect(fit);
            let [on_a, on_b] = [&a, &b].map(|values| upload(values, [values.len()], device));
            let launch = || {
                let [rows, inner, columns] = [rows, inner, columns].map(|n| n as u32);
                Launch::new(&PRODUCT_F32, &ProductF32Shape { rows, inner, columns })
                    .constant("TURN_A", turn_a)
                    .constant("TURN_B", turn_b)
                    .read(&on_a)
                    .read(&on_b)
            };
            let groups = [columns.div_ceil(PRODUCT_F32_TILE) as u32, rows.div_ceil(PRODUCT_F32_TILE) as u32, 1];
            let what = format!("{rows}x{inner}x{columns}, turned {turn_a}{turn_b}");
            let tolerance = 1e-6 * (inner as f32).sqrt();
            let got: Tensor<1> = launch().output([rows * columns]).run_3d(groups).tensor();
            let mut want = cpu::product::product(left, right);
            close(&what, got, &want, tolerance)?;
            let onto = launch().constant("ADD", 1).change(upload(&past, [past.len()], device));
            want.iter_mut().zip(&past).for_each(|(sum, past)| *sum += past);
            close(&format!("onto {what}"), onto.run_3d(groups).tensor::<1>(), &want, tolerance)?;
        }
    }
    Ok(())
}

pub const PRODUCT_MUTANTS: &[(&str, &str, &str)] = &[
    ("product_f32", "s2 += left.z * right", "s2 += left.y * right"),
    ("product_f32", "value_a(row, k), value_a(row + 1u, k)", "value_a(row + 1u, k), value_a(row, k)"),
    ("product_f32", "sum += c[at]", "sum -= c[at]"),
    ("product_f32", "return b[column * shape.inner + k]", "return b[k * shape.columns + column]"),
    ("product_f32", "inner_shared = shape.inner;", "inner_shared = shape.inner - 1u;"),
];

/// Tokens and width, around the workgroups' sizes and beyond a row of them.
const TABLES: [(usize, usize); 5] = [(1, 1), (5, 63), (9, 64), (33, 65), (1_500, 3)];
const HEIGHT: usize = 11;

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    (0..count as u64).map(|i| rng::below(seed, 7, i, HEIGHT as u64) as u32).collect()
}

pub fn embedding(device: &Device, seed: u64) -> Result<(), String> {
    for (count, width) in TABLES {
        let (table, tokens) = (draw(seed, 1, HEIGHT * width), tokens(seed, count));
        let shape = EmbeddingShape { values: (count * width) as u32, width: width as u32 };
        let on = upload(&table, [table.len()], device);
        let launch = Launch::new(&EMBEDDING, &shape).read(&on).words(tokens.iter().copied());
        let got: Tensor<1> = launch.output([count * width]).run((count * width).div_ceil(256)).tensor();
        let mut want = vec![0.0; count * width];
        cpu::embedding::forward(&table, width, &tokens, &mut want);
        same_bits(&format!("{count} rows of {width}"), &read(got)?, &want)?;
    }
    Ok(())
}

pub const EMBEDDING_MUTANTS: &[(&str, &str, &str)] = &[("embedding", "+ at % shape.width", "+ at / shape.width * 0u")];

pub fn embedding_backward(device: &Device, seed: u64) -> Result<(), String> {
    for (count, width) in TABLES {
        let (dy, tokens) = (draw(seed, 2, count * width), tokens(seed, count));
        let mut want = draw(seed, 3, HEIGHT * width);
        let mut order: Vec<u32> = (0..count as u32).collect();
        order.sort_by_key(|place| (tokens[*place as usize], *place));
        let shape = EmbeddingBackwardShape { tokens: count as u32, width: width as u32 };
        let launch = Launch::new(&EMBEDDING_BACKWARD, &shape).read(&upload(&dy, [dy.len()], device));
        let launch = launch.words(tokens.iter().copied()).words(order.iter().copied());
        let got: Tensor<1> = launch.change(upload(&want, [want.len()], device)).run(count).tensor();
        cpu::embedding::backward(&dy, width, &tokens, &mut want);
        same_bits(&format!("gradients of {count} rows of {width}"), &read(got)?, &want)?;
    }
    Ok(())
}

pub const EMBEDDING_BACKWARD_MUTANTS: &[(&str, &str, &str)] = &[
    ("embedding_backward", "first > 0u &&", "first > 1u &&"),
    ("embedding_backward", "var i = first;", "var i = first + 1u;"),
];

pub fn column_sums(device: &Device, seed: u64) -> Result<(), String> {
    for (rows, width) in TABLES {
        let (parts, mut want) = (draw(seed, 4, rows * width), draw(seed, 5, width));
        let shape = ColumnSumsShape { rows: rows as u32, width: width as u32 };
        let launch = Launch::new(&COLUMN_SUMS, &shape).read(&upload(&parts, [parts.len()], device));
        let got: Tensor<1> = launch.change(upload(&want, [width], device)).run(width.div_ceil(64)).tensor();
        for row in parts.chunks(width) {
            want.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        same_bits(&format!("sums of {rows} rows of {width}"), &read(got)?, &want)?;
    }
    Ok(())
}

pub const COLUMN_SUMS_MUTANTS: &[(&str, &str, &str)] = &[("column_sums", "var row = 0u;", "var row = 1u;")];
