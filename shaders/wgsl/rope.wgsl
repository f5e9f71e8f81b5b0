// Rotary embedding in place: of each packed row [queries | keys | values] the heads of queries and keys are rotated,
// (a, b) -> (a cos - b sin, b cos + a sin), pairs being i and i + half. direction -1 turns back, which is the gradient.
// One invocation a pair. The CPU twin is src/cpu/rope.rs.
//
// Why: in single operations the halves are cut out, multiplied and put together again, six passes over memory and a
// second copy; this reads and writes each value once, where it stands.

// Of what a product makes and takes; sums and functions are f32's all the same.
alias Elem = f32;

struct Shape {
    // Pairs in all: tokens * heads * half.
    pairs: u32,
    // Tokens of a sequence; the tables have a row for each.
    context: u32,
    // Heads that are rotated: those of queries and of keys.
    heads: u32,
    // Half of a head's width.
    half: u32,
    // Width of a packed row.
    row: u32,
    direction: f32,
}

@group(0) @binding(0) var<storage, read_write> packed: array<Elem>;
@group(0) @binding(1) var<storage, read_write> cosine: array<f32>;
@group(0) @binding(2) var<storage, read_write> sine: array<f32>;
@group(0) @binding(3) var<storage, read_write> shape: Shape;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let pair = (group.y * groups.x + group.x) * 256u + lane;
    if pair >= shape.pairs {
        return;
    }
    let i = pair % shape.half;
    let head = pair / shape.half % shape.heads;
    let token = pair / (shape.half * shape.heads);
    let angle = token % shape.context * shape.half + i;
    let c = cosine[angle];
    let s = sine[angle] * shape.direction;
    let at = token * shape.row + head * 2u * shape.half + i;
    let a = f32(packed[at]);
    let b = f32(packed[at + shape.half]);
    packed[at] = Elem(a * c - b * s);
    packed[at + shape.half] = Elem(b * c + a * s);
}
