// One AdamW update of a group of the model's tensors that lie together (q, k and v are one, gate and up are one), weights and
// both moments in place. One invocation a value; f32 throughout.
// The CPU twin is src/cpu/adamw.rs.
//
// Why: four arrays are read and three written once, which is all the memory there is to move; in single operations the
// moments pass through memory several times, and the new weights want room beside the old.
//
// Why no larger groups: each tensor is four bindings where WebGPU promises eight in all, and weights in one buffer would be
// copied for every product that takes one of them. What it would save is the launch: 0.18 ms on lavapipe (64 tensors of 16
// values 11.6 ms, one of 1024 values 0.3 ms; two busy cores), on a GPU tens of microseconds of the CPU, which runs ahead.
// There are six a layer and step: 75 at 125M, a few milliseconds beside a step of 6 TFLOP.

struct Update {
    values: u32,
    gradient_scale: f32,
    decay: f32,
    beta1: f32,
    beta2: f32,
    step_size: f32,
    second_correction: f32,
    epsilon: f32,
}

@group(0) @binding(0) var<storage, read_write> weights: array<f32>;
@group(0) @binding(1) var<storage, read_write> first: array<f32>;
@group(0) @binding(2) var<storage, read_write> second: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(4) var<storage, read_write> u: Update;

@compute @workgroup_size(256, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.y * groups.x + group.x) * 256u + lane;
    if at >= u.values {
        return;
    }
    let g = gradient[at] * u.gradient_scale;
    let m = first[at] * u.beta1 + g * (1.0 - u.beta1);
    let v = second[at] * u.beta2 + g * g * (1.0 - u.beta2);
    first[at] = m;
    second[at] = v;
    weights[at] = weights[at] * u.decay - u.step_size * m / (sqrt(v * u.second_correction) + u.epsilon);
}
