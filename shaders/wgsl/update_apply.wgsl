// Applies a published update: unpacks blocks of up to 256 levels of 8, 4 or 2 bits, each a level times a power of two of
// the tensor's steps, and adds them to the weights. One workgroup a block, one invocation a value.
// The twin is shared::version::update, whose bits these are: weights are whole numbers of steps below 2^24, so every
// product and sum here is exact in f32. A value that leaves that range raises the flag; the weights are then of no use.
//
// Why: the packed update goes to the GPU, an eighth to a third of a byte a value for what would be four.

struct Shape {
    blocks: u32,
    // Bits of a level: 8, 4 or 2.
    bits: u32,
}

struct Block {
    // Where its values start, and how many there are.
    start: u32,
    len: u32,
    // Where its packed bytes start, and how many there are.
    packed: u32,
    bytes: u32,
    // Its first byte: one more than the exponent of its unit, and which levels there are.
    head: u32,
    // The tensor's step.
    step: f32,
}

@group(0) @binding(0) var<storage, read_write> blocks: array<Block>;
@group(0) @binding(1) var<storage, read_write> payload: array<u32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> flag: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> shape: Shape;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = group.y * groups.x + group.x;
    if index >= shape.blocks {
        return;
    }
    let block = blocks[index];
    if lane >= block.len {
        return;
    }
    // Byte i holds values i, i + bytes, i + 2 bytes ..., the lowest bits first.
    let at = block.packed + lane % block.bytes;
    let byte = payload[at / 4u] >> (at % 4u * 8u);
    let code = byte >> (lane / block.bytes * shape.bits) & ((1u << shape.bits) - 1u);
    var level = 0;
    if shape.bits == 2u {
        // Codes 0 to 3: -3, -1, 1, 3; or with a zero -1 to 2; or that mirrored.
        level = 2 * i32(code) - 3;
        if (block.head & 0xc0u) == 0x80u {
            level = i32(code) - 1;
        } else if (block.head & 0xc0u) == 0xc0u {
            level = 1 - i32(code);
        }
    } else {
        // Two's complement.
        let unused = 32u - shape.bits;
        level = i32(code << unused) >> unused;
    }
    let exponent = (block.head & 0x1fu) - 1u;
    let w = weights[block.start + lane] + f32(level << exponent) * block.step;
    weights[block.start + lane] = w;
    // By its bits, which grow as the size does and are largest where there is no number.
    if (bitcast<u32>(w) & 0x7fffffffu) >= bitcast<u32>(16777216.0 * block.step) {
        atomicStore(&flag[0], 1u);
    }
}
