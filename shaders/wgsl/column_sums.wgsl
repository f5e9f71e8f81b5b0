// The sum of each column, on top of what is there. One invocation a column, which goes through the rows in their order.
// The CPU twin is src/cpu/rms_norm.rs, whose gain's gradient is made of these sums.
//
// Why: `rms_norm_backward` leaves a partial sum a workgroup, at most 512 of them, and who speaks to WebGPU by itself has
// nobody else to add them up.

struct Shape {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read_write> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> shape: Shape;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let column = (group.y * groups.x + group.x) * 64u + lane;
    if column >= shape.width {
        return;
    }
    var sum = sums[column];
    for (var row = 0u; row < shape.rows; row += 1u) {
        sum += parts[row * shape.width + column];
    }
    sums[column] = sum;
}
