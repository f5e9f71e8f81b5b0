//! The simulator: the engine, the session and the disk seam that ship, under a virtual clock. Hours pass in
//! milliseconds; everything random comes from a seed, so a failure is replayed by its seed.
//!
//! What is simulated is only what is outside: time, the network, power cuts, owners, and the arithmetic of training.
//! Never here: a real clock, a socket, a thread.

pub mod check;
pub mod coordinator;
pub mod device;
pub mod disk;
pub mod scene;
pub mod training;
pub mod world;

pub use scene::Scene;
pub use world::{Outcome, simulate};
