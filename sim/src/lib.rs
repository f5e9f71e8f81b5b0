//! The simulator: the engine, the session, the policy and the disk seam that ship, under a virtual clock. Hours pass in
//! milliseconds; everything random comes from a seed, so a failure is replayed by its seed.
//!
//! What is simulated is only what is outside: time, the network, power cuts, owners, and the arithmetic of training.
//! Never here: a real clock (but for `host`, on which nothing simulated depends), a socket; threads in `real` alone,
//! where nothing depends on which is faster.

pub mod byzantine;
pub mod check;
pub mod coordinator;
pub mod dataset;
pub mod device;
pub mod disk;
pub mod draws;
pub mod home;
pub mod host;
#[cfg(feature = "real")]
pub mod lab;
pub mod owner;
pub mod plot;
pub mod population;
pub mod progress;
#[cfg(feature = "real")]
pub mod real;
pub mod results;
pub mod run;
pub mod scale;
pub mod scene;
pub mod setup;
pub mod storage;
#[cfg(feature = "real")]
pub mod study;
pub mod swarm;
pub mod text;
pub mod training;
pub mod transfer;
pub mod world;

pub use population::Population;
pub use progress::Progress;
pub use run::run;
pub use scene::Scene;
pub use setup::Setup;
pub use swarm::{Outcome, simulate};
