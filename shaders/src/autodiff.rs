//! Our operations as nodes of Burn's automatic differentiation, for a model that is written with Burn's tensors:
//! forward and backward each is what [`crate::op`] makes of it on the device below, a kernel, a CPU twin or Burn's own
//! operations. Nightjar's own model needs none of them: its passes are written out, which saves the graph and what a
//! graph keeps.
//!
//! The tensors are f32, of a recording device ([`Device::autodiff`](burn::tensor::Device::autodiff)); on another, or
//! where nobody asked for a gradient, only the result is made.
//!
//! # Panics
//! Each does if a tensor is not f32: a loss scaled for half the width is the trainer's affair.

use crate::op::{self, Heads, Tables};
use burn::backend::{
    Autodiff, Backend, BackendTensor, Dispatch, DispatchKindConversion, DispatchTensor, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::{DType, FloatDType, Tensor};
use burn_cubecl::CubeBackend;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// [`op::rms_norm`].
pub fn rms_norm(x: &Tensor<2>, gain: &Tensor<2>, eps: f64) -> Tensor<2> {
    let (x_below, gain_below) = (x.clone().inner(), gain.clone().inner());
    let (y, inverse) = op::rms_norm(&x_below, &gain_below, eps, FloatDType::F32);
    node([x, gain], y, move |dy| {
        let nothing = Tensor::zeros(x_below.dims(), &x_below.device());
        let made = op::rms_norm_backward(dy, &x_below, &gain_below, &inverse, nothing);
        [Some(made.dx), Some(made.dgain)]
    })
}

/// [`op::swiglu`].
pub fn swiglu(gate_up: &Tensor<2>) -> Tensor<2> {
    let below = gate_up.clone().inner();
    let y = op::swiglu(&below);
    node([gate_up, &constant(gate_up)], y, move |dy| [Some(op::swiglu_backward(below, dy).dgate_up), None])
}

/// [`op::attention`]; `tables` are of the device below the graph.
///
/// # Panics
/// If they are of a recording device.
pub fn attention(packed: &Tensor<2>, shape: Heads, tables: &Tables) -> Tensor<2> {
    assert!(!tables.is_autodiff(), "tables of a recording device: make them with `device.without_autodiff()`");
    let (out, saved) = op::attention(packed.clone().inner(), shape, tables);
    let tables = tables.clone();
    node([packed, &constant(packed)], out, move |dout| {
        [Some(op::attention_backward(dout, saved, shape, &tables)), None]
    })
}

/// [`op::linear`].
pub fn linear(x: &Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    let (x_below, w_below) = (x.clone().inner(), w.clone().inner());
    let y = op::linear(&x_below, &w_below);
    // Each gradient wants the other factor, and is a product of its own: only what is asked for.
    let (for_w, for_x) = (w.is_tracked().then_some(x_below), x.is_tracked().then_some(w_below));
    node([x, w], y, move |dy| {
        let dx = for_x.map(|w| op::linear_backward(&dy, &w));
        [dx, for_w.map(|x| op::linear_backward_weight(None, &dy, &x))]
    })
}

/// The mean of [`op::linear_cross_entropy`] over all tokens (`[1]`): at least one, as many targets as rows of `h`, each
/// target below the vocabulary's size. Loss and gradients are made together, a chunk of tokens at a time, so no logits
/// are kept.
pub fn linear_cross_entropy(h: &Tensor<2>, head: &Tensor<2>, targets: &[u32]) -> Tensor<1> {
    let scale = (h.is_tracked() || head.is_tracked()).then_some(1.0 / targets.len() as f32);
    let (nats, gradients) = op::linear_cross_entropy(&h.clone().inner(), &head.clone().inner(), targets, scale);
    node([h, head], nats.mean(), move |dloss: Tensor<1>| {
        let times = dloss.reshape([1, 1]);
        gradients.map_or([None, None], |both| both.map(|gradient| Some(gradient * times.clone())))
    })
}

/// Stands for a second parent, which gets no gradient.
fn constant(like: &Tensor<2>) -> Tensor<2> {
    Tensor::empty([1, 1], (&like.device(), DType::F32))
}

/// What was made of two tensors below the graph, as a node above them; `gradients` makes theirs of the node's own.
fn node<const D: usize>(
    [first, second]: [&Tensor<2>; 2],
    made: Tensor<D>,
    gradients: impl FnOnce(Tensor<D>) -> [Option<Tensor<2>>; 2] + Send + 'static,
) -> Tensor<D> {
    assert!([first, second].iter().all(|tensor| tensor.dtype() == DType::F32), "nodes take f32");
    let of_dispatch =
        move |d: DispatchTensor| gradients(Tensor::from_dispatch(d)).map(|made| made.map(Tensor::into_dispatch));
    let gradients = GradientsOf(Arc::new(Mutex::new(Some(Box::new(of_dispatch)))));
    let [first, second] = [first, second].map(|tensor| tensor.clone().into_dispatch());
    Tensor::from_dispatch(Dispatch::nightjar_node(first, second, made.into_dispatch(), gradients))
}

/// How the gradients of a node's parents follow from its own; to be asked once, as what it holds is used up.
#[derive(Clone)]
pub struct GradientsOf(Arc<Mutex<Option<Box<OfDispatch>>>>);

type OfDispatch = dyn FnOnce(DispatchTensor) -> [Option<DispatchTensor>; 2] + Send;

impl fmt::Debug for GradientsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GradientsOf")
    }
}

impl GradientsOf {
    fn make(self, d: DispatchTensor) -> [Option<DispatchTensor>; 2] {
        let gradients = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        gradients.expect("a graph is walked once: Burn takes its nodes out")(d)
    }
}

/// Burn's side of a node.
#[backend_extension(Cube, Flex, Fusion, Autodiff)]
pub trait Nodes: Backend {
    /// `made`, and where a graph is recorded a node for it.
    #[fusion(default)]
    fn nightjar_node(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        made: FloatTensor<Self>,
        gradients: GradientsOf,
    ) -> FloatTensor<Self> {
        let _ = (first, second, gradients);
        made
    }
}

impl Nodes for CubeBackend {}
impl Nodes for Flex {}

impl<B: Nodes, C: CheckpointStrategy> Nodes for Autodiff<B, C>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    fn nightjar_node(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        made: FloatTensor<Self>,
        gradients: GradientsOf,
    ) -> FloatTensor<Self> {
        match Node.prepare::<C>([first.node(), second.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(gradients, made.into_parts().0),
            OpsKind::UnTracked(prepared) => prepared.finish(made.into_parts().0),
        }
    }
}

#[derive(Debug)]
struct Node;

impl<B: Backend> Backward<B, 2> for Node
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = GradientsOf;

    fn backward(self, ops: Ops<GradientsOf, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let own = BackendTensor::Float(grads.consume::<B>(&ops.node));
        let made = ops.state.make(<DispatchTensor as DispatchKindConversion<B>>::from_backend(own));
        for (parent, gradient) in ops.parents.into_iter().zip(made) {
            let (Some(parent), Some(gradient)) = (parent, gradient) else { continue };
            match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(gradient) {
                Ok(BackendTensor::Float(gradient)) => grads.register::<B>(parent.id, gradient),
                _ => panic!("a gradient is a float tensor of the device below the graph"),
            }
        }
    }
}
