// RMSNorm backward. With h = x * r: dx += r * (gain * dy - h * mean(gain * dy * h)), in place, and for the gain's
// gradient a partial sum over ROWS rows; the caller adds those up. The gradient of the result becomes the result once more.
// One workgroup takes ROWS rows in turn, its 64 invocations every 64th column. The CPU twin is src/cpu/rms_norm.rs.
//
// Why: dy and x serve both gradients, and dx takes what flows past the norm; in single operations each is a pass over
// memory of its own. A column belongs to one invocation, so the partial sums need no atomics and their order is fixed.
// The result costs one write here, so nobody keeps it from the forward pass.

// Of the gradient that comes in, which a product made.
alias Elem = f32;

struct Shape {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read_write> dy: array<Elem>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> gain: array<f32>;
@group(0) @binding(3) var<storage, read_write> inverse: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(0) @binding(5) var<storage, read_write> dgain: array<f32>;
@group(0) @binding(6) var<storage, read_write> shape: Shape;

override ROWS: u32 = 16u;
const SIZE: u32 = 64u;
var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let part = group.y * groups.x + group.x;
    let width = shape.width;
    let real = part * ROWS < shape.rows;
    if real {
        for (var i = lane; i < width; i += SIZE) {
            dgain[part * width + i] = 0.0;
        }
    }
    // As many turns for every workgroup: barriers want control flow that nobody has to prove uniform.
    for (var turn = 0u; turn < ROWS; turn += 1u) {
        let row = part * ROWS + turn;
        let first = row * width;
        var along = 0.0;
        if row < shape.rows {
            for (var i = lane; i < width; i += SIZE) {
                along += f32(dy[first + i]) * x[first + i] * gain[i];
            }
        }
        partial[lane] = along;
        workgroupBarrier();
        for (var half = SIZE / 2u; half > 0u; half /= 2u) {
            if lane < half {
                partial[lane] += partial[lane + half];
            }
            workgroupBarrier();
        }
        if row < shape.rows {
            let r = inverse[row];
            let slope = partial[0] * r * r * r / f32(width);
            for (var i = lane; i < width; i += SIZE) {
                let g = f32(dy[first + i]) * r;
                dx[first + i] += g * gain[i] - x[first + i] * slope;
                dgain[part * width + i] += g * x[first + i];
                dy[first + i] = Elem(x[first + i] * r * gain[i]);
            }
        }
        // All have read partial[0] before the next turn writes it.
        workgroupBarrier();
    }
}
