//! The model as Burn's users write it, from Burn alone but for the optimizer's update: plain tensor operations, Burn's
//! attention, and gradients by Burn's automatic differentiation. What our hand-written passes and kernels are measured
//! against. And the same model made of our operations, as nodes of Burn's graph.

use burn::tensor::{
    Device, Int, Tensor, TensorData, Transaction,
    activation::{log_softmax, silu},
    module::attention,
    ops::AttentionModuleOptions,
};
use nightjar_shaders::{
    autodiff as node,
    op::{self, Heads, Tables, Update},
};
use nightjar_shared::model_spec::ModelSpec;
use nightjar_train::{AdamWConfig, Batch, StepReport};

/// A model in training.
pub struct Autodiff {
    spec: ModelSpec,
    config: AdamWConfig,
    /// Where what is done is recorded.
    device: Device,
    /// Whether it is made of our operations.
    nodes: bool,
    /// In flat order, one a tensor of the spec.
    parameters: Vec<Tensor<2>>,
    moments: Vec<[Tensor<2>; 2]>,
    decays: Vec<bool>,
    steps: i32,
}

impl Autodiff {
    pub fn new(spec: &ModelSpec, flat: &[f32], config: AdamWConfig, nodes: bool, device: &Device) -> Self {
        let recording = device.clone().autodiff();
        let shape = |shape: &[usize]| if let [rows, columns] = *shape { [rows, columns] } else { [1, shape[0]] };
        let tensors = spec.tensors();
        let upload = |range: std::ops::Range<usize>, dims| {
            Tensor::from_data(TensorData::new(flat[range].to_vec(), dims), &recording).require_grad()
        };
        Autodiff {
            spec: spec.clone(),
            config,
            nodes,
            parameters: tensors.iter().map(|t| upload(t.range(), shape(&t.shape))).collect(),
            moments: tensors.iter().map(|t| [(); 2].map(|()| Tensor::zeros(shape(&t.shape), device))).collect(),
            decays: tensors.iter().map(|t| t.role.decays()).collect(),
            device: recording,
            steps: 0,
        }
    }

    pub fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepReport, Box<dyn std::error::Error>> {
        let (inputs, targets) = (batch.inputs(), batch.targets());
        let loss = if self.nodes { Self::loss_of_nodes } else { Self::loss };
        let loss = loss(self, &inputs, &targets, batch.context());
        let gradients = loss.backward();
        let gradients: Option<Vec<Tensor<2>>> = self.parameters.iter().map(|p| p.grad(&gradients)).collect();
        let gradients = gradients.ok_or("a parameter has no gradient")?;
        // All that is read of a step, in one transaction.
        let squares = gradients.iter().map(|gradient| (gradient.clone() * gradient.clone()).sum());
        let all = squares.fold(Transaction::default().register(loss.inner()), |all, squares| all.register(squares));
        let mut numbers = all.try_execute()?.into_iter().map(|data| data.iter::<f64>().sum::<f64>());
        let (loss, norm) = (numbers.next().ok_or("no loss")?, numbers.sum::<f64>().sqrt());
        self.update(gradients, norm, lr);
        Ok(StepReport { loss, grad_norm: norm, tokens: batch.tokens() as u64 })
    }

    fn loss(&self, tokens: &[u32], targets: &[u32], context: usize) -> Tensor<1> {
        let ModelSpec { num_attention_heads, num_key_value_heads, rms_norm_eps, .. } = self.spec;
        let (heads, kv, size) = (num_attention_heads as usize, num_key_value_heads as usize, self.spec.head_size());
        let (n, batch) = (tokens.len(), tokens.len() / context);
        let [cos, sin] = self.tables(context);
        let mut parameters = self.parameters.iter().cloned();
        let mut next = || parameters.next().expect("as many as the spec has");
        let integers = |values: &[u32]| values.iter().map(|t| *t as i32).collect::<Vec<_>>();

        let norm = |x: &Tensor<2>, gain: Tensor<2>| {
            x.clone() / (x.clone() * x.clone()).mean_dim(1).add_scalar(rms_norm_eps).sqrt() * gain
        };
        let product = |x: &Tensor<2>, w: Tensor<2>| x.clone().matmul(w.transpose());
        let split = |x: Tensor<2>, heads| x.reshape([batch, context, heads, size]).swap_dims(1, 2);
        let turn = |x: Tensor<4>| {
            let (near, far) = (x.clone().narrow(3, 0, size / 2), x.clone().narrow(3, size / 2, size / 2));
            x * cos.clone() + Tensor::cat(vec![far.neg(), near], 3) * sin.clone()
        };
        let shared = |x: Tensor<4>| {
            let all: Tensor<5> = x.unsqueeze_dim::<5>(2).expand([batch, kv, heads / kv, context, size]);
            all.reshape([batch, heads, context, size])
        };

        let table = next();
        let mut x = table.clone().select(0, Tensor::<1, Int>::from_data(&integers(tokens)[..], &self.device));
        for _ in 0..self.spec.num_hidden_layers {
            let h = norm(&x, next());
            let q = turn(split(product(&h, next()), heads));
            let [k, v] = [(); 2].map(|()| split(product(&h, next()), kv));
            let options = AttentionModuleOptions { is_causal: true, ..AttentionModuleOptions::default() };
            let attended = attention(q, shared(turn(k)), shared(v), None, None, options);
            x = x + product(&attended.swap_dims(1, 2).reshape([n, heads * size]), next());
            let h = norm(&x, next());
            let gate = silu(product(&h, next()));
            x = x + product(&(gate * product(&h, next())), next());
        }
        let h = norm(&x, next());
        let head = if self.spec.tie_word_embeddings { table } else { next() };
        let targets = Tensor::<1, Int>::from_data(&integers(targets)[..], &self.device).reshape([n, 1]);
        log_softmax(product(&h, head), 1).gather(1, targets).mean().neg()
    }

    fn loss_of_nodes(&self, tokens: &[u32], targets: &[u32], context: usize) -> Tensor<1> {
        let ModelSpec { num_attention_heads, num_key_value_heads, rms_norm_eps: eps, .. } = self.spec;
        let (heads, kv) = (num_attention_heads as usize, num_key_value_heads as usize);
        let shape = Heads { batch: tokens.len() / context, context, heads, kv, size: self.spec.head_size() };
        let tables = Tables::new(context, shape, self.spec.rope_theta, &self.device.clone().without_autodiff());
        let mut parameters = self.parameters.iter().cloned();
        let mut next = |many: usize| {
            let mut all: Vec<Tensor<2>> = parameters.by_ref().take(many).collect();
            if many == 1 { all.remove(0) } else { Tensor::cat(all, 0) }
        };
        let table: Tensor<2> = next(1);
        let tokens: Vec<i32> = tokens.iter().map(|t| *t as i32).collect();
        let mut x = table.clone().select(0, Tensor::<1, Int>::from_data(&tokens[..], &self.device));
        for _ in 0..self.spec.num_hidden_layers {
            let packed = node::linear(&node::rms_norm(&x, &next(1), eps), &next(3));
            x = x + node::linear(&node::attention(&packed, shape, &tables), &next(1));
            let gate_up = node::linear(&node::rms_norm(&x, &next(1), eps), &next(2));
            x = x + node::linear(&node::swiglu(&gate_up), &next(1));
        }
        let h = node::rms_norm(&x, &next(1), eps);
        let head = if self.spec.tie_word_embeddings { table } else { next(1) };
        node::linear_cross_entropy(&h, &head, targets)
    }

    /// Cosines and sines by place and column of a head, both halves alike.
    fn tables(&self, context: usize) -> [Tensor<4>; 2] {
        let (size, theta) = (self.spec.head_size(), self.spec.rope_theta);
        let angle = |i: usize| (i / size) as f64 * theta.powf(-2.0 * (i % size % (size / 2)) as f64 / size as f64);
        [f64::cos, f64::sin].map(|f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..context * size).map(|i| f(angle(i)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, context, size]), &self.device)
        })
    }

    fn update(&mut self, gradients: Vec<Tensor<2>>, norm: f64, lr: f64) {
        let AdamWConfig { beta1, beta2, epsilon, weight_decay, clip_norm } = self.config;
        self.steps += 1;
        for (i, gradient) in gradients.iter().enumerate() {
            let update = Update {
                gradient_scale: (clip_norm / norm).min(1.0) as f32,
                decay: if self.decays[i] { (1.0 - lr * weight_decay) as f32 } else { 1.0 },
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                step_size: (lr / (1.0 - beta1.powi(self.steps))) as f32,
                second_correction: (1.0 / (1.0 - beta2.powi(self.steps))) as f32,
                epsilon: epsilon as f32,
            };
            let [m, v] = self.moments[i].each_mut().map(|moment| moment.extract());
            let weights = self.parameters[i].extract().inner();
            let [weights, m, v] = op::adamw(weights, m, v, gradient, update);
            self.moments[i] = [m, v];
            self.parameters[i] = Tensor::from_inner(weights).require_grad();
        }
    }
}
