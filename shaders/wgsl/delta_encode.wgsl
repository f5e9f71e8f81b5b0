// The sparse delta's encoder: error feedback, the k largest of each chunk of up to 4096 values, 2 bits a value (sign, and
// which of the chunk's two magnitudes), and the new residual in place of the old. One workgroup a chunk, its 256
// invocations 16 neighbouring values each, kept in registers. The twin is shared::delta::planes; entropy coding stays
// on the CPU.
//
// Why: on the CPU this is most of a lease's last second, with weights and residual fetched first. Top-k needs no sorting:
// four histograms of 8 bits each narrow the k-th largest magnitude down to its last bit, and a prefix sum over the
// invocations gives every chosen value its place in ascending order.
//
// Exactness: residual = feedback * residual + gradient - what is sent, each operation rounded once as the CPU does it.
// A compiler may otherwise join product and sum, hence `apart`.

struct Shape {
    chunks: u32,
    feedback: f32,
    // Always 0; the compiler does not know that.
    zero: u32,
}

// A chunk: where its values start, how many there are, where its entries start, how many are kept.
struct Chunk {
    start: u32,
    len: u32,
    entries: u32,
    keep: u32,
}

@group(0) @binding(0) var<storage, read_write> chunks: array<Chunk>;
// The 256 magnitudes that a code can mean.
@group(0) @binding(1) var<storage, read_write> magnitudes: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> residual: array<f32>;
// Entries as in Planes::kept: place (12 bits), bit 14 for the high magnitude, bit 15 for negative.
@group(0) @binding(4) var<storage, read_write> kept: array<u32>;
// A word a chunk: code of the low magnitude, of the high one in bits 8 to 15, bit 16 if a value was not finite.
@group(0) @binding(5) var<storage, read_write> codes: array<u32>;
@group(0) @binding(6) var<storage, read_write> shape: Shape;

const SIZE: u32 = 256u;
const EACH: u32 = 16u;
const MAGNITUDE: u32 = 0x7fffffffu;
const EXPONENT: u32 = 0x7f800000u;

var<workgroup> counts: array<atomic<u32>, 256>;
// Of the narrowing: the bits found so far, and how many values are still to be found among those that share them.
var<workgroup> found: u32;
var<workgroup> wanted: u32;
var<workgroup> scan: array<u32, 256>;
var<workgroup> sums: array<vec4<f32>, 256>;
var<workgroup> bad: atomic<u32>;

// A sum that is not joined with the product it gets.
fn apart(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) ^ shape.zero);
}

// Sums over all invocations, for all to read.
fn total(lane: u32, mine: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    sums[lane] = mine;
    workgroupBarrier();
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        if lane < half {
            sums[lane] += sums[lane + half];
        }
        workgroupBarrier();
    }
    return sums[0];
}

// The code nearest to a magnitude on the log scale, as shared::delta::magnitude has it.
fn code_of(m: f32) -> u32 {
    let bits = bitcast<u32>(m) & MAGNITUDE;
    if bits < 0x00800000u || bits > EXPONENT {
        return 0u;
    }
    let mantissa = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    let steps = u32(mantissa >= 1.0442738) + u32(mantissa >= 1.1387886) + u32(mantissa >= 1.2418578)
        + u32(mantissa >= 1.3542555) + u32(mantissa >= 1.4768262) + u32(mantissa >= 1.6104903)
        + u32(mantissa >= 1.7562522) + u32(mantissa >= 1.9152066);
    let exponent = i32(bits >> 23u) - 127;
    return u32(clamp(8 * exponent + i32(steps) + 231, 0, 255));
}

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    // Beyond the last chunk an empty one: all its steps do nothing, and the barriers are still met by all.
    var chunk = Chunk(0u, 0u, 0u, 0u);
    if index < shape.chunks {
        chunk = chunks[index];
    }
    let first = lane * EACH;

    var values: array<f32, 16>;
    var not_finite = 0u;
    for (var j = 0u; j < EACH; j += 1u) {
        values[j] = 0.0;
        if first + j < chunk.len {
            let at = chunk.start + first + j;
            var v = gradient[at];
            if shape.feedback != 0.0 {
                v = apart(shape.feedback * residual[at]) + v;
            }
            not_finite |= u32((bitcast<u32>(v) & EXPONENT) == EXPONENT);
            values[j] = v;
        }
    }
    if lane == 0u {
        found = 0u;
        wanted = chunk.keep;
        atomicStore(&bad, 0u);
    }
    workgroupBarrier();
    atomicOr(&bad, not_finite);

    // The keep-th largest magnitude: its bits from the top, 8, 8, 8 and 7 of them. Bits order as magnitudes do.
    for (var turn = 0u; turn < 4u; turn += 1u) {
        let width = select(8u, 7u, turn == 3u);
        let shift = select(23u - 8u * turn, 0u, turn == 3u);
        atomicStore(&counts[lane], 0u);
        workgroupBarrier();
        let prefix = found;
        for (var j = 0u; j < EACH; j += 1u) {
            let key = bitcast<u32>(values[j]) & MAGNITUDE;
            if first + j < chunk.len && (key >> (shift + width)) == prefix {
                atomicAdd(&counts[(key >> shift) & ((1u << width) - 1u)], 1u);
            }
        }
        workgroupBarrier();
        // How many are in this bin and those above it: a suffix sum.
        scan[lane] = atomicLoad(&counts[lane]);
        workgroupBarrier();
        for (var step = 1u; step < SIZE; step *= 2u) {
            var more = 0u;
            if lane + step < SIZE {
                more = scan[lane + step];
            }
            workgroupBarrier();
            scan[lane] += more;
            workgroupBarrier();
        }
        let mine = atomicLoad(&counts[lane]);
        let above = scan[lane] - mine;
        let still = wanted;
        workgroupBarrier();
        if above < still && still <= above + mine {
            found = (prefix << width) | lane;
            wanted = still - above;
        }
        workgroupBarrier();
    }
    let threshold = found;
    let ties = wanted;

    // Everything above the threshold is sent, and the first `ties` that equal it. Two counts in one word.
    var larger = 0u;
    var equal = 0u;
    for (var j = 0u; j < EACH; j += 1u) {
        let key = bitcast<u32>(values[j]) & MAGNITUDE;
        if first + j < chunk.len {
            larger += u32(key > threshold);
            equal += u32(key == threshold);
        }
    }
    scan[lane] = (larger << 16u) | equal;
    workgroupBarrier();
    for (var step = 1u; step < SIZE; step *= 2u) {
        var before = 0u;
        if lane >= step {
            before = scan[lane - step];
        }
        workgroupBarrier();
        scan[lane] += before;
        workgroupBarrier();
    }
    let before = scan[lane] - ((larger << 16u) | equal);
    var equals_before = before & 0xffffu;
    var entry = chunk.entries + (before >> 16u) + min(equals_before, ties);

    // Which of mine are sent, a bit each.
    var sent = 0u;
    var magnitude = 0.0;
    var zeros = 0.0;
    var count = 0.0;
    for (var j = 0u; j < EACH; j += 1u) {
        let key = bitcast<u32>(values[j]) & MAGNITUDE;
        if first + j < chunk.len && chunk.keep > 0u {
            let is_tie = key == threshold && equals_before < ties;
            equals_before += u32(key == threshold);
            if key > threshold || is_tie {
                sent |= 1u << j;
                magnitude += bitcast<f32>(key);
                zeros += f32(key == 0u);
                count += 1.0;
            }
        }
    }
    // Split at the mean; exact zeros, if any, are the low ones.
    let all = total(lane, vec4<f32>(magnitude, zeros, count, 0.0));
    let mean = all.x / max(all.z, 1.0);
    let split = select(bitcast<u32>(mean), 1u, all.y > 0.0);
    var mine = vec4<f32>(0.0);
    for (var j = 0u; j < EACH; j += 1u) {
        if ((sent >> j) & 1u) == 1u {
            let key = bitcast<u32>(values[j]) & MAGNITUDE;
            if key >= split {
                mine += vec4<f32>(0.0, 0.0, bitcast<f32>(key), 1.0);
            } else {
                mine += vec4<f32>(bitcast<f32>(key), 1.0, 0.0, 0.0);
            }
        }
    }
    let parts = total(lane, mine);
    let low_code = code_of(parts.x / max(parts.y, 1.0));
    let high_code = code_of(parts.z / max(parts.w, 1.0));
    let low = magnitudes[low_code];
    let high = magnitudes[high_code];
    let is_silent = low_code == 0u && high_code == 0u;

    for (var j = 0u; j < EACH; j += 1u) {
        let place = first + j;
        var v = values[j];
        if ((sent >> j) & 1u) == 1u {
            let bits = bitcast<u32>(v);
            let is_high = (bits & MAGNITUDE) >= split;
            let is_negative = (bits >> 31u) == 1u;
            if is_silent {
                // Nothing is sent: the first places stand for it, as every such chunk has them.
                kept[entry] = entry - chunk.entries;
            } else {
                kept[entry] = place | (u32(is_high) << 14u) | (u32(is_negative) << 15u);
                let m = select(low, high, is_high);
                v = select(v - m, v + m, is_negative);
            }
            entry += 1u;
        }
        if place < chunk.len {
            residual[chunk.start + place] = select(0.0, v, shape.feedback != 0.0);
        }
    }
    if lane == 0u && index < shape.chunks {
        codes[index] = low_code | (high_code << 8u) | (atomicLoad(&bad) << 16u);
    }
}
