// The sum of squares of a tensor, in two launches of this kernel: first SQUARE = 1, a workgroup for each span of values;
// then SQUARE = 0, one workgroup over the sums. An infinite or missing number anywhere makes the result NaN.
// The CPU twin is sum_of_squares in src/cpu/adamw.rs.
//
// Why: spans and order are fixed, so the same gradient gives the same bits; no atomics, whose order is anyone's guess.
// WGSL may take NaN and infinity for impossible, so they are looked for in the bits.

struct Shape {
    values: u32,
    // Values of a workgroup.
    span: u32,
}

@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@group(0) @binding(2) var<storage, read_write> shape: Shape;

override SQUARE: u32 = 1u;
const SIZE: u32 = 256u;
const EXPONENT: u32 = 0x7f800000u;
const NAN: u32 = 0x7fc00000u;
var<workgroup> partial: array<f32, 256>;
var<workgroup> is_bad: array<u32, 256>;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    let first = index * shape.span;
    let end = min(first + shape.span, shape.values);
    var sum = 0.0;
    var bad = 0u;
    for (var i = first + lane; i < end; i += SIZE) {
        let bits = values[i];
        bad |= u32((bits & EXPONENT) == EXPONENT);
        let v = bitcast<f32>(bits);
        sum += select(v, v * v, SQUARE == 1u);
    }
    partial[lane] = sum;
    is_bad[lane] = bad;
    workgroupBarrier();
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] += partial[lane + half];
            is_bad[lane] |= is_bad[lane + half];
        }
        workgroupBarrier();
    }
    if lane == 0u && first < shape.values {
        sums[index] = select(bitcast<u32>(partial[0]), NAN, is_bad[0] != 0u);
    }
}
