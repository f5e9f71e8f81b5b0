//! One device of a population: what it was drawn to be.

use super::{Byzantine, Group, Population};
use crate::draws::{Draws, Purpose};
use std::sync::Arc;

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;
/// Bytes a second of a Mbit/s.
const MBIT: f64 = 1e6 / 8.0;

/// What a device is like. All but its group's keys is drawn once, from the seed.
#[derive(Clone, Debug)]
pub struct Traits {
    /// Its group, for all that its devices share.
    pub group: Arc<Group>,
    /// Its number in the group.
    pub index: u32,
    /// How fast it trains.
    pub tokens_per_s: f64,
    /// Bytes a second, toward the coordinator.
    pub up: f64,
    /// Bytes a second, from the coordinator.
    pub down: f64,
    /// One way, in seconds.
    pub latency_s: f64,
    /// Memory free for training.
    pub memory_bytes: u64,
    /// Space on its disk; 0: no limit.
    pub disk_bytes: u64,
    /// Hours that its local time is ahead of UTC.
    pub time_zone_h: f64,
}

impl Traits {
    /// Of all devices of a population, in the order of its groups.
    pub fn all(population: &Population, seed: u64) -> Vec<Traits> {
        let groups = population.group.iter().map(|g| Arc::new(g.clone()));
        let members = groups.flat_map(|group| (0..group.count).map(move |index| (group.clone(), index)));
        members
            .zip(0..)
            .map(|((group, index), number)| Self::draw(group, index, &mut Draws::of_device(seed, number)))
            .collect()
    }

    fn draw(group: Arc<Group>, index: u32, draws: &mut Draws) -> Traits {
        let g = &group;
        Traits {
            index,
            tokens_per_s: g.tokens_per_s.of(index, draws).clamp(1e-3, 1e9),
            up: MBIT * g.up_mbit.of(index, draws).clamp(1e-4, 1e6),
            down: MBIT * g.down_mbit.of(index, draws).clamp(1e-4, 1e6),
            latency_s: g.latency_ms.of(index, draws).clamp(0.0, 60_000.0) / 1000.0,
            memory_bytes: (GIB * g.memory_gib.of(index, draws)) as u64,
            disk_bytes: (GIB * g.disk_gib.of(index, draws)) as u64,
            time_zone_h: g.time_zone_h.of(index, draws).clamp(-12.0, 14.0),
            group: group.clone(),
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        format!("{} {}", self.group.name, self.index + 1)
    }

    /// What it lies, if it does: liars are spread evenly over their group.
    pub fn byzantine(&self) -> Option<Byzantine> {
        let byzantine = self.group.byzantine?;
        let up_to = |n: u32| (f64::from(n) * byzantine.share + 1e-9).floor();
        (up_to(self.index + 1) > up_to(self.index)).then_some(byzantine)
    }

    /// By how much a lease of this device is faster than its speed says.
    pub fn pace(&self, draws: &mut Draws) -> f64 {
        match self.group.tokens_per_s_jitter {
            0.0 => 1.0,
            sigma => libm::exp(sigma * draws.normal(Purpose::Pace)),
        }
    }

    /// A message's way, in seconds: latency, with its jitter, and its bytes at the link's speed.
    pub fn message_s(&self, bytes: u64, is_up: bool, draws: &mut Draws) -> f64 {
        let jitter = match self.group.latency_jitter {
            0.0 => 1.0,
            most => 1.0 + most * draws.unit(Purpose::Delay),
        };
        self.latency_s * jitter + bytes as f64 / if is_up { self.up } else { self.down }
    }
}
