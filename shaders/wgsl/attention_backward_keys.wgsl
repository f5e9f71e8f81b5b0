// Causal attention backward, second pass: the gradients in keys and values. One workgroup takes 64 keys of one head of
// keys and walks over the queries from there on, of each query head that shares it: with rows for keys and columns for
// queries, dv = p.dout and dk = ds.q, where p and ds are those of attention_backward_queries.wgsl, which runs before it
// and leaves delta. The CPU twin is src/cpu/attention.rs.
//
// Why: a workgroup owns its keys, so that a group's heads add up in registers, without atomics and in a fixed order.

alias Elem = f32;

// Width of a head, a multiple of 4 up to 128.
override HEAD: u32 = 64u;
// Query heads that share a head of keys and values.
override GROUP: u32 = 1u;
override QUADS: u32 = HEAD / 4u;

struct Shape {
    // Tokens of a sequence.
    context: u32,
    // Heads of queries, and of keys.
    heads: u32,
    kv: u32,
    scale: f32,
}

@group(0) @binding(0) var<storage, read_write> packed: array<vec4<Elem>>;
@group(0) @binding(1) var<storage, read_write> lse: array<f32>;
@group(0) @binding(2) var<storage, read_write> dout: array<vec4<Elem>>;
@group(0) @binding(3) var<storage, read_write> delta: array<f32>;
// Packed as `packed`; this pass writes the columns of keys and values.
@group(0) @binding(4) var<storage, read_write> dpacked: array<vec4<Elem>>;
@group(0) @binding(5) var<storage, read_write> shape: Shape;

// Queries, and keys, of a tile.
const TILE: u32 = 64u;
// Quads of a row that are staged at a time, and quads from one staged row to the next: one more, so that neighbours'
// reads do not meet in one memory bank.
const STEP: u32 = 4u;
const PITCH: u32 = 5u;
// Where the second of two staged things lies.
const SECOND_ROWS: u32 = 320u;
const VALUES: u32 = 256u;

var<workgroup> memory: array<vec4<f32>, 768>;

// Four rows of a result: this invocation's quad of the first 64 columns, and of the second.
struct Rows {
    near: mat4x4<f32>,
    far: mat4x4<f32>,
}

// A quad of a packed row, zeros beyond the context or the head's width.
fn read(base: u32, token: u32, quad: u32) -> vec4<f32> {
    if token >= shape.context || quad >= QUADS {
        return vec4<f32>();
    }
    return vec4<f32>(packed[base + token * (shape.heads + 2u * shape.kv) * QUADS + quad]);
}

// The same of a row of the result's gradient.
fn read_dout(base: u32, token: u32, quad: u32) -> vec4<f32> {
    if token >= shape.context || quad >= QUADS {
        return vec4<f32>();
    }
    return vec4<f32>(dout[base + token * shape.heads * QUADS + quad]);
}

// Adds the products of what is staged: rows ty * 4 + r of the first with rows c * 16 + tx of the second, at [r][c]. Each
// multiplication is followed by its addition, which a GPU does as one: dot() and an addition would be a quarter more.
fn products(sums: mat4x4<f32>, tx: u32, ty: u32) -> mat4x4<f32> {
    var s = sums;
    for (var d = 0u; d < STEP; d += 1u) {
        let a0 = memory[(ty * 4u) * PITCH + d];
        let a1 = memory[(ty * 4u + 1u) * PITCH + d];
        let a2 = memory[(ty * 4u + 2u) * PITCH + d];
        let a3 = memory[(ty * 4u + 3u) * PITCH + d];
        let b0 = memory[SECOND_ROWS + tx * PITCH + d];
        let b1 = memory[SECOND_ROWS + (16u + tx) * PITCH + d];
        let b2 = memory[SECOND_ROWS + (32u + tx) * PITCH + d];
        let b3 = memory[SECOND_ROWS + (48u + tx) * PITCH + d];
        let x = vec4<f32>(b0.x, b1.x, b2.x, b3.x);
        let y = vec4<f32>(b0.y, b1.y, b2.y, b3.y);
        let z = vec4<f32>(b0.z, b1.z, b2.z, b3.z);
        let w = vec4<f32>(b0.w, b1.w, b2.w, b3.w);
        s[0] = s[0] + a0.x * x + a0.y * y + a0.z * z + a0.w * w;
        s[1] = s[1] + a1.x * x + a1.y * y + a1.z * z + a1.w * w;
        s[2] = s[2] + a2.x * x + a2.y * y + a2.z * z + a2.w * w;
        s[3] = s[3] + a3.x * x + a3.y * y + a3.z * z + a3.w * w;
    }
    return s;
}

// Adds 16 staged rows of values, each weighted for this invocation's four rows.
fn weighted(sums: Rows, tx: u32, ty: u32) -> Rows {
    var o = sums;
    for (var k = 0u; k < 16u; k += 1u) {
        let p = memory[k * 16u + (ty ^ k)];
        let v = memory[VALUES + k * 16u + tx];
        o.near[0] += p.x * v;
        o.near[1] += p.y * v;
        o.near[2] += p.z * v;
        o.near[3] += p.w * v;
        if QUADS > 16u {
            let w = memory[VALUES + 256u + k * 16u + tx];
            o.far[0] += p.x * w;
            o.far[1] += p.y * w;
            o.far[2] += p.z * w;
            o.far[3] += p.w * w;
        }
    }
    return o;
}

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let context = shape.context;
    let width = (shape.heads + 2u * shape.kv) * QUADS;
    let tile = group.x;
    let first = group.z * context;
    let keys = first * width + (shape.heads + group.y) * QUADS;
    let values = keys + shape.kv * QUADS;
    let tx = lane % 16u;
    let ty = lane / 16u;
    let row = lane / 4u;
    let quad = lane % 4u;
    // The first of this invocation's four keys.
    let key = tile * TILE + ty * 4u;

    var dk = Rows();
    var dv = Rows();
    for (var member = 0u; member < GROUP; member += 1u) {
        let head = group.y * GROUP + member;
        let queries = first * width + head * QUADS;
        let result = (first * shape.heads + head) * QUADS;
        let logs = (group.z * shape.heads + head) * context;
        // As many tiles of queries as of keys.
        for (var t = tile; t < groups.x; t += 1u) {
            var s = mat4x4<f32>();
            var dp = mat4x4<f32>();
            for (var d = 0u; d < QUADS; d += STEP) {
                memory[row * PITCH + quad] = read(keys, tile * TILE + row, d + quad);
                memory[SECOND_ROWS + row * PITCH + quad] = read(queries, t * TILE + row, d + quad);
                workgroupBarrier();
                s = products(s, tx, ty);
                workgroupBarrier();
                memory[row * PITCH + quad] = read(values, tile * TILE + row, d + quad);
                memory[SECOND_ROWS + row * PITCH + quad] = read_dout(result, t * TILE + row, d + quad);
                workgroupBarrier();
                dp = products(dp, tx, ty);
                workgroupBarrier();
            }

            let query = vec4<u32>(0u, 16u, 32u, 48u) + t * TILE + tx;
            var log = vec4<f32>();
            var mean = vec4<f32>();
            for (var c = 0u; c < 4u; c += 1u) {
                if query[c] < context {
                    log[c] = lse[logs + query[c]];
                    mean[c] = delta[logs + query[c]];
                }
            }
            var p = mat4x4<f32>();
            var ds = mat4x4<f32>();
            for (var r = 0u; r < 4u; r += 1u) {
                let seen = (query >= vec4<u32>(key + r)) & (query < vec4<u32>(context));
                p[r] = select(vec4<f32>(), exp(s[r] * shape.scale - log), seen);
                ds[r] = p[r] * (dp[r] - mean) * shape.scale;
            }

            for (var part = 0u; part < 4u; part += 1u) {
                let token = t * TILE + part * 16u + ty;
                memory[tx * 16u + (ty ^ tx)] = vec4<f32>(p[0].x, p[1].x, p[2].x, p[3].x);
                memory[VALUES + lane] = read_dout(result, token, tx);
                if QUADS > 16u {
                    memory[VALUES + 256u + lane] = read_dout(result, token, 16u + tx);
                }
                workgroupBarrier();
                dv = weighted(dv, tx, ty);
                workgroupBarrier();
                memory[tx * 16u + (ty ^ tx)] = vec4<f32>(ds[0].x, ds[1].x, ds[2].x, ds[3].x);
                memory[VALUES + lane] = read(queries, token, tx);
                if QUADS > 16u {
                    memory[VALUES + 256u + lane] = read(queries, token, 16u + tx);
                }
                workgroupBarrier();
                dk = weighted(dk, tx, ty);
                workgroupBarrier();
                p = mat4x4<f32>(p[0].yzwx, p[1].yzwx, p[2].yzwx, p[3].yzwx);
                ds = mat4x4<f32>(ds[0].yzwx, ds[1].yzwx, ds[2].yzwx, ds[3].yzwx);
            }
        }
    }

    for (var r = 0u; r < 4u; r += 1u) {
        let token = key + r;
        if token >= context {
            break;
        }
        let to = token * width;
        if tx < QUADS {
            dpacked[keys + to + tx] = vec4<Elem>(dk.near[r]);
            dpacked[values + to + tx] = vec4<Elem>(dv.near[r]);
        }
        if 16u + tx < QUADS {
            dpacked[keys + to + 16u + tx] = vec4<Elem>(dk.far[r]);
            dpacked[values + to + 16u + tx] = vec4<Elem>(dv.far[r]);
        }
    }
}
