// Softmax cross-entropy of rows of logits: each row's loss, and in place of the logits their gradient, times a scale.
// One workgroup a row: one pass finds maximum and sum together, a second writes the gradient. Without a gradient the
// logits stay as they are. The CPU twin is src/cpu/cross_entropy.rs.
//
// Why: in single operations the row is read and written some six times, through two more arrays of its size; and with
// the loss known and the gradient in place, the caller never needs more logits than one chunk of tokens has.

alias Elem = f32;

struct Shape {
    rows: u32,
    vocabulary: u32,
    // What the gradient is multiplied by.
    scale: f32,
    // 1 where a gradient is wanted, else 0.
    gradient: u32,
    // The loss of a row with a logit that is not a number, or +infinity. It comes from outside, since WGSL has no such
    // literal and lets compilers assume that none occurs; hence also the test on bits.
    nan: f32,
}

@group(0) @binding(0) var<storage, read_write> logits: array<Elem>;
@group(0) @binding(1) var<storage, read_write> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> nats: array<f32>;
@group(0) @binding(3) var<storage, read_write> shape: Shape;

const SIZE: u32 = 256u;
const LOWEST: f32 = -3e38;

// Each invocation's maximum, sum relative to it, and whether all it saw was finite.
var<workgroup> top: array<f32, 256>;
var<workgroup> sum: array<f32, 256>;
var<workgroup> sick: array<u32, 256>;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * groups.x + group.x;
    let vocabulary = shape.vocabulary;
    // The same for all invocations of a workgroup; barriers stand outside.
    let real = row < shape.rows;
    let first = row * vocabulary;

    var m = LOWEST;
    var l = 0.0;
    var bad = 0u;
    if real {
        for (var i = lane; i < vocabulary; i += SIZE) {
            let x = f32(logits[first + i]);
            let bits = bitcast<u32>(x);
            bad |= u32((bits & 0x7f800000u) == 0x7f800000u && bits != 0xff800000u);
            if x > m {
                l *= exp(m - x);
                m = x;
            }
            l += exp(x - m);
        }
    }
    top[lane] = m;
    sum[lane] = l;
    sick[lane] = bad;
    workgroupBarrier();
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        if lane < half {
            let other = top[lane + half];
            let both = max(top[lane], other);
            sum[lane] = sum[lane] * exp(top[lane] - both) + sum[lane + half] * exp(other - both);
            top[lane] = both;
            sick[lane] |= sick[lane + half];
        }
        workgroupBarrier();
    }

    if real {
        let best = top[0];
        let total = sum[0];
        let goal = targets[row];
        if lane == 0u && goal < vocabulary {
            let loss = log(total) - (f32(logits[first + goal]) - best);
            nats[row] = select(loss, shape.nan, sick[0] != 0u);
        }
    }
    // The target's logit is read before its place is written.
    storageBarrier();
    workgroupBarrier();
    if real && shape.gradient != 0u {
        let best = top[0];
        let factor = shape.scale / sum[0];
        let goal = targets[row];
        let wrong = select(0.0, shape.nan, sick[0] != 0u);
        for (var i = lane; i < vocabulary; i += SIZE) {
            let hit = select(0.0, shape.scale, i == goal);
            logits[first + i] = Elem(exp(f32(logits[first + i]) - best) * factor - hit + wrong);
        }
    }
}
