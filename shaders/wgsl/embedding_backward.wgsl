// Adds the gradient of each token to that of its row of the table. `order` holds the tokens' places, sorted by token and
// then by place, so that those of one row are a run of it; one workgroup stands at each place of the order, and those at
// the begin of a run add up the run, 64 columns at a time. The CPU twin is src/cpu/embedding.rs.
//
// Why: WGSL has no floating-point atomics; so a row has one writer, which goes through its tokens in their order, and the
// same input gives the same bits. The order is the host's: tokens come from there.

struct Shape {
    tokens: u32,
    // Of a row.
    width: u32,
}

@group(0) @binding(0) var<storage, read_write> dy: array<f32>;
@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(2) var<storage, read_write> order: array<u32>;
@group(0) @binding(3) var<storage, read_write> dtable: array<f32>;
@group(0) @binding(4) var<storage, read_write> shape: Shape;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = group.y * groups.x + group.x;
    if first >= shape.tokens {
        return;
    }
    let token = tokens[order[first]];
    if first > 0u && tokens[order[first - 1u]] == token {
        return;
    }
    for (var column = lane; column < shape.width; column += 64u) {
        let to = token * shape.width + column;
        var sum = dtable[to];
        for (var i = first; i < shape.tokens; i += 1u) {
            let place = order[i];
            if tokens[place] != token {
                break;
            }
            sum += dy[place * shape.width + column];
        }
        dtable[to] = sum;
    }
}
