// Adds `share` times a sparse delta: unpacks each chunk's entries (place, sign, which magnitude) and adds to the values
// they name. One workgroup a chunk; a chunk's places differ, so no two invocations meet. The twin is
// shared::delta::add_scaled, whose bits these are.
//
// Why: to add a delta to weights that are on the GPU, it need not be made dense on the CPU and sent there whole: at 64 of
// 4096 values its entries are a fortieth of that, and only the weights that they name are touched.

struct Shape {
    chunks: u32,
    share: f32,
    // Always 0; the compiler does not know that.
    zero: u32,
}

// A chunk: where its values start, where its entries start, how many there are, its two magnitudes' codes.
struct Chunk {
    start: u32,
    entries: u32,
    keep: u32,
    codes: u32,
}

@group(0) @binding(0) var<storage, read_write> chunks: array<Chunk>;
@group(0) @binding(1) var<storage, read_write> magnitudes: array<f32>;
@group(0) @binding(2) var<storage, read_write> kept: array<u32>;
@group(0) @binding(3) var<storage, read_write> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> shape: Shape;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= shape.chunks {
        return;
    }
    let chunk = chunks[index];
    for (var i = lane; i < chunk.keep; i += 64u) {
        let entry = kept[chunk.entries + i];
        let code = select(chunk.codes & 0xffu, chunk.codes >> 8u, (entry >> 14u & 1u) == 1u);
        // A magnitude of zero leaves even the sign of a zero alone.
        if code != 0u {
            let m = magnitudes[code];
            let at = chunk.start + (entry & 0xfffu);
            let v = select(m, -m, (entry >> 15u & 1u) == 1u);
            // Rounded before it is added, as the CPU does it; a compiler may otherwise join the two.
            let scaled = bitcast<f32>(bitcast<u32>(shape.share * v) ^ shape.zero);
            values[at] = values[at] + scaled;
        }
    }
}
