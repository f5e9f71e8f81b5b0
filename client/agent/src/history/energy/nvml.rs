//! NVML: an NVIDIA GPU's own energy counter. The driver's library is loaded at run time; where there is none, there is
//! no counter.

use nvml_wrapper::Nvml;

/// The counter of the GPU that trains.
pub(super) struct Counter {
    nvml: Nvml,
    index: u32,
    last_mj: u64,
}

impl Counter {
    /// Of the GPU that the worker calls by this name. Of several alike the first stands for all.
    pub fn open(name: &str) -> Option<Self> {
        if !name.to_lowercase().contains("nvidia") {
            return None;
        }
        let nvml = Nvml::init().ok()?;
        let index = (0..nvml.device_count().ok()?).find(|index| {
            let device = nvml.device_by_index(*index).and_then(|device| device.name());
            device.is_ok_and(|its| name.contains(its.trim_start_matches("NVIDIA ")))
        })?;
        let last_mj = nvml.device_by_index(index).ok()?.total_energy_consumption().ok()?;
        Some(Counter { nvml, index, last_mj })
    }

    /// Energy since the last call, in joules.
    pub fn joules(&mut self) -> Option<f64> {
        let now_mj = self.nvml.device_by_index(self.index).ok()?.total_energy_consumption().ok()?;
        let joules = now_mj.saturating_sub(self.last_mj) as f64 * 1e-3;
        self.last_mj = now_mj;
        Some(joules)
    }
}
