// SwiGLU backward, in place: the packed row [gate | up] becomes its own gradient, and the gradient of the result becomes the
// result once more. With s = sigmoid(gate): dgate = dy * up * (s + gate * s * (1 - s)), dup = dy * gate * s. One invocation
// a pair. The CPU twin is src/cpu/swiglu.rs.
//
// Why: in place it needs no second packed matrix, the largest thing that a layer keeps, and no joining of two halves. And
// since the result is to be had here for one write, nobody keeps it from the forward pass.

// Of what a product makes and takes; sums and functions are f32's all the same.
alias Elem = f32;

struct Shape {
    results: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read_write> gate_up: array<Elem>;
@group(0) @binding(1) var<storage, read_write> dy: array<Elem>;
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
    let gate_at = at / shape.width * shape.width + at;
    let up_at = gate_at + shape.width;
    let gate = f32(gate_up[gate_at]);
    let s = 1.0 / (1.0 + exp(min(-gate, 80.0)));
    let silu = gate * s;
    let g = f32(dy[at]);
    let up = f32(gate_up[up_at]);
    gate_up[gate_at] = Elem(g * up * (s + silu * (1.0 - s)));
    gate_up[up_at] = Elem(g * silu);
    dy[at] = Elem(silu * up);
}
