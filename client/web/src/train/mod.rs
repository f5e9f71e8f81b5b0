//! What trains in a page: the model's passes on the project's own kernels, over WebGPU, a lease at a time. The job is the
//! native worker's own message, and so are the answer and all files.
//!
//! From the ground up: `program` says what a GPU is to do, `buffers` and `passes` know the model, `gpu` and `executor`
//! carry it out, `trainer` makes steps of it, `steps` takes those of a lease, and `lease` makes a delta of them.
//!
//! Never here: a socket, or what the page looks like.

mod buffers;
mod clock;
mod environment;
mod executor;
mod gpu;
mod lease;
mod pace;
mod passes;
mod program;
mod steps;
mod trainer;

pub use buffers::{PlanError, gpu_bytes};
pub use environment::{Environment, WorkError};
pub use gpu::{GpuError, OpenGpu};
pub use lease::LeaseRunner;
pub use trainer::{StepReport, TrainError, Trainer};
