//! What trains: the model, its optimizer, batches, checkpoints, and text from a trained model. A plain library that
//! blocks; whoever calls it decides about threads, pipes and clocks.
//!
//! Never here: an async runtime, a socket, or the protocol with the coordinator.
//!
//! A worker's way through it:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (spec, flat, compressed) = (nightjar_shared::model_spec::ModelSpec::tiny(), vec![], vec![]);
//! # let disk = nightjar_shared::disk::FolderDisk::open("state")?;
//! use nightjar_shared::run_spec::InnerOptimizer;
//! use nightjar_train::*;
//!
//! let settings = DeviceSettings { choice: "auto".parse()?, threads: 1, ..DeviceSettings::default() };
//! let opened = open_device(&settings)?; // before anything else computes: it bounds the threads
//! let mut trainer = Trainer::new(&spec, &flat, AdamWConfig::default(), 4, &opened.device)?;
//! let shard = Shard::read(&compressed, 1024, 128, spec.vocab_size)?;
//! let mut store = CheckpointStore::open(&disk, "lease-7", StateSizes::of(&spec, InnerOptimizer::AdamW))?;
//! for batch in shard.batches(0, 64, 8)? {
//!     let report = trainer.step_while(&batch, 1e-3, |_| true)?; // false at a gate: TrainError::Stopped
//!     println!("loss {:.3}, {} tokens", report.loss, report.tokens);
//! }
//! let (weights, moments) = (trainer.weights()?, trainer.moments()?); // flat vectors, for the delta and the state
//! store.save(Checkpoint { progress: LeaseProgress::default(), weights, moments, begun: None })?;
//! let (nats, tokens) = trainer.evaluate(&shard.range(64..128)?)?;
//! println!("{:.3} nats a token", nats / tokens as f64);
//! # Ok(())
//! # }
//! ```

mod allocator;
pub mod device;
pub mod folder;
pub mod model;
pub mod optimizer;
pub mod portion_limit;
pub mod precision;
pub mod sample;
pub mod submits;
pub mod text_stream;
pub mod trainer;
pub mod vocabulary;
mod vulkan;
mod weights;
pub mod work;

pub use nightjar_work::{batches, checkpoint};

pub use batches::{Batch, BatchError, Shard};
pub use checkpoint::{Begun, Checkpoint, CheckpointError, CheckpointStore, LeaseProgress};
pub use device::{
    Adapter, AdapterKind, DeviceChoice, DeviceError, DeviceSettings, OpenDevice, adapters, open as open_device,
};
pub use folder::{Folder, FolderError, TextLoss, load_folder};
pub use model::{Model, ModelError};
pub use optimizer::{AdamWConfig, Moments, Optimizer, OptimizerConfig, StateSizes};
pub use precision::Precision;
pub use sample::{Sampling, generate};
pub use text_stream::TextStream;
pub use trainer::{Gate, Portion, StepReport, TrainError, Trainer, evaluate};
pub use vocabulary::{TokenizerError, Vocabulary, end_of_text};
pub use weights::WeightsError;
