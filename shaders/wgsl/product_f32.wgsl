// c = a.b in f32, on any GPU; with ADD on top of what is in c. TURN_A: a lies as [inner, rows] instead of [rows, inner];
// TURN_B: b lies as [columns, inner] instead of [inner, columns]. A workgroup makes 64 x 64 of the result and walks along
// the inner dimension 16 at a time; an invocation makes 4 x 4. The CPU twin is src/cpu/product.rs.
//
// Why: a browser has no other product. It takes nothing that WebGPU does not promise: no matrix units, no subgroups, 8.5 of
// the 16 KiB of workgroup memory. An invocation reads eight values for sixteen multiplications, and while a slab is
// multiplied the next is on its way.

override TURN_A: u32 = 0u;
override TURN_B: u32 = 0u;
override ADD: u32 = 0u;

struct Shape {
    rows: u32,
    inner: u32,
    columns: u32,
}

@group(0) @binding(0) var<storage, read_write> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> shape: Shape;

// Side of what a workgroup makes, how much of the inner dimension it has at once, and quads from one step of it to the next:
// one more than there are, so that neighbours' writes do not meet in one memory bank.
const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
const PITCH: u32 = 17u;

// Four rows of a, or four columns of b, for each step along the inner dimension.
var<workgroup> slab_a: array<vec4<f32>, 272>;
var<workgroup> slab_b: array<vec4<f32>, 272>;
var<workgroup> inner_shared: u32;

fn value_a(row: u32, k: u32) -> f32 {
    if row >= shape.rows || k >= shape.inner {
        return 0.0;
    }
    if TURN_A == 1u {
        return a[k * shape.rows + row];
    }
    return a[row * shape.inner + k];
}

fn value_b(k: u32, column: u32) -> f32 {
    if column >= shape.columns || k >= shape.inner {
        return 0.0;
    }
    if TURN_B == 1u {
        return b[column * shape.inner + k];
    }
    return b[k * shape.columns + column];
}

fn bring_a(row: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(value_a(row, k), value_a(row + 1u, k), value_a(row + 2u, k), value_a(row + 3u, k));
}

fn bring_b(k: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(value_b(k, column), value_b(k, column + 1u), value_b(k, column + 2u), value_b(k, column + 3u));
}

@compute @workgroup_size(256, 1, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // The same for all, and known to be: there are barriers within.
    if lane == 0u {
        inner_shared = shape.inner;
    }
    let inner = workgroupUniformLoad(&inner_shared);
    let row = group.y * TILE;
    let column = group.x * TILE;
    // Which quad of a slab this invocation brings: neighbours read what lies side by side.
    let slow = lane / 16u;
    let fast = lane % 16u;
    let quad_a = select(slow, fast, TURN_A == 1u);
    let k_a = select(fast, slow, TURN_A == 1u);
    let quad_b = select(fast, slow, TURN_B == 1u);
    let k_b = select(slow, fast, TURN_B == 1u);

    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var next_a = bring_a(row + quad_a * 4u, k_a);
    var next_b = bring_b(k_b, column + quad_b * 4u);
    for (var k = 0u; k < inner; k += DEPTH) {
        slab_a[k_a * PITCH + quad_a] = next_a;
        slab_b[k_b * PITCH + quad_b] = next_b;
        workgroupBarrier();
        next_a = bring_a(row + quad_a * 4u, k + DEPTH + k_a);
        next_b = bring_b(k + DEPTH + k_b, column + quad_b * 4u);
        for (var i = 0u; i < DEPTH; i += 1u) {
            let left = slab_a[i * PITCH + slow];
            let right = slab_b[i * PITCH + fast];
            s0 += left.x * right;
            s1 += left.y * right;
            s2 += left.z * right;
            s3 += left.w * right;
        }
        workgroupBarrier();
    }

    let sums = mat4x4<f32>(s0, s1, s2, s3);
    for (var i = 0u; i < 4u; i += 1u) {
        for (var j = 0u; j < 4u; j += 1u) {
            let y = row + slow * 4u + i;
            let x = column + fast * 4u + j;
            if y < shape.rows && x < shape.columns {
                let at = y * shape.columns + x;
                var sum = sums[i][j];
                if ADD == 1u {
                    sum += c[at];
                }
                c[at] = sum;
            }
        }
    }
}
