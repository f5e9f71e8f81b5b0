//! What tests drive from a page's worker: the trainer and leases by themselves, on files in memory.

use crate::train::{Environment, LeaseRunner, OpenGpu, Trainer};
use js_sys::{Array, Object, Reflect, Uint8Array};
use nightjar_shared::{
    disk::Disk,
    model_spec::ModelSpec,
    run_spec::InnerOptimizer,
    wire::worker::{FromWorker, Train, from_worker},
};
use nightjar_work::{AdamWConfig, Live, StateSizes, batches::Batch};
use prost::Message;
use std::{
    cell::Cell,
    collections::BTreeMap,
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use wasm_bindgen::prelude::*;

fn thrown(error: impl std::fmt::Display) -> JsValue {
    JsError::new(&error.to_string()).into()
}

/// A model over bytes, trained from fresh weights as the reference draws both.
#[wasm_bindgen]
pub struct Steps {
    gpu: OpenGpu,
    trainer: Trainer,
    tokens: Vec<u32>,
    context: usize,
    seed: u64,
}

#[wasm_bindgen]
impl Steps {
    /// Opens the GPU for a model (its spec in JSON), on text; `at_once` samples go through it together.
    pub async fn open(spec: String, text: Vec<u8>, seed: u32, at_once: usize) -> Result<Steps, JsValue> {
        let spec: ModelSpec = serde_json::from_str(&spec).map_err(thrown)?;
        let mut gpu = OpenGpu::open().await.map_err(thrown)?;
        let mut trainer =
            Trainer::new(&mut gpu, &spec, AdamWConfig::default().into(), at_once).await.map_err(thrown)?;
        trainer
            .load(&gpu, &spec.draw_all(seed.into()), &StateSizes::of(&spec, InnerOptimizer::AdamW).zero(), None)
            .map_err(thrown)?;
        let (tokens, context) = (text.into_iter().map(u32::from).collect(), spec.max_position_embeddings as usize);
        Ok(Steps { gpu, trainer, tokens, context, seed: seed.into() })
    }

    /// Takes a step on so many samples; gives its loss and gradient norm.
    pub async fn step(&mut self, number: u32, samples: usize, rate: f64) -> Result<Vec<f64>, JsValue> {
        let batch = Batch::drawn(&self.tokens, self.context, self.seed, 0, number.into(), samples);
        while !self.trainer.micro_batch(&mut self.gpu, &batch).await.map_err(thrown)? {}
        let report = self.trainer.update(&self.gpu, &batch, rate).await.map_err(thrown)?;
        Ok(vec![report.loss, report.grad_norm])
    }
}

/// A runner of leases.
#[wasm_bindgen]
pub struct Leases(LeaseRunner);

#[wasm_bindgen]
impl Leases {
    /// Opens the GPU, which answers its trial.
    pub async fn open() -> Result<Leases, JsValue> {
        Ok(Leases(LeaseRunner::open().await.map_err(thrown)?))
    }

    /// How many samples of the last lease went through at once.
    pub fn samples_at_once(&self) -> usize {
        self.0.samples_at_once()
    }

    /// Carries out a lease (a `Train` message) in so much memory on files, an object of bytes by name, in which its own
    /// are put; a Stop comes before micro-batch `stop_at`, counted from 0. Gives back the `FromWorker` message.
    pub async fn train(
        &mut self,
        job: Vec<u8>,
        files: Object,
        memory_bytes: f64,
        stop_at: u32,
    ) -> Result<Vec<u8>, JsValue> {
        let job = Train::decode(&job[..]).map_err(thrown)?;
        let disk = MemoryDisk::default();
        for entry in Object::entries(&files).iter() {
            let entry: Array = entry.unchecked_into();
            let bytes: Uint8Array = entry.get(1).unchecked_into();
            disk.write(&entry.get(0).as_string().unwrap_or_default(), &bytes.to_vec()).map_err(thrown)?;
        }
        let (live, stop, begun) = (Live::default(), AtomicBool::new(false), Cell::new(0));
        live.allow(1.0, memory_bytes as u64);
        let hold = || {
            stop.store(begun.replace(begun.get() + 1) >= stop_at, Ordering::Relaxed);
            Box::pin(std::future::ready(())) as Pin<Box<dyn Future<Output = ()>>>
        };
        let (checkpoint, say) = ("work/checkpoint", |_| {});
        let env = Environment { disk: &disk, checkpoint, live: &live, stop: &stop, hold: &hold, say: &say };
        let body = match self.0.train(&job, &env).await {
            Ok(trained) => from_worker::Body::Trained(trained),
            Err(error) => from_worker::Body::Failed(error.failed()),
        };
        for (name, bytes) in disk.0.lock().map_err(thrown)?.iter() {
            Reflect::set(&files, &name.into(), &Uint8Array::from(&bytes[..]))?;
        }
        Ok(FromWorker { body: Some(body) }.encode_to_vec())
    }
}

/// Files in memory: nothing of them lasts.
#[derive(Default)]
struct MemoryDisk(Mutex<BTreeMap<String, Vec<u8>>>);

impl MemoryDisk {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> io::Result<T> {
        Ok(act(&mut *self.0.lock().map_err(|_| io::Error::other("a panic left the files half changed"))?))
    }
}

impl Disk for MemoryDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.with(|files| files.get(name).cloned())
    }
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.with(|files| {
            let rest = files.get(name).and_then(|bytes| bytes.get(offset as usize..)).unwrap_or_default();
            rest[..length.min(rest.len())].to_vec()
        })
    }
    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        self.with(|files| files.get(name).map(|bytes| bytes.len() as u64))
    }
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(|files| files.insert(name.into(), bytes.to_vec())).map(drop)
    }
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|files| {
            let file = files.entry(name.into()).or_default();
            let end = offset as usize + bytes.len();
            file.resize(file.len().max(end), 0);
            file[offset as usize..end].copy_from_slice(bytes);
        })
    }
    fn sync(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|files| files.remove(from).map(|bytes| files.insert(to.into(), bytes))).map(drop)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|files| files.remove(name)).map(drop)
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.with(|files| {
            files.keys().filter_map(|name| name.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned)).collect()
        })
    }
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}
