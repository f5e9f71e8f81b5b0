//! Our operations in Burn's automatic differentiation: a layer and its loss, whose gradients are those that Burn finds
//! by itself.

use super::common::{choosing, close, device, draw, read, recording, seed, upload};
use burn::tensor::{Device, Tensor};
use nightjar_shaders::{
    autodiff,
    choice::{self, Choices},
    kernel::substitute,
    op::{self, Heads, Tables},
    table::KERNELS,
};

const SHAPE: Heads = Heads { batch: 2, context: 9, heads: 4, kv: 2, size: 8 };
const WIDTH: usize = 32;
const INTERMEDIATE: usize = 20;
const VOCABULARY: usize = 12;
const EPS: f64 = 1e-3;

/// Rows and all that a layer has: two gains, four matrices, a head.
const PARAMETERS: [[usize; 2]; 8] = [
    [18, WIDTH],
    [1, WIDTH],
    [64, WIDTH],
    [WIDTH, WIDTH],
    [1, WIDTH],
    [2 * INTERMEDIATE, WIDTH],
    [WIDTH, INTERMEDIATE],
    [VOCABULARY, WIDTH],
];

fn targets() -> Vec<u32> {
    (0..18).map(|i| i * 5 % VOCABULARY as u32).collect()
}

/// Values as they are drawn; on a recording device, which is asked for their gradients.
fn parameters(device: &Device, seed: u64) -> Vec<Tensor<2>> {
    let one = |(i, [rows, width]): (u64, [usize; 2])| {
        let values: Vec<f32> = draw(seed, i, rows * width).iter().map(|x| 0.4 * x + f32::from(rows == 1)).collect();
        let tensor = upload(&values, [rows, width], device);
        if device.is_autodiff() { tensor.require_grad() } else { tensor }
    };
    (0..).zip(PARAMETERS).map(one).collect()
}

fn with_nodes(p: &[Tensor<2>], tables: &Tables) -> Tensor<1> {
    let packed = autodiff::linear(&autodiff::rms_norm(&p[0], &p[1], EPS), &p[2]);
    let x = p[0].clone() + autodiff::linear(&autodiff::attention(&packed, SHAPE, tables), &p[3]);
    let gate_up = autodiff::linear(&autodiff::rms_norm(&x, &p[4], EPS), &p[5]);
    let x = x + autodiff::linear(&autodiff::swiglu(&gate_up), &p[6]);
    autodiff::linear_cross_entropy(&x, &p[7], &targets())
}

/// On a recording device each operation is Burn's own, and so are its gradients.
fn by_burn(p: &[Tensor<2>], tables: &Tables) -> Tensor<1> {
    let norm = |x: &Tensor<2>, gain| op::rms_norm(x, gain, EPS, x.dtype().into()).0;
    let packed = op::linear(&norm(&p[0], &p[1]), &p[2]);
    let x = p[0].clone() + op::linear(&op::attention(packed, SHAPE, tables).0, &p[3]);
    let gate_up = op::linear(&norm(&x, &p[4]), &p[5]);
    let x = x + op::linear(&op::swiglu(&gate_up), &p[6]);
    op::linear_cross_entropy(&x, &p[7], &targets(), None).0.mean()
}

/// Loss, and each parameter's gradient.
type Found = (Vec<f32>, Vec<Vec<f32>>);

fn found(p: &[Tensor<2>], loss: Tensor<1>) -> Result<Found, String> {
    let gradients = loss.backward();
    let of = |p: &Tensor<2>| read(p.grad(&gradients).ok_or("a parameter has no gradient")?);
    Ok((read(loss)?, p.iter().map(of).collect::<Result<_, _>>()?))
}

fn nodes_on(device: &Device, seed: u64) -> Result<Found, String> {
    let p = parameters(&device.clone().autodiff(), seed);
    found(&p, with_nodes(&p, &Tables::new(SHAPE.context, SHAPE, 100.0, device)))
}

fn agree(got: &Found, want: &Found) -> Result<(), String> {
    let flat = |values: &[f32]| upload(values, [values.len()], &Device::flex());
    close("the loss", flat(&got.0), &want.0, 1e-4)?;
    // Of a mean over tokens, gradients are small: by the size of the largest, and not of 1.
    let largest = want.1.iter().flatten().fold(0.0f32, |most, g| most.max(g.abs()));
    let scaled = |values: &[f32]| values.iter().map(|g| g / largest).collect::<Vec<_>>();
    (0..).zip(got.1.iter().zip(&want.1)).try_for_each(|(i, (got, want))| {
        close(&format!("the gradient of parameter {i}"), flat(&scaled(got)), &scaled(want), 1e-3)
    })
}

#[test]
fn our_operations_are_nodes_of_burns_graph() {
    let _choosing = choosing();
    let seed = seed();
    let p = parameters(&recording(), seed);
    let want = found(&p, by_burn(&p, &Tables::new(SHAPE.context, SHAPE, 100.0, &recording()))).unwrap();
    agree(&nodes_on(&Device::flex(), seed).unwrap(), &want).unwrap();

    let Some(device) = device() else { return };
    choice::set(Choices::all());
    agree(&nodes_on(&device, seed).unwrap(), &want).unwrap();
    // It is our kernels that run: with one of them wrong, so are the gradients.
    let source = KERNELS.iter().find(|kernel| kernel.name == "swiglu_backward").unwrap().source;
    substitute("swiglu_backward", Some(source.replace("(1.0 - s)", "s").into()));
    let wrong = nodes_on(&device, seed);
    substitute("swiglu_backward", None);
    assert!(agree(&wrong.unwrap(), &want).unwrap_err().contains("gradient of parameter"));
}

/// Where no gradient is asked for none is made, and what is constant gets none.
#[test]
fn what_asks_for_no_gradient_gets_none() {
    let seed = seed();
    let plain = parameters(&Device::flex(), seed);
    let tables = Tables::new(SHAPE.context, SHAPE, 100.0, &Device::flex());
    assert!(!with_nodes(&plain, &tables).is_autodiff());
    let constant: Vec<Tensor<2>> = plain.iter().map(|p| p.clone().autodiff().detach()).collect();
    let loss = with_nodes(&constant, &tables);
    assert!(loss.is_autodiff() && !loss.is_tracked());
    // With Burn's own checkpointing of activations, frozen and trained side by side: one graph.
    let balanced = Device::flex().autodiff().gradient_checkpointing();
    let mut mixed = parameters(&balanced, seed);
    mixed[2] = mixed[2].clone().set_require_grad(false);
    let gradients = with_nodes(&mixed, &tables).backward();
    assert!(mixed[0].grad(&gradients).is_some() && mixed[2].grad(&gradients).is_none());
    let mut one = constant;
    one[6] = one[6].clone().require_grad();
    let gradients = with_nodes(&one, &tables).backward();
    let asked: Vec<bool> = one.iter().map(|p| p.grad(&gradients).is_some()).collect();
    assert_eq!(asked, (0..8).map(|i| i == 6).collect::<Vec<_>>());
}
