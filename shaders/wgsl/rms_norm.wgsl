// RMSNorm forward: y = gain * x / sqrt(mean(x^2) + eps), and each row's 1/sqrt(mean(x^2) + eps) for the gradient.
// One workgroup a row; its 64 invocations take every 64th column. The CPU twin is src/cpu/rms_norm.rs.
//
// Why: Burn makes a reduction and then a pass, so x is read from memory twice; here the second reading finds it in cache.

// Of the result, which a product takes.
alias Elem = f32;

struct Shape {
    rows: u32,
    width: u32,
    eps: f32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> gain: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<Elem>;
@group(0) @binding(3) var<storage, read_write> inverse: array<f32>;
@group(0) @binding(4) var<storage, read_write> shape: Shape;

const SIZE: u32 = 64u;
var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    let width = shape.width;
    // The same for all invocations of a workgroup; the barriers stand outside of it all the same.
    let real = row < shape.rows;
    let first = row * width;

    var squares = 0.0;
    if real {
        for (var i = lane; i < width; i += SIZE) {
            squares += x[first + i] * x[first + i];
        }
    }
    partial[lane] = squares;
    workgroupBarrier();
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }

    if real {
        let r = 1.0 / sqrt(partial[0] / f32(width) + shape.eps);
        if lane == 0u {
            inverse[row] = r;
        }
        for (var i = lane; i < width; i += SIZE) {
            y[first + i] = Elem(x[first + i] * r * gain[i]);
        }
    }
}
