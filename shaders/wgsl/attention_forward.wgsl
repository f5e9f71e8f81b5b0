// Causal attention forward, softmax(scale * q.kT).v with grouped heads, from packed rows [queries | keys | values] that
// are rotated already. One workgroup takes 64 queries of one head and walks over the keys 64 at a time with a running
// maximum and sum; it writes the rows' result and the logarithm of their sum. The CPU twin is src/cpu/attention.rs.
//
// Why: in single operations the scores are a matrix of context x context a head, written and read several times. Here
// they live in registers: an invocation holds 4 x 4 of them and four rows of the result.

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
@group(0) @binding(3) var<storage, read_write> shape: Shape;

// Queries, and keys, of a tile.
const TILE: u32 = 64u;
// Quads of a row that are staged at a time, and quads from one staged row to the next: one more, so that neighbours'
// reads do not meet in one memory bank.
const STEP: u32 = 4u;
const PITCH: u32 = 5u;
// Where the second of two staged things lies.
const SECOND_ROWS: u32 = 320u;
const VALUES: u32 = 256u;
// What a hidden score is: its exponential is 0, and no difference of two of them overflows.
const HIDDEN: f32 = -1e30;

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

fn largest(x: vec4<f32>) -> f32 {
    return max(max(x.x, x.y), max(x.z, x.w));
}

fn scale_rows(m: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(m[0] * by.x, m[1] * by.y, m[2] * by.z, m[3] * by.w);
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
    let tx = lane % 16u;
    let ty = lane / 16u;
    // The first of this invocation's four queries.
    let query = tile * TILE + ty * 4u;

    var o = Rows();
    var m = vec4<f32>(HIDDEN);
    var l = vec4<f32>();
    for (var t = 0u; t <= tile; t += 1u) {
        var s = mat4x4<f32>();
        for (var d = 0u; d < QUADS; d += STEP) {
            let row = lane / 4u;
            let quad = lane % 4u;
            memory[row * PITCH + quad] = read(queries, tile * TILE + row, d + quad);
            memory[SECOND_ROWS + row * PITCH + quad] = read(keys, t * TILE + row, d + quad);
            workgroupBarrier();
            s = products(s, tx, ty);
            workgroupBarrier();
        }

        let key = vec4<u32>(0u, 16u, 32u, 48u) + t * TILE + tx;
        let seen_0 = key <= vec4<u32>(query);
        let seen_1 = key <= vec4<u32>(query + 1u);
        let seen_2 = key <= vec4<u32>(query + 2u);
        let seen_3 = key <= vec4<u32>(query + 3u);
        s[0] = select(vec4<f32>(HIDDEN), s[0] * shape.scale, seen_0);
        s[1] = select(vec4<f32>(HIDDEN), s[1] * shape.scale, seen_1);
        s[2] = select(vec4<f32>(HIDDEN), s[2] * shape.scale, seen_2);
        s[3] = select(vec4<f32>(HIDDEN), s[3] * shape.scale, seen_3);

        memory[lane] = vec4<f32>(largest(s[0]), largest(s[1]), largest(s[2]), largest(s[3]));
        workgroupBarrier();
        var best = m;
        for (var i = 0u; i < 16u; i += 1u) {
            best = max(best, memory[ty * 16u + i]);
        }
        workgroupBarrier();
        let fade = exp(m - best);
        m = best;
        // Where all that a query sees is -infinity, what it does not see would be its largest score.
        s[0] = select(vec4<f32>(), exp(s[0] - m.x), seen_0);
        s[1] = select(vec4<f32>(), exp(s[1] - m.y), seen_1);
        s[2] = select(vec4<f32>(), exp(s[2] - m.z), seen_2);
        s[3] = select(vec4<f32>(), exp(s[3] - m.w), seen_3);
        // Each invocation sums its own columns; the sixteen sums of a row meet at the end.
        let one = vec4<f32>(1.0);
        l = l * fade + vec4<f32>(dot(s[0], one), dot(s[1], one), dot(s[2], one), dot(s[3], one));
        o.near = scale_rows(o.near, fade);
        o.far = scale_rows(o.far, fade);

        for (var part = 0u; part < 4u; part += 1u) {
            memory[tx * 16u + (ty ^ tx)] = vec4<f32>(s[0].x, s[1].x, s[2].x, s[3].x);
            let token = t * TILE + part * 16u + ty;
            memory[VALUES + lane] = read(values, token, tx);
            if QUADS > 16u {
                memory[VALUES + 256u + lane] = read(values, token, 16u + tx);
            }
            workgroupBarrier();
            o = weighted(o, tx, ty);
            workgroupBarrier();
            s = mat4x4<f32>(s[0].yzwx, s[1].yzwx, s[2].yzwx, s[3].yzwx);
        }
    }

    memory[lane] = l;
    workgroupBarrier();
    l = vec4<f32>();
    for (var i = 0u; i < 16u; i += 1u) {
        l += memory[ty * 16u + i];
    }
    let near = scale_rows(o.near, 1.0 / l);
    let far = scale_rows(o.far, 1.0 / l);
    let logs = m + log(l);
    for (var r = 0u; r < 4u; r += 1u) {
        let token = query + r;
        if token >= context {
            break;
        }
        let to = (first + token) * shape.heads * QUADS + head * QUADS;
        if tx < QUADS {
            out[to + tx] = vec4<Elem>(near[r]);
        }
        if 16u + tx < QUADS {
            out[to + 16u + tx] = vec4<Elem>(far[r]);
        }
        if tx == 0u {
            lse[(group.z * shape.heads + head) * context + token] = logs[r];
        }
    }
}
