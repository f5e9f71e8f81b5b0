// SwiGLU forward: of each row [gate | up], y = gate * sigmoid(gate) * up. One invocation a result.
// The CPU twin is src/cpu/swiglu.rs.
//
// Why: Burn may fuse the operations, but reads both halves as strided views; the rows of a packed product need no cutting.

// Of what a product makes and takes; sums and functions are f32's all the same.
alias Elem = f32;

struct Shape {
    // Results in all: rows * width.
    results: u32,
    // Results of a row.
    width: u32,
}

@group(0) @binding(0) var<storage, read_write> gate_up: array<Elem>;
@group(0) @binding(1) var<storage, read_write> y: array<Elem>;
@group(0) @binding(2) var<storage, read_write> shape: Shape;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * 256u + lane;
    if at >= shape.results {
        return;
    }
    let row = at / shape.width;
    // results = rows * width, so the row's first value is at 2 * row * width = row * width + (at - column).
    let gate = f32(gate_up[row * shape.width + at]);
    let up = f32(gate_up[row * shape.width + at + shape.width]);
    // Far below zero the exponential would be infinite, which WGSL may take for impossible; e^80 is as good.
    y[at] = Elem(gate / (1.0 + exp(min(-gate, 80.0))) * up);
}
