//! Measures training on one device, one thing a process, for `cargo xtask bench train`, which calls it once for each
//! row of its tables. Prints one JSON object:
//!
//! - `devices`: what there is to measure on
//! - `ceiling DEVICE`: operations a second of a large matrix product, and bytes a second of a copy
//! - `linear DEVICE WAY ROWS IN OUT [FILE]`: operations a second of a linear layer's three products; FILE is another
//!   text for the kernel, to be tried
//! - `start DEVICE SIZE SAMPLES CONTEXT FOLDER`: seconds from a worker's start to the end of its first step, with what
//!   earlier starts have left in the cache folder
//! - `train DEVICE SIZE WAY SAMPLES CONTEXT SECONDS [recompute]`: tokens a second of training steps, and memory at the
//!   peak
//! - `memory DEVICE WAY attention|loss TOKENS VOCABULARY`: memory at the peak of one operation, both ways
//! - `guest DEVICE idle|low|normal SECONDS`: how long a small piece of the owner's work takes on a GPU that does
//!   nothing else, or trains in a queue of low priority, if the driver has such, or of normal priority
//!
//! DEVICE as in `nightjar run --device`; SIZE is 0.8M, 10M, 125M or 1B; WAY is `autodiff` (Burn alone, its automatic
//! differentiation included), `nodes` (the same with our operations in it), `burn` (our model, Burn's own operations)
//! or `ours`, the last two with products in `-f16` or, on CUDA, `-bf16`; on the processor `burn` and `ours` are one,
//! the CPU twins.

mod autodiff;

use autodiff::Autodiff;
use burn::tensor::{Device, Distribution, FloatDType, Tensor, read_sync};
use nightjar_shaders::{
    choice::{self, Choices},
    kernel,
    op::{self, Heads},
    runtime, tuning,
};
use nightjar_shared::model_spec::{ModelSpec, Role};
use nightjar_train::*;
use serde_json::{Value, json};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

type Outcome = Result<Value, Box<dyn std::error::Error>>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["devices"] => Ok(devices()),
        ["ceiling", device] => ceiling(device),
        ["linear", device, way, rows, inner, outer, ref file @ ..] => linear(device, way, [rows, inner, outer], file),
        ["start", device, size, samples, context, folder] => start(device, size, [samples, context], folder),
        ["train", device, size, way, samples, context, seconds, ref more @ ..] => {
            train(device, size, way, [samples, context], seconds, more == ["recompute"])
        }
        ["memory", device, way, kind, tokens, vocabulary] => memory_of(device, way, kind, [tokens, vocabulary]),
        ["guest", device, priority, seconds] => guest(device, priority, seconds),
        _ => Err("see the head of client/train/examples/bench/main.rs".into()),
    };
    match outcome {
        Ok(value) => println!("{value}"),
        Err(e) => {
            eprintln!("error: {e}");
            std::process::exit(1);
        }
    }
}

fn devices() -> Value {
    let gpu = |a: &Adapter| {
        let software = a.kind == AdapterKind::Software;
        let (device, name, driver) = (format!("wgpu:{}", a.index), &a.name, &a.driver);
        json!({ "device": device, "name": name, "api": a.api, "driver": driver, "software": software, "gives_way": a.gives_way })
    };
    let name = format!("{}, {} threads", processor(), std::thread::available_parallelism().map_or(1, |n| n.get()));
    let flex = json!({ "device": "flex", "name": name, "api": "flex", "driver": "", "software": true });
    let cuda = DeviceSettings { choice: DeviceChoice::Cuda(0), ..DeviceSettings::default() };
    // In a build without CUDA, or on a machine without, there is none.
    let cuda = open_device(&cuda).ok().map(|opened| {
        let name = opened.name.trim_end_matches(" (cuda)");
        json!({ "device": "cuda:0", "name": name, "api": "cuda", "driver": "", "software": false })
    });
    std::iter::once(flex).chain(adapters().iter().map(gpu)).chain(cuda).collect()
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

/// Opens a device with our kernels for everything, or for nothing, and with products of the type that the way names.
fn open(choice: &str, way: &str) -> Result<OpenDevice, Box<dyn std::error::Error>> {
    let settings = DeviceSettings { choice: choice.parse()?, ..DeviceSettings::default() };
    let mut opened = open_device(&settings)?;
    let (kernels, half) = way.split_once('-').unwrap_or((way, ""));
    let (precision, dtype) = match half {
        "" => (Precision::Full, FloatDType::F32),
        "f16" => (Precision::Half, FloatDType::F16),
        "bf16" => (Precision::BFloat, FloatDType::BF16),
        _ => return Err(format!("'{way}' is no way: what follows the - is f16 or bf16").into()),
    };
    if !opened.device.supports_dtype(dtype) {
        return Err(format!("this device has no {half}").into());
    }
    opened.precision = precision;
    choice::set(match kernels {
        "burn" => Choices::NONE,
        "ours" => Choices::all(),
        "autodiff" if half.is_empty() => Choices::NONE,
        "nodes" if half.is_empty() => Choices::all(),
        _ => {
            return Err(format!(
                "'{way}' is no way; use autodiff, nodes, burn or ours, the last two with -f16 or -bf16"
            )
            .into());
        }
    });
    Ok(opened)
}

/// Seconds of one call, the best of several batches, each as long as a fifth of a second or one call.
fn best(device: &Device, mut call: impl FnMut()) -> f64 {
    let mut time = |runs: usize| {
        let _ = device.sync();
        let start = Instant::now();
        (0..runs).for_each(|_| call());
        let _ = device.sync();
        start.elapsed().as_secs_f64() / runs as f64
    };
    time(1);
    let runs = ((0.2 / time(1)) as usize).clamp(1, 200);
    (0..5).map(|_| time(runs)).fold(f64::INFINITY, f64::min)
}

fn ceiling(choice: &str) -> Outcome {
    let OpenDevice { device, software, .. } = open(choice, "burn")?;
    let side = if software { 1024 } else { 4096 };
    let random = |n: usize| Tensor::<2>::random([n, n], Distribution::Normal(0.0, 1.0), &device);
    let (a, b) = (random(side), random(side));
    let product = |dtype| {
        let (a, b) = (a.clone().cast(dtype), b.clone().cast(dtype));
        let by = |choices| {
            choice::set(choices);
            let mut product = None;
            let seconds = best(&device, || {
                product = Some(op::linear(&a, &b));
                let _ = device.flush();
            });
            2.0 * (side as f64).powi(3) / seconds
        };
        by(Choices::NONE).max(by(Choices::all()))
    };
    let halves = if choice.starts_with("cuda") { FloatDType::BF16 } else { FloatDType::F16 };
    let half = (!op::is_host(&device) && device.supports_dtype(halves)).then(|| product(halves));
    let (full, bytes) = (product(FloatDType::F32), tuning::copy_speed(&device));
    Ok(json!({ "matmul_side": side, "matmul_flops": full, "matmul_flops_half": half, "copy_bytes_per_s": bytes }))
}

fn linear(choice: &str, way: &str, sizes: [&str; 3], file: &[&str]) -> Outcome {
    let OpenDevice { device, precision, .. } = open(choice, way)?;
    if let [file] = file {
        kernel::substitute("product", Some(std::fs::read_to_string(file)?.into()));
    }
    let [rows, inner, outer] = sizes.map(str::parse::<usize>);
    let (rows, inner, outer) = (rows?, inner?, outer?);
    let dtype = match precision {
        Precision::Full => FloatDType::F32,
        Precision::Half => FloatDType::F16,
        Precision::BFloat => FloatDType::BF16,
    };
    let random = |rows, width| Tensor::<2>::random([rows, width], Distribution::Normal(0.0, 0.1), &device).cast(dtype);
    let (x, w, dy) = (random(rows, inner), random(outer, inner), random(rows, outer));
    let mut kept: Option<Tensor<2>> = None;
    let mut measured = |product: &dyn Fn(Option<Tensor<2>>) -> Tensor<2>| {
        let seconds = best(&device, || {
            kept = Some(product(kept.take()));
            let _ = device.flush();
        });
        kept = None;
        2.0 * (rows * inner * outer) as f64 / seconds
    };
    let forward = measured(&|_| op::linear(&x, &w));
    let backward = measured(&|_| op::linear_backward(&dy, &w));
    let weight = measured(&|earlier| op::linear_backward_weight(earlier, &dy, &x));
    Ok(json!({ "forward_flops": forward, "backward_flops": backward, "backward_weight_flops": weight }))
}

/// The sizes of the tables.
fn spec(size: &str, context: u32) -> Result<ModelSpec, String> {
    let base = ModelSpec { max_position_embeddings: context, ..ModelSpec::tiny() };
    let with =
        |vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads| {
            ModelSpec {
                vocab_size,
                hidden_size,
                intermediate_size,
                num_hidden_layers,
                num_attention_heads,
                num_key_value_heads,
                ..base.clone()
            }
        };
    Ok(match size {
        "0.8M" => base,
        "10M" => with(256, 384, 1024, 6, 6, 6),
        "125M" => with(32_000, 768, 2048, 12, 12, 12),
        "1B" => with(32_000, 2048, 5632, 22, 32, 4),
        _ => return Err(format!("'{size}' is no size; use 0.8M, 10M, 125M or 1B")),
    })
}

/// Weights about as large as those that a run starts from. The run's own generator would take minutes for a billion.
fn weights(spec: &ModelSpec) -> Vec<f32> {
    let mut flat: Vec<f32> = (0..spec.parameters() as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0) * 0.035)
        .collect();
    for t in spec.tensors().iter().filter(|t| t.role.is_gain()) {
        flat[t.range()].fill(1.0);
    }
    flat
}

/// Floating-point operations that a training step needs for one token: six a weight of a matrix that it passes, and
/// causal attention's two products, three times over. What is computed a second time does not count.
fn flops_per_token(spec: &ModelSpec, context: usize) -> f64 {
    // A tied head is the embedding; an untied one comes beside it, and the embedding itself is only looked up.
    let is_passed = |role: Role| !role.is_gain() && (role != Role::Embedding || spec.tie_word_embeddings);
    let matrices: usize = spec.tensors().iter().filter(|t| is_passed(t.role)).map(|t| t.len()).sum();
    let attention =
        2 * context * spec.num_attention_heads as usize * spec.head_size() * spec.num_hidden_layers as usize;
    (6 * matrices + 3 * attention) as f64
}

/// A model in training, ours or one of Burn alone.
enum Trained {
    Ours(Box<Trainer>, Precision),
    Autodiff(Box<Autodiff>),
}

impl Trained {
    fn new(
        way: &str,
        spec: &ModelSpec,
        flat: &[f32],
        portion: Portion,
        opened: &OpenDevice,
    ) -> Result<Self, ModelError> {
        let (config, device, precision) = (AdamWConfig::default(), &opened.device, opened.precision);
        if ["autodiff", "nodes"].contains(&way) {
            return Ok(Trained::Autodiff(Box::new(Autodiff::new(spec, flat, config, way == "nodes", device))));
        }
        let mut trainer = Trainer::new(spec, flat, config, portion.micro_batch, device)?;
        trainer.set_portion(portion);
        trainer.set_precision(precision);
        Ok(Trained::Ours(Box::new(trainer), precision))
    }

    fn step(&mut self, batch: &Batch, lr: f64) -> Result<StepReport, Box<dyn std::error::Error>> {
        match self {
            Trained::Autodiff(model) => model.step(batch, lr),
            Trained::Ours(trainer, precision) => {
                let report = trainer.step(batch, lr)?;
                let held = trainer.precision() == *precision;
                if held { Ok(report) } else { Err("a step had to be made in f32".into()) }
            }
        }
    }
}

fn train(choice: &str, size: &str, way: &str, shape: [&str; 2], seconds: &str, recompute: bool) -> Outcome {
    let [samples, context] = [shape[0].parse::<usize>()?, shape[1].parse::<usize>()?];
    let seconds: f64 = seconds.parse()?;
    let spec = spec(size, context as u32)?;
    let flat = weights(&spec);
    let since = Instant::now();
    let opened = open(choice, way)?;
    if recompute && ["autodiff", "nodes"].contains(&way) {
        return Err("this way keeps all; only burn and ours compute anew".into());
    }
    let mut trained = Trained::new(way, &spec, &flat, Portion { micro_batch: samples, recompute }, &opened)?;
    drop(flat);
    let tokens = tokens(&spec);
    let mut steps = 0;
    let mut step = || {
        steps += 1;
        trained.step(&Batch::drawn(&tokens, context, 1, 0, steps, samples), 1e-4)
    };
    let loss_first = step()?.loss;
    let first_step_s = since.elapsed().as_secs_f64();
    // One more, since some kernels are tuned at their second use only; then what fits the time, at least two.
    let report = step()?;
    let (start, mut times) = (Instant::now(), vec![]);
    while times.len() < 2 || start.elapsed().as_secs_f64() < seconds {
        let since = Instant::now();
        step()?;
        times.push(since.elapsed().as_secs_f64());
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    times.sort_by(f64::total_cmp);
    let per_s = |seconds: f64| report.tokens as f64 / seconds;
    Ok(json!({
        "parameters": spec.parameters(), "samples": samples, "context": context, "recompute": recompute,
        "steps": times.len(), "first_step_s": first_step_s, "loss_first": loss_first, "loss_second": report.loss,
        "tokens_per_s": per_s(mean), "tokens_per_s_best": per_s(times[0]), "tokens_per_s_worst": per_s(times[times.len() - 1]),
        "flops": flops_per_token(&spec, context) * per_s(mean),
        "memory_bytes": peak(&opened.device),
    }))
}

/// Random text.
fn tokens(spec: &ModelSpec) -> Vec<u32> {
    (0..1 << 18).map(|i| nightjar_shared::rng::below(1, 2, i, u64::from(spec.vocab_size)) as u32).collect()
}

/// As a worker starts: it measures what it does not know of the device, and takes what suits.
fn start(choice: &str, size: &str, shape: [&str; 2], folder: &str) -> Outcome {
    let [samples, context] = [shape[0].parse::<usize>()?, shape[1].parse::<usize>()?];
    let spec = spec(size, context as u32)?;
    let (flat, tokens) = (weights(&spec), tokens(&spec));
    let since = Instant::now();
    let opened = open_device(&DeviceSettings {
        choice: choice.parse()?,
        cache: Some(folder.into()),
        ..DeviceSettings::default()
    })?;
    let mut trainer = Trainer::new(&spec, &flat, AdamWConfig::default(), samples, &opened.device)?;
    trainer.set_precision(opened.precision);
    trainer.step(&Batch::drawn(&tokens, context, 1, 0, 1, samples), 1e-4)?;
    Ok(json!({ "seconds": since.elapsed().as_secs_f64(), "precision": format!("{:?}", trainer.precision()) }))
}

/// Bytes at the peak: a GPU's as its runtime holds them, on the processor the process's own.
fn peak(device: &Device) -> Option<u64> {
    runtime::held(device).or_else(|| {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))?;
        kib.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    })
}

fn memory_of(choice: &str, way: &str, kind: &str, sizes: [&str; 2]) -> Outcome {
    let [tokens, vocabulary] = [sizes[0].parse::<usize>()?, sizes[1].parse::<usize>()?];
    let OpenDevice { device, .. } = open(choice, way)?;
    let random =
        |rows: usize, width: usize| Tensor::<2>::random([rows, width], Distribution::Normal(0.0, 1.0), &device);
    match kind {
        "attention" => {
            let shape = Heads { batch: 1, context: tokens, heads: 4, kv: 4, size: 32 };
            let tables = op::Tables::new(tokens, shape, 10_000.0, &device);
            let (out, saved) = op::attention(random(tokens, shape.packed_width()), shape, &tables);
            op::attention_backward(out, saved, shape, &tables).try_into_data()?;
        }
        "loss" => {
            let targets: Vec<u32> = (0..tokens).map(|i| (i * 7919 % vocabulary) as u32).collect();
            let (h, head) = (random(tokens, 64), random(vocabulary, 64));
            let (nats, gradients) = op::linear_cross_entropy(&h, &head, &targets, Some(1.0));
            nats.try_into_data()?;
            for gradient in gradients.into_iter().flatten() {
                gradient.try_into_data()?;
            }
        }
        _ => return Err(format!("'{kind}' is not measured; use attention or loss").into()),
    }
    Ok(json!({ "memory_bytes": peak(&device) }))
}

/// What the owner of a GPU feels of it: sixty times a second another program gives it something small to do, as one
/// that draws does, and waits for it.
fn guest(choice: &str, priority: &str, seconds: &str) -> Outcome {
    let frames = (60.0 * seconds.parse::<f64>()?) as usize;
    let trains = match priority {
        "idle" => None,
        "low" | "normal" => {
            let settings = DeviceSettings {
                choice: choice.parse()?,
                normal_priority: priority == "normal",
                ..DeviceSettings::default()
            };
            Some(open_device(&settings)?.device)
        }
        _ => return Err(format!("'{priority}' is no priority; use idle, low or normal").into()),
    };
    choice::set(Choices::all());
    let owner = Owner::on(choice.parse()?)?;
    let (stop, spec) = (AtomicBool::new(false), spec("10M", 128)?);
    let tokens = tokens(&spec);
    let step = |trainer: &mut Trainer, n| trainer.step(&Batch::drawn(&tokens, 128, 1, 0, n, 8), 1e-4);
    let train = |device: &Device, ready: &Barrier| -> Result<u64, TrainError> {
        let started = Trainer::new(&spec, &weights(&spec), AdamWConfig::default(), 8, device).map_err(TrainError::from);
        let started =
            started.and_then(|mut trainer| (1..=2).try_for_each(|n| step(&mut trainer, n).map(drop)).map(|()| trainer));
        // Whatever came of it, somebody waits for it.
        ready.wait();
        let mut trainer = started?;
        (3..)
            .take_while(|_| !stop.load(Ordering::Relaxed))
            .try_fold(0, |sum, n| Ok(sum + step(&mut trainer, n)?.tokens))
    };
    let ready = Barrier::new(2);
    let (mut waits_ms, trained) = std::thread::scope(|scope| {
        let training = trains.as_ref().map(|device| scope.spawn(|| train(device, &ready)));
        if training.is_some() {
            ready.wait();
        }
        let waits_ms: Vec<f64> = (0..frames).map(|_| owner.frame()).collect();
        stop.store(true, Ordering::Relaxed);
        (waits_ms, training.map(|training| training.join().expect("the training thread does not panic")))
    });
    waits_ms.sort_by(f64::total_cmp);
    let of = |share: f64| waits_ms.get((share * waits_ms.len() as f64) as usize);
    Ok(json!({ "median_ms": of(0.5), "p95_ms": of(0.95), "worst_ms": waits_ms.last(), "tokens": trained.transpose()? }))
}

/// Another program on the same GPU.
struct Owner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    buffers: [wgpu::Buffer; 2],
}

impl Owner {
    const BYTES: u64 = 4 << 20;

    fn on(choice: DeviceChoice) -> Result<Self, Box<dyn std::error::Error>> {
        let DeviceChoice::Wgpu(index) = choice else { return Err("only a GPU has guests: use wgpu:N".into()) };
        let known = adapters().get(index.unwrap_or(0)).ok_or("there is no such adapter")?;
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let all = read_sync(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
        let is_it =
            |a: &wgpu::Adapter| a.get_info().name == known.name && a.get_info().backend.to_string() == known.api;
        let adapter = all.into_iter().find(is_it).ok_or("the adapter is gone")?;
        let (device, queue) = read_sync(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = || {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: Self::BYTES,
                usage,
                mapped_at_creation: false,
            })
        };
        Ok(Owner { buffers: [buffer(), buffer()], device, queue })
    }

    /// Milliseconds until its work was done; then it sleeps until the next frame.
    fn frame(&self) -> f64 {
        let since = Instant::now();
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.buffers[0], 0, &self.buffers[1], 0, Self::BYTES);
        self.queue.submit([encoder.finish()]);
        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
        let took = since.elapsed();
        std::thread::sleep(Duration::from_millis(16).saturating_sub(took));
        took.as_secs_f64() * 1e3
    }
}
