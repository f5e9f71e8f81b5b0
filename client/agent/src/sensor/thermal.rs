//! How hot the computer is: the hottest sensor of its processors and GPUs. On Linux the kernel's own files tell (hwmon,
//! else thermal zones), elsewhere the `sysinfo` crate; NVIDIA's driver has a library, which is loaded only where the
//! driver is.

use crate::policy::Reading;
use nvml_wrapper::{Nvml, enum_wrappers::device::TemperatureSensor};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

/// A temperature in °C that a sensor can mean. Broken ones say -128 or 65,000.
fn plausible(celsius: f64) -> bool {
    (-40.0..=150.0).contains(&celsius)
}

/// All thermometers.
pub(super) struct Thermometers {
    root: PathBuf,
    nvidia: Option<Nvidia>,
    #[cfg(not(target_os = "linux"))]
    components: Option<sysinfo::Components>,
}

impl Thermometers {
    /// Those below `root`, which is `/` but in tests.
    pub fn new(root: &Path) -> Self {
        Thermometers {
            root: root.to_owned(),
            nvidia: None,
            #[cfg(not(target_os = "linux"))]
            components: sysinfo::Components::new_with_refreshed_list().ok(),
        }
    }

    /// The hottest now, in °C.
    pub fn read(&mut self) -> Reading<f64> {
        if self.nvidia.is_none() && self.root.join("proc/driver/nvidia/version").exists() {
            self.nvidia = Nvidia::start(self.root.clone());
        }
        let gpus = match self.nvidia.as_ref().map(Nvidia::read) {
            Some(Err(why)) => return Reading::Unknown(why),
            Some(Ok(celsius)) => celsius,
            None => None,
        };
        let hottest = self.of_the_system().into_iter().chain(gpus).filter(|t| plausible(*t)).reduce(f64::max);
        hottest.map_or(Reading::Unknown("no temperature sensor can be read".into()), Reading::Known)
    }

    #[cfg(target_os = "linux")]
    fn of_the_system(&mut self) -> Vec<f64> {
        let of_chips = kernel::chips(&self.root.join("sys/class/hwmon"));
        if of_chips.is_empty() { kernel::zones(&self.root.join("sys/class/thermal")) } else { of_chips }
    }

    #[cfg(not(target_os = "linux"))]
    fn of_the_system(&mut self) -> Vec<f64> {
        let Some(components) = &mut self.components else { return vec![] };
        components.refresh(false);
        let is_processor =
            |label: &str| ["cpu", "gpu", "core", "soc", "package", "tdie"].iter().any(|word| label.contains(word));
        let processors = components.iter().filter(|c| is_processor(&c.label().to_lowercase()));
        processors.filter_map(|c| c.temperature()).map(f64::from).collect()
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use super::Path;
    use crate::sensor::places::{names, number, small_file};

    /// Chips of processors and GPUs. Others, of disks and power supplies, run hotter or cooler by nature.
    const CHIPS: [&str; 16] = [
        "amdgpu",
        "asahi",
        "coretemp",
        "cpu",
        "cpu_thermal",
        "fam15h_power",
        "i915",
        "k10temp",
        "k8temp",
        "macsmc_hwmon",
        "nouveau",
        "radeon",
        "scpi_sensors",
        "soc_thermal",
        "xe",
        "zenpower",
    ];
    const CHIPS_MAX: usize = 64;
    const INPUTS_MAX: usize = 512;

    pub fn chips(folder: &Path) -> Vec<f64> {
        let mut celsius = vec![];
        for chip in names(folder).unwrap_or_default().into_iter().take(CHIPS_MAX).map(|name| folder.join(name)) {
            let name = small_file(&chip.join("name")).unwrap_or_default();
            if !CHIPS.contains(&name.as_str()) && !name.starts_with("cpu") && !name.starts_with("gpu") {
                continue;
            }
            for input in names(&chip).unwrap_or_default().into_iter().take(INPUTS_MAX) {
                let Some(sensor) = input.strip_suffix("_input").filter(|sensor| sensor.starts_with("temp")) else {
                    continue;
                };
                // A GPU's hottest spot and its memory are made to be far hotter than the rest.
                let label = small_file(&chip.join(format!("{sensor}_label"))).unwrap_or_default();
                if !["junction", "mem"].contains(&label.as_str()) {
                    celsius.extend(number(&chip.join(&input)).map(|milli| milli as f64 / 1000.0));
                }
            }
        }
        celsius
    }

    /// Where there are no chips, as on small boards: the zones of processors.
    pub fn zones(folder: &Path) -> Vec<f64> {
        let zones = names(folder).unwrap_or_default().into_iter().filter(|name| name.starts_with("thermal_zone"));
        let zones = zones.take(CHIPS_MAX).map(|name| folder.join(name)).filter(|zone| {
            let kind = small_file(&zone.join("type")).unwrap_or_default().to_lowercase();
            ["cpu", "gpu", "soc", "x86_pkg_temp"].iter().any(|word| kind.contains(word))
        });
        zones.filter_map(|zone| number(&zone.join("temp"))).map(|milli| milli as f64 / 1000.0).collect()
    }
}

/// NVIDIA's GPUs are asked on a thread of their own: a driver whose GPU was lost may never answer.
struct Nvidia {
    seen: Arc<Mutex<(Option<f64>, Instant)>>,
}

const ASK_EVERY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

impl Nvidia {
    fn start(root: PathBuf) -> Option<Self> {
        let seen = Arc::new(Mutex::new((None, Instant::now())));
        let shared = Arc::downgrade(&seen);
        std::thread::Builder::new().name("nvml".into()).spawn(move || ask(&root, &shared)).ok()?;
        Some(Nvidia { seen })
    }

    /// The hottest GPU; none where none tells.
    fn read(&self) -> Result<Option<f64>, String> {
        let (celsius, at) = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if at.elapsed() > PATIENCE { Err("the NVIDIA driver has stopped answering".into()) } else { Ok(celsius) }
    }
}

fn ask(root: &Path, shared: &Weak<Mutex<(Option<f64>, Instant)>>) {
    let mut library = None;
    while let Some(seen) = shared.upgrade() {
        // Asking a GPU that sleeps would wake it.
        let celsius = if all_asleep(root) {
            None
        } else {
            library = library.or_else(|| Nvml::init().inspect_err(|e| tracing::debug!("no NVML: {e}")).ok());
            library.as_ref().and_then(hottest)
        };
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = (celsius, Instant::now());
        drop(seen);
        std::thread::sleep(ASK_EVERY);
    }
}

fn hottest(library: &Nvml) -> Option<f64> {
    let gpus = (0..library.device_count().ok()?.min(64)).filter_map(|i| library.device_by_index(i).ok());
    gpus.filter_map(|gpu| gpu.temperature(TemperatureSensor::Gpu).ok()).map(f64::from).reduce(f64::max)
}

/// Whether every GPU of NVIDIA's has been put to sleep by its driver.
fn all_asleep(root: &Path) -> bool {
    let folder = root.join("sys/bus/pci/drivers/nvidia");
    let devices = super::places::names(&folder).unwrap_or_default().into_iter().filter(|name| name.contains(':'));
    let mut states =
        devices.filter_map(|d| super::places::small_file(&folder.join(d).join("power/runtime_status")).ok()).peekable();
    states.peek().is_some() && states.all(|state| state == "suspended")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs;

    fn computer(files: &[(&str, &str)]) -> Reading<f64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join("sys/class").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Thermometers::new(root.path()).read()
    }

    #[test]
    fn the_hottest_processor_counts_and_no_disk() {
        assert!(matches!(computer(&[]), Reading::Unknown(_)));
        let chips = [
            ("hwmon/hwmon0/name", "nvme\n"),
            ("hwmon/hwmon0/temp1_input", "81000"),
            ("hwmon/hwmon1/name", "coretemp"),
            ("hwmon/hwmon1/temp1_input", "52000"),
            ("hwmon/hwmon1/temp2_input", "-128000"),
            ("hwmon/hwmon2/name", "amdgpu"),
            ("hwmon/hwmon2/temp1_input", "61500\n"),
            ("hwmon/hwmon2/temp1_label", "edge"),
            ("hwmon/hwmon2/temp2_input", "93000"),
            ("hwmon/hwmon2/temp2_label", "junction"),
            ("thermal/thermal_zone0/type", "x86_pkg_temp"),
            ("thermal/thermal_zone0/temp", "99000"),
        ];
        assert_eq!(computer(&chips), Reading::Known(61.5));
        assert_eq!(computer(&chips[..2]), computer(&[]));
        assert_eq!(computer(&chips[10..]), Reading::Known(99.0));
        assert!(matches!(
            computer(&[("thermal/thermal_zone0/type", "battery"), ("thermal/thermal_zone0/temp", "3")]),
            Reading::Unknown(_)
        ));
    }
}
