// A product of two f16 matrices by the GPU's matrix units, summed in f32: c = a b, or c + a b. Either factor may lie turned
// in memory, so that the three products of a layer, x wT, dy w and dyT x, need no copies. A workgroup makes 8 x 16 tiles of
// the result: of its eight parts, each 4 x 4 tiles, a subgroup makes one after another. Where that leaves a GPU with too few
// workgroups, several share the inner dimension and leave a sum each. The CPU twin is src/cpu/product.rs.
//
// Why: general kernels in WGSL multiply value by value, while GPUs have had units for whole tiles since 2018, some ten
// times as fast: WebGPU's name for them is cooperative matrices. To load a tile costs far more than to multiply two, so
// each that is loaded is multiplied by four.

enable f16;
enable wgpu_cooperative_matrix;

// Of the result; sums are f32's all the same.
alias Elem = f32;

// A tile, whose size the adapter says.
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
const TILE: u32 = 16u;

// Whether a is [inner, rows] in memory instead of [rows, inner].
override TURN_A: u32 = 0u;
// Whether b is [columns, inner] instead of [inner, columns].
override TURN_B: u32 = 0u;
// Whether the product is added to what is in c.
override ADD: u32 = 0u;
// Times that a subgroup comes to another part: as many as bring the workgroup's subgroups to all eight.
override LAPS: u32 = 1u;

// What a workgroup makes of c, and how much of the inner dimension is in workgroup memory at once.
const ROWS: u32 = 8u * TILE;
const COLUMNS: u32 = 16u * TILE;
const DEPTH: u32 = 2u * TILE;
// In memory, four values are one. Rows of a slab lie 16 bytes further apart than they are long, so that a tile's rows are in
// different banks: LONG along the inner dimension, WIDE along the other.
const LONG: u32 = DEPTH / 4u + 2u;
const WIDE_A: u32 = ROWS / 4u + 2u;
const WIDE_B: u32 = COLUMNS / 4u + 2u;
// Quads of a slab that an invocation brings.
const QUADS_A: u32 = ROWS * DEPTH / 1024u;
const QUADS_B: u32 = COLUMNS * DEPTH / 1024u;
// Quads of what is written out of a part at once: two tiles side by side.
const STRIPE: u32 = 2u * TILE * TILE / 4u;

struct Shape {
    rows: u32,
    inner: u32,
    columns: u32,
    // How much of the inner dimension a workgroup sums up, a multiple of DEPTH: all of it, or its share.
    share: u32,
}

@group(0) @binding(0) var<storage, read_write> a: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read_write> b: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4<Elem>>;
@group(0) @binding(3) var<storage, read_write> shape: Shape;

var<workgroup> slab_a: array<vec4<f16>, max(ROWS * LONG, DEPTH * WIDE_A)>;
var<workgroup> slab_b: array<vec4<f16>, max(COLUMNS * LONG, DEPTH * WIDE_B)>;
var<workgroup> stripes: array<vec4<f32>, 8u * STRIPE>;

// Four values of a that lie side by side in memory, the first of row `outer` and inner `inner`. Beyond the matrix there is
// nothing.
fn quad_a(outer: u32, inner: u32) -> vec4<f16> {
    if outer >= shape.rows || inner >= shape.inner {
        return vec4<f16>();
    }
    if TURN_A == 1u {
        return a[(inner * shape.rows + outer) / 4u];
    }
    return a[(outer * shape.inner + inner) / 4u];
}

fn quad_b(inner: u32, outer: u32) -> vec4<f16> {
    if outer >= shape.columns || inner >= shape.inner {
        return vec4<f16>();
    }
    if TURN_B == 1u {
        return b[(outer * shape.inner + inner) / 4u];
    }
    return b[(inner * shape.columns + outer) / 4u];
}

// Quad `i` of the slab of a that begins at row `row` and inner `inner`.
fn bring_a(i: u32, row: u32, inner: u32) -> vec4<f16> {
    if TURN_A == 1u {
        return quad_a(row + i % (ROWS / 4u) * 4u, inner + i / (ROWS / 4u));
    }
    return quad_a(row + i / (DEPTH / 4u), inner + i % (DEPTH / 4u) * 4u);
}

fn bring_b(i: u32, column: u32, inner: u32) -> vec4<f16> {
    if TURN_B == 1u {
        return quad_b(inner + i % (DEPTH / 4u) * 4u, column + i / (DEPTH / 4u));
    }
    return quad_b(inner + i / (COLUMNS / 4u), column + i % (COLUMNS / 4u) * 4u);
}

// Where quad `i` of a slab is kept: a row for each of the inner dimension, or for each of the other.
fn place_a(i: u32) -> u32 {
    if TURN_A == 1u {
        return i / (ROWS / 4u) * WIDE_A + i % (ROWS / 4u);
    }
    return i / (DEPTH / 4u) * LONG + i % (DEPTH / 4u);
}

fn place_b(i: u32) -> u32 {
    if TURN_B == 1u {
        return i / (DEPTH / 4u) * LONG + i % (DEPTH / 4u);
    }
    return i / (COLUMNS / 4u) * WIDE_B + i % (COLUMNS / 4u);
}

// The tile of a at row `row`, inner `inner` of the slab.
fn left(row: u32, inner: u32) -> Left {
    if TURN_A == 1u {
        return coopLoad<Left>(&slab_a[inner * WIDE_A + row / 4u], WIDE_A);
    }
    return coopLoadT<Left>(&slab_a[row * LONG + inner / 4u], LONG);
}

fn right(inner: u32, column: u32) -> Right {
    if TURN_B == 1u {
        return coopLoad<Right>(&slab_b[column * LONG + inner / 4u], LONG);
    }
    return coopLoadT<Right>(&slab_b[inner * WIDE_B + column / 4u], WIDE_B);
}

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let row = group.y * ROWS;
    let column = group.x * COLUMNS;
    let first = group.z * shape.share;
    let end = min(first + shape.share, shape.inner);
    for (var lap = 0u; lap < LAPS; lap++) {
        // Subgroups that there are too many of make the same as another does.
        let part = (lap * subgroups + subgroup) % 8u;
        let top = part / 4u * 4u * TILE;
        let side = part % 4u * 4u * TILE;
        var s00 = Sum();
        var s01 = Sum();
        var s02 = Sum();
        var s03 = Sum();
        var s10 = Sum();
        var s11 = Sum();
        var s12 = Sum();
        var s13 = Sum();
        var s20 = Sum();
        var s21 = Sum();
        var s22 = Sum();
        var s23 = Sum();
        var s30 = Sum();
        var s31 = Sum();
        var s32 = Sum();
        var s33 = Sum();
        var next_a: array<vec4<f16>, QUADS_A>;
        var next_b: array<vec4<f16>, QUADS_B>;
        for (var q = 0u; q < QUADS_A; q++) {
            next_a[q] = bring_a(q * 256u + lane, row, first);
        }
        for (var q = 0u; q < QUADS_B; q++) {
            next_b[q] = bring_b(q * 256u + lane, column, first);
        }
        for (var inner = first; inner < end; inner += DEPTH) {
            for (var q = 0u; q < QUADS_A; q++) {
                slab_a[place_a(q * 256u + lane)] = next_a[q];
            }
            for (var q = 0u; q < QUADS_B; q++) {
                slab_b[place_b(q * 256u + lane)] = next_b[q];
            }
            workgroupBarrier();
            // What comes next is on its way while this is multiplied.
            for (var q = 0u; q < QUADS_A; q++) {
                next_a[q] = bring_a(q * 256u + lane, row, inner + DEPTH);
            }
            for (var q = 0u; q < QUADS_B; q++) {
                next_b[q] = bring_b(q * 256u + lane, column, inner + DEPTH);
            }
            for (var k = 0u; k < DEPTH; k += TILE) {
                let r0 = right(k, side);
                let r1 = right(k, side + TILE);
                let r2 = right(k, side + 2u * TILE);
                let r3 = right(k, side + 3u * TILE);
                let l0 = left(top, k);
                s00 = coopMultiplyAdd(l0, r0, s00);
                s01 = coopMultiplyAdd(l0, r1, s01);
                s02 = coopMultiplyAdd(l0, r2, s02);
                s03 = coopMultiplyAdd(l0, r3, s03);
                let l1 = left(top + TILE, k);
                s10 = coopMultiplyAdd(l1, r0, s10);
                s11 = coopMultiplyAdd(l1, r1, s11);
                s12 = coopMultiplyAdd(l1, r2, s12);
                s13 = coopMultiplyAdd(l1, r3, s13);
                let l2 = left(top + 2u * TILE, k);
                s20 = coopMultiplyAdd(l2, r0, s20);
                s21 = coopMultiplyAdd(l2, r1, s21);
                s22 = coopMultiplyAdd(l2, r2, s22);
                s23 = coopMultiplyAdd(l2, r3, s23);
                let l3 = left(top + 3u * TILE, k);
                s30 = coopMultiplyAdd(l3, r0, s30);
                s31 = coopMultiplyAdd(l3, r1, s31);
                s32 = coopMultiplyAdd(l3, r2, s32);
                s33 = coopMultiplyAdd(l3, r3, s33);
            }
            workgroupBarrier();
        }
        let place = Place(group, lane, lap, subgroups);
        put(s00, s01, 0u, 0u, part, place);
        put(s02, s03, 0u, 2u, part, place);
        put(s10, s11, 1u, 0u, part, place);
        put(s12, s13, 1u, 2u, part, place);
        put(s20, s21, 2u, 0u, part, place);
        put(s22, s23, 2u, 2u, part, place);
        put(s30, s31, 3u, 0u, part, place);
        put(s32, s33, 3u, 2u, part, place);
    }
}

// Where an invocation is in its work.
struct Place {
    group: vec3<u32>,
    lane: u32,
    lap: u32,
    subgroups: u32,
}

// Two tiles that lie side by side, of each part, by way of workgroup memory: there values have places.
fn put(one: Sum, other: Sum, down: u32, across: u32, part: u32, place: Place) {
    coopStoreT(one, &stripes[part * STRIPE], TILE / 2u);
    coopStoreT(other, &stripes[part * STRIPE + TILE / 4u], TILE / 2u);
    workgroupBarrier();
    write(down, across, place);
    workgroupBarrier();
}

// Writes the tiles `down` and `across`, and the one to the right of it, of the parts of this lap.
fn write(down: u32, across: u32, is: Place) {
    for (var i = is.lane; i < 8u * STRIPE; i += 256u) {
        let part = i / STRIPE;
        let y = is.group.y * ROWS + (part / 4u * 4u + down) * TILE + i % STRIPE / (TILE / 2u);
        let x = is.group.x * COLUMNS + (part % 4u * 4u + across) * TILE + i % (TILE / 2u) * 4u;
        if part / is.subgroups == is.lap && y < shape.rows && x < shape.columns {
            let quad = ((is.group.z * shape.rows + y) * shape.columns + x) / 4u;
            var sum = stripes[i];
            if ADD == 1u {
                sum += vec4<f32>(c[quad]);
            }
            c[quad] = vec4<Elem>(sum);
        }
    }
}
