// A product of two f16 matrices by the GPU's matrix units, summed in f32: c = a b, or c + a b. Either factor may lie turned
// in memory, so that the three products of a layer, x wT, dy w and dyT x, need no copies. A workgroup makes 8 x 8 tiles of
// the result: of its eight units, each 4 x 2 tiles, a subgroup makes one after another. The CPU twin is src/cpu/product.rs.
//
// Why: general kernels in WGSL multiply value by value, while GPUs have had units for whole tiles since 2018, some ten
// times as fast: WebGPU's name for them is cooperative matrices.

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
// Times that a subgroup comes to another unit: as many as bring the workgroup's subgroups to all eight.
override LAPS: u32 = 1u;

// Sides of the workgroup's part of c, and how much of the inner dimension is in workgroup memory at once.
const SIDE: u32 = 8u * TILE;
const DEPTH: u32 = 2u * TILE;
// In memory, four values are one. Rows of a slab lie 16 bytes further apart than they are long, so that a tile's rows are in
// different banks.
const LONG: u32 = DEPTH / 4u + 2u;
const WIDE: u32 = SIDE / 4u + 2u;
const SLAB: u32 = max(SIDE * LONG, DEPTH * WIDE);
// Quads of a slab that an invocation brings.
const QUADS: u32 = SIDE * DEPTH / 1024u;
// Quads of the part of a unit that is written out at once, a row of two tiles.
const STRIPE: u32 = 2u * TILE * TILE / 4u;

struct Shape {
    rows: u32,
    inner: u32,
    columns: u32,
}

@group(0) @binding(0) var<storage, read_write> a: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read_write> b: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> c: array<vec4<Elem>>;
@group(0) @binding(3) var<storage, read_write> shape: Shape;

var<workgroup> slab_a: array<vec4<f16>, SLAB>;
var<workgroup> slab_b: array<vec4<f16>, SLAB>;
var<workgroup> stripes: array<vec4<f32>, 8u * STRIPE>;

// A quad of a: its place in the slab's part of a is row (of c) `outer`, inner `inner`; the four go along the one that is
// contiguous in memory. Beyond the matrix there is nothing.
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
        return quad_a(row + i % (SIDE / 4u) * 4u, inner + i / (SIDE / 4u));
    }
    return quad_a(row + i / (DEPTH / 4u), inner + i % (DEPTH / 4u) * 4u);
}

fn bring_b(i: u32, column: u32, inner: u32) -> vec4<f16> {
    if TURN_B == 1u {
        return quad_b(inner + i % (DEPTH / 4u) * 4u, column + i / (DEPTH / 4u));
    }
    return quad_b(inner + i / (SIDE / 4u), column + i % (SIDE / 4u) * 4u);
}

// Where quad `i` of a slab is kept: by rows of the inner dimension where `by_inner`, else by rows of the other.
fn place(i: u32, by_inner: bool) -> u32 {
    if by_inner {
        return i / (SIDE / 4u) * WIDE + i % (SIDE / 4u);
    }
    return i / (DEPTH / 4u) * LONG + i % (DEPTH / 4u);
}

// The tile of a at row `row`, inner `inner` of the slab.
fn left(row: u32, inner: u32) -> Left {
    if TURN_A == 1u {
        return coopLoad<Left>(&slab_a[inner * WIDE + row / 4u], WIDE);
    }
    return coopLoadT<Left>(&slab_a[row * LONG + inner / 4u], LONG);
}

fn right(inner: u32, column: u32) -> Right {
    if TURN_B == 1u {
        return coopLoad<Right>(&slab_b[column * LONG + inner / 4u], LONG);
    }
    return coopLoadT<Right>(&slab_b[inner * WIDE + column / 4u], WIDE);
}

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let row = group.y * SIDE;
    let column = group.x * SIDE;
    for (var lap = 0u; lap < LAPS; lap++) {
        // Subgroups that there are too many of make the same as another does.
        let unit = (lap * subgroups + subgroup) % 8u;
        let top = unit / 4u * 4u * TILE;
        let side = unit % 4u * 2u * TILE;
        var s00 = Sum();
        var s01 = Sum();
        var s10 = Sum();
        var s11 = Sum();
        var s20 = Sum();
        var s21 = Sum();
        var s30 = Sum();
        var s31 = Sum();
        var next_a: array<vec4<f16>, QUADS>;
        var next_b: array<vec4<f16>, QUADS>;
        for (var q = 0u; q < QUADS; q++) {
            next_a[q] = bring_a(q * 256u + lane, row, 0u);
            next_b[q] = bring_b(q * 256u + lane, column, 0u);
        }
        for (var inner = 0u; inner < shape.inner; inner += DEPTH) {
            for (var q = 0u; q < QUADS; q++) {
                slab_a[place(q * 256u + lane, TURN_A == 1u)] = next_a[q];
                slab_b[place(q * 256u + lane, TURN_B == 0u)] = next_b[q];
            }
            workgroupBarrier();
            // What comes next is on its way while this is multiplied.
            for (var q = 0u; q < QUADS; q++) {
                next_a[q] = bring_a(q * 256u + lane, row, inner + DEPTH);
                next_b[q] = bring_b(q * 256u + lane, column, inner + DEPTH);
            }
            for (var k = 0u; k < DEPTH; k += TILE) {
                let r0 = right(k, side);
                let r1 = right(k, side + TILE);
                let l0 = left(top, k);
                s00 = coopMultiplyAdd(l0, r0, s00);
                s01 = coopMultiplyAdd(l0, r1, s01);
                let l1 = left(top + TILE, k);
                s10 = coopMultiplyAdd(l1, r0, s10);
                s11 = coopMultiplyAdd(l1, r1, s11);
                let l2 = left(top + 2u * TILE, k);
                s20 = coopMultiplyAdd(l2, r0, s20);
                s21 = coopMultiplyAdd(l2, r1, s21);
                let l3 = left(top + 3u * TILE, k);
                s30 = coopMultiplyAdd(l3, r0, s30);
                s31 = coopMultiplyAdd(l3, r1, s31);
            }
            workgroupBarrier();
        }
        // A row of tiles of each unit at a time, by way of workgroup memory: there values have places.
        let at = unit * STRIPE;
        coopStoreT(s00, &stripes[at], TILE / 2u);
        coopStoreT(s01, &stripes[at + TILE / 4u], TILE / 2u);
        workgroupBarrier();
        write(0u, lap, subgroups, row, column, lane);
        workgroupBarrier();
        coopStoreT(s10, &stripes[at], TILE / 2u);
        coopStoreT(s11, &stripes[at + TILE / 4u], TILE / 2u);
        workgroupBarrier();
        write(1u, lap, subgroups, row, column, lane);
        workgroupBarrier();
        coopStoreT(s20, &stripes[at], TILE / 2u);
        coopStoreT(s21, &stripes[at + TILE / 4u], TILE / 2u);
        workgroupBarrier();
        write(2u, lap, subgroups, row, column, lane);
        workgroupBarrier();
        coopStoreT(s30, &stripes[at], TILE / 2u);
        coopStoreT(s31, &stripes[at + TILE / 4u], TILE / 2u);
        workgroupBarrier();
        write(3u, lap, subgroups, row, column, lane);
        workgroupBarrier();
    }
}

// Writes row `tile` of tiles of the units of this lap.
fn write(tile: u32, lap: u32, subgroups: u32, row: u32, column: u32, lane: u32) {
    for (var i = lane; i < 8u * STRIPE; i += 256u) {
        let unit = i / STRIPE;
        let y = row + unit / 4u * 4u * TILE + tile * TILE + i % STRIPE / (TILE / 2u);
        let x = column + unit % 4u * 2u * TILE + i % (TILE / 2u) * 4u;
        if unit / subgroups == lap && y < shape.rows && x < shape.columns {
            let place = (y * shape.columns + x) / 4u;
            var sum = stripes[i];
            if ADD == 1u {
                sum += vec4<f32>(c[place]);
            }
            c[place] = vec4<Elem>(sum);
        }
    }
}
