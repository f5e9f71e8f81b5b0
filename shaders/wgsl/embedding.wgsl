// Row tokens[i] of a table, for each i. One invocation a value. The CPU twin is src/cpu/embedding.rs.
//
// Why: who speaks to WebGPU by itself has no other way.

struct Shape {
    // Values in all: tokens * width.
    values: u32,
    // Of a row.
    width: u32,
}

@group(0) @binding(0) var<storage, read_write> table: array<f32>;
@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> shape: Shape;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * 256u + lane;
    if at >= shape.values {
        return;
    }
    y[at] = table[tokens[at / shape.width] * shape.width + at % shape.width];
}
