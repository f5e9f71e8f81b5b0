//! What the agent can see of the computer that it runs on. Sensors only look; [`crate::policy`] judges.

mod idle;
mod memory;

pub use idle::IdleSensor;
pub use memory::MemorySensor;

use crate::policy::Observation;

/// All sensors of this computer.
pub struct Sensors {
    idle: IdleSensor,
    memory: MemorySensor,
}

impl Sensors {
    /// Those of this computer.
    pub fn of_this_computer() -> Self {
        Sensors { idle: IdleSensor::of_this_computer(), memory: MemorySensor::default() }
    }

    /// What they see now.
    pub fn observe(&mut self) -> Observation {
        Observation { idle: self.idle.read(std::time::SystemTime::now()), memory_free: self.memory.read() }
    }
}
