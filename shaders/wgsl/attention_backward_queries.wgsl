// Causal attention backward, first pass: the gradient in the queries, and each row's sum(dout * out) for the second
// pass (attention_backward_keys.wgsl). One workgroup takes 64 queries of one head and walks over the keys; probabilities
// are computed anew from the saved logarithms: p = exp(scale * q.kT - lse), ds = p * (dout.vT - delta) * scale,
// dq = ds.k. The CPU twin is src/cpu/attention.rs.
//
// Why: nothing of the size context x context is kept or made. Two passes, one that owns queries and one that owns keys,
// compute the products twice, but every sum belongs to one workgroup: no atomics, and the same bits every time.

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
@group(0) @binding(1) var<storage, read_write> out: array<vec4<Elem>>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> dout: array<vec4<Elem>>;
// Packed as `packed`; this pass writes the queries' columns.
@group(0) @binding(4) var<storage, read_write> dpacked: array<vec4<Elem>>;
@group(0) @binding(5) var<storage, read_write> delta: array<f32>;
@group(0) @binding(6) var<storage, read_write> shape: Shape;

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

// What one row's scores and their gradients' products give: the gradient in the scores.
fn slope(s: vec4<f32>, dp: vec4<f32>, log: f32, mean: f32, seen: vec4<bool>) -> vec4<f32> {
    let p = select(vec4<f32>(), exp(s * shape.scale - log), seen);
    return p * (dp - mean) * shape.scale;
}

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let context = shape.context;
    let width = (shape.heads + 2u * shape.kv) * QUADS;
    // The last tiles have the most keys: they start first.
    let tile = groups.x - 1u - group.x;
    let head = group.y;
    let first = group.z * context;
    let queries = first * width + head * QUADS;
    let keys = first * width + (shape.heads + head / GROUP) * QUADS;
    let values = keys + shape.kv * QUADS;
    let result = (first * shape.heads + head) * QUADS;
    let logs = (group.z * shape.heads + head) * context;
    let tx = lane % 16u;
    let ty = lane / 16u;
    let row = lane / 4u;
    let quad = lane % 4u;
    // The first of this invocation's four queries.
    let query = tile * TILE + ty * 4u;

    // Four invocations a row add up dout * out.
    let own = tile * TILE + row;
    var along = 0.0;
    if own < context {
        for (var d = quad; d < QUADS; d += 4u) {
            along += dot(read_dout(result, own, d), vec4<f32>(out[result + own * shape.heads * QUADS + d]));
        }
    }
    memory[lane] = vec4<f32>(along);
    workgroupBarrier();
    var mean = vec4<f32>();
    var log = vec4<f32>();
    for (var r = 0u; r < 4u; r += 1u) {
        let at = (ty * 4u + r) * 4u;
        mean[r] = memory[at].x + memory[at + 1u].x + memory[at + 2u].x + memory[at + 3u].x;
        if query + r < context {
            log[r] = lse[logs + query + r];
            if tx == 0u {
                delta[logs + query + r] = mean[r];
            }
        }
    }
    workgroupBarrier();

    var dq = Rows();
    for (var t = 0u; t <= tile; t += 1u) {
        var s = mat4x4<f32>();
        var dp = mat4x4<f32>();
        for (var d = 0u; d < QUADS; d += STEP) {
            memory[row * PITCH + quad] = read(queries, tile * TILE + row, d + quad);
            memory[SECOND_ROWS + row * PITCH + quad] = read(keys, t * TILE + row, d + quad);
            workgroupBarrier();
            s = products(s, tx, ty);
            workgroupBarrier();
            memory[row * PITCH + quad] = read_dout(result, tile * TILE + row, d + quad);
            memory[SECOND_ROWS + row * PITCH + quad] = read(values, t * TILE + row, d + quad);
            workgroupBarrier();
            dp = products(dp, tx, ty);
            workgroupBarrier();
        }

        let key = vec4<u32>(0u, 16u, 32u, 48u) + t * TILE + tx;
        s[0] = slope(s[0], dp[0], log.x, mean.x, key <= vec4<u32>(query));
        s[1] = slope(s[1], dp[1], log.y, mean.y, key <= vec4<u32>(query + 1u));
        s[2] = slope(s[2], dp[2], log.z, mean.z, key <= vec4<u32>(query + 2u));
        s[3] = slope(s[3], dp[3], log.w, mean.w, key <= vec4<u32>(query + 3u));

        for (var part = 0u; part < 4u; part += 1u) {
            memory[tx * 16u + (ty ^ tx)] = vec4<f32>(s[0].x, s[1].x, s[2].x, s[3].x);
            let token = t * TILE + part * 16u + ty;
            memory[VALUES + lane] = read(keys, token, tx);
            if QUADS > 16u {
                memory[VALUES + 256u + lane] = read(keys, token, 16u + tx);
            }
            workgroupBarrier();
            dq = weighted(dq, tx, ty);
            workgroupBarrier();
            s = mat4x4<f32>(s[0].yzwx, s[1].yzwx, s[2].yzwx, s[3].yzwx);
        }
    }

    for (var r = 0u; r < 4u; r += 1u) {
        let token = query + r;
        if token >= context {
            break;
        }
        let to = queries + token * width;
        if tx < QUADS {
            dpacked[to + tx] = vec4<Elem>(dq.near[r]);
        }
        if 16u + tx < QUADS {
            dpacked[to + 16u + tx] = vec4<Elem>(dq.far[r]);
        }
    }
}
