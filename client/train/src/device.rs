//! Which device trains, chosen at run time: a GPU through `wgpu`, or the processor (`flex`).

use crate::{
    portion_limit::PortionLimit,
    precision::Precision,
    submits::{self, Submits},
    vulkan,
};
use burn::backend::AutoGraphicsApi;
use burn::tensor::{Device, DeviceKind, read_sync, wgpu::WgpuInitError};
use nightjar_shaders::{
    choice::Op,
    kernel::MatrixUnits,
    tuning::{self, Tuning},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, OnceLock},
    time::Duration,
};

/// How long a start may measure kernels on a device on which they were not measured yet.
const MEASURED_FOR: Duration = Duration::from_secs(10);

/// What the owner asks for: `auto`, `wgpu`, `wgpu:N`, `cuda`, `cuda:N` or `flex`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first discrete or else integrated GPU, else the processor. Never a software adapter.
    #[default]
    Auto,
    /// A `wgpu` adapter by its index in [`adapters`]; without one, the best there is, a software adapter included.
    Wgpu(Option<usize>),
    /// An NVIDIA GPU by its index, through CUDA; only in a build that has it, and never by `auto`.
    Cuda(usize),
    /// The processor.
    Flex,
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Wgpu(None) => f.write_str("wgpu"),
            DeviceChoice::Wgpu(Some(n)) => write!(f, "wgpu:{n}"),
            DeviceChoice::Cuda(n) => write!(f, "cuda:{n}"),
            DeviceChoice::Flex => f.write_str("flex"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "wgpu" => Ok(DeviceChoice::Wgpu(None)),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            "flex" => Ok(DeviceChoice::Flex),
            _ => {
                let choice = text.split_once(':').and_then(|(kind, n)| match (kind, n.parse().ok()?) {
                    ("wgpu", n) => Some(DeviceChoice::Wgpu(Some(n))),
                    ("cuda", n) => Some(DeviceChoice::Cuda(n)),
                    _ => None,
                });
                choice.ok_or_else(|| DeviceError::NotADevice(text.into()))
            }
        }
    }
}

/// Why no device could be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The text names no device.
    #[error("'{0}' is no device; use auto, flex, wgpu or wgpu:N (N counts adapters from 0), or cuda:N")]
    NotADevice(String),
    /// This build has no CUDA.
    #[error("this program was built without CUDA; use wgpu, or build it with --features nightjar/cuda")]
    NoCuda,
    /// There is no such adapter.
    #[error("there is no wgpu adapter {index}; found: {found}")]
    NoAdapter {
        /// The index asked for.
        index: usize,
        /// Those there are.
        found: String,
    },
    /// The adapter is of a kind that Burn cannot address.
    #[error("adapter '{0}' cannot be used: its kind is unknown")]
    UnknownKind(String),
    /// The adapter did not open.
    #[error("opening adapter '{name}' failed: {reason}")]
    Open {
        /// Its name.
        name: String,
        /// What the runtime says.
        reason: String,
    },
    /// The device computes something else than it is told to.
    #[error(
        "'{name}' computes wrongly and is not used: its result of {op} differs from the processor's; \
         update its driver, or choose another device"
    )]
    Wrong {
        /// Its name.
        name: String,
        /// The first operation whose result is another.
        op: Op,
    },
    /// The thread pool already runs with another number of threads.
    #[error("this process computes with {running} threads already; {wanted} were asked for")]
    ThreadsRunning {
        /// Threads of the pool.
        running: usize,
        /// Threads asked for.
        wanted: usize,
    },
}

/// What kind of device an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// A program that plays GPU, such as llvmpipe.
    Software,
    /// The driver does not say.
    Unknown,
}

/// A `wgpu` adapter of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// N of `wgpu:N`.
    pub index: usize,
    /// The device's name, as its driver has it.
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// The graphics API it is reached through.
    pub api: String,
    /// Its driver and the driver's version; empty where the API does not say.
    pub driver: String,
    /// Whether its driver gives a queue that gives way to all others of the computer.
    pub gives_way: bool,
    /// Its index among the adapters of its kind, which is how Burn names it.
    nth_of_kind: usize,
}

/// The adapters of this machine, asked for once a process. All are of one graphics API: the first that has a GPU.
pub fn adapters() -> &'static [Adapter] {
    static ADAPTERS: OnceLock<Vec<Adapter>> = OnceLock::new();
    ADAPTERS.get_or_init(|| {
        // Burn looks in the same order, so that an index means the same adapter to both.
        let lists: Vec<Vec<Adapter>> =
            AutoGraphicsApi::chain().into_iter().map(probe).filter(|list| !list.is_empty()).collect();
        let has_gpu = |list: &&Vec<Adapter>| list.iter().any(|a| a.kind != AdapterKind::Software);
        lists.iter().find(has_gpu).or(lists.first()).cloned().unwrap_or_default()
    })
}

/// The adapters that one graphics API has.
fn enumerate(api: wgpu::Backend) -> (wgpu::Instance, Vec<wgpu::Adapter>) {
    let backends = wgpu::Backends::from(api);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = read_sync(instance.enumerate_adapters(backends));
    (instance, adapters)
}

fn probe(api: wgpu::Backend) -> Vec<Adapter> {
    let mut list: Vec<Adapter> = Vec::new();
    for (index, adapter) in enumerate(api).1.into_iter().enumerate() {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
        };
        let nth_of_kind = list.iter().filter(|a| a.kind == kind).count();
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
        let gives_way = vulkan::gives_way(&adapter);
        list.push(Adapter { index, name: info.name, kind, api: api.to_string(), driver, gives_way, nth_of_kind });
    }
    list
}

/// How a device is opened.
#[derive(Clone, Debug, Default)]
pub struct DeviceSettings {
    /// Which one.
    pub choice: DeviceChoice,
    /// Threads that compute, on the processor; 0 is one a core.
    pub threads: usize,
    /// Folder where a GPU's runtime keeps what it tuned and compiled; `None` is its own default.
    pub cache: Option<PathBuf>,
    /// Whether a GPU's queue has normal priority even where the driver has a low one: to measure what that is good for.
    /// Of no effect on a device that is open already.
    pub normal_priority: bool,
}

/// A device that was opened.
#[derive(Clone, Debug)]
pub struct OpenDevice {
    /// For [`crate::Trainer::new`] and [`crate::Model::new`].
    pub device: Device,
    /// For people: the adapter's name, or the processor's threads.
    pub name: String,
    /// Whether the processor does the work, itself or behind a software adapter.
    pub software: bool,
    /// What training computes its products in here.
    pub precision: Precision,
    /// What a GPU is given at once.
    pub submits: Option<Submits>,
    /// What it bears at once, as earlier starts have found out.
    pub portion_limit: PortionLimit,
    /// Whether its queue gives way to all others of the computer.
    pub gives_way: bool,
}

impl OpenDevice {
    /// A device of which nothing else is known.
    fn plain(device: Device, name: String, software: bool, precision: Precision) -> Self {
        OpenDevice {
            device,
            name,
            software,
            precision,
            submits: None,
            portion_limit: PortionLimit::default(),
            gives_way: false,
        }
    }
}

/// Opens a device. Bounds the threads that compute before anything else does, for the whole process: the first call
/// decides, and a later one with another number of threads is refused.
pub fn open(settings: &DeviceSettings) -> Result<OpenDevice, DeviceError> {
    crate::allocator::keep_freed();
    let threads = bound_threads(settings.threads)?;
    if let DeviceChoice::Cuda(index) = settings.choice {
        return open_cuda(index, settings.cache.as_deref());
    }
    // Asking for adapters loads every driver: not for nothing.
    let adapters = if settings.choice == DeviceChoice::Flex { &[] } else { adapters() };
    let s = if threads == 1 { "" } else { "s" };
    match choose(settings.choice, adapters)? {
        Some(adapter) => open_adapter(adapter, settings),
        None => {
            let name = format!("flex, {threads} thread{s}");
            Ok(OpenDevice::plain(Device::flex(), name, true, Precision::Full))
        }
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(index: usize, cache: Option<&Path>) -> Result<OpenDevice, DeviceError> {
    tuning::configure(Tuning::Normal, cache.map(Path::to_owned));
    // Where there is no driver or no such device, the runtime panics.
    let opened = std::panic::catch_unwind(|| {
        let device = Device::cuda(index);
        let name = nightjar_shaders::runtime::name(&device).unwrap_or_else(|| format!("device {index}"));
        (device, name)
    });
    let reason = "CUDA did not start; it wants NVIDIA's driver, and counts devices from 0".to_owned();
    let (device, name) = opened.map_err(|_| DeviceError::Open { name: format!("cuda:{index}"), reason })?;
    let (portion_limit, precision) = (PortionLimit::of(&name, cache), Precision::best_on(&device));
    let name = format!("{name} (cuda)");
    check(&device, &name)?;
    Ok(OpenDevice { portion_limit, ..OpenDevice::plain(device, name, false, precision) })
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize, _: Option<&Path>) -> Result<OpenDevice, DeviceError> {
    Err(DeviceError::NoCuda)
}

/// The adapter a choice means, or `None` for the processor.
fn choose(choice: DeviceChoice, adapters: &[Adapter]) -> Result<Option<&Adapter>, DeviceError> {
    let first = |kind| adapters.iter().find(|a| a.kind == kind);
    let best = || first(AdapterKind::Discrete).or(first(AdapterKind::Integrated));
    let wanted = match choice {
        DeviceChoice::Flex | DeviceChoice::Cuda(_) => return Ok(None),
        DeviceChoice::Auto => return Ok(best()),
        DeviceChoice::Wgpu(None) => best().or(first(AdapterKind::Virtual)).or(adapters.first()),
        DeviceChoice::Wgpu(Some(index)) => adapters.get(index),
    };
    let index = if let DeviceChoice::Wgpu(Some(index)) = choice { index } else { 0 };
    wanted.map(Some).ok_or_else(|| {
        let found: Vec<String> = adapters.iter().map(|a| format!("{} {}", a.index, a.name)).collect();
        DeviceError::NoAdapter { index, found: if found.is_empty() { "none".into() } else { found.join(", ") } }
    })
}

fn open_adapter(adapter: &Adapter, settings: &DeviceSettings) -> Result<OpenDevice, DeviceError> {
    // The runtime registers a device once; whoever asks again gets the same.
    static OPENED: Mutex<Vec<(usize, OpenDevice)>> = Mutex::new(Vec::new());
    let mut opened = OPENED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((_, device)) = opened.iter().find(|(index, _)| *index == adapter.index) {
        // What it was measured to gain by may have changed.
        return Ok(OpenDevice { precision: Precision::best_on(&device.device), ..device.clone() });
    }
    let software = adapter.kind == AdapterKind::Software;
    let cache = settings.cache.as_deref();
    tuning::configure(if software { Tuning::Minimal } else { Tuning::Normal }, settings.cache.clone());
    // A software adapter has no windows to draw.
    let kept = cache.filter(|_| !software);
    let launches = submits::launches(&adapter.name, kept);
    let (device, queue, gives_way) = start(adapter, launches, settings.normal_priority)?;
    tuning::leave_bandwidth_unknown(&device);
    let submits = Some(Submits::new(queue, launches, &adapter.name, kept));
    // A software adapter is for tests: what is fast on it says nothing.
    if let Some(folder) = kept {
        let key = tuning::Key { adapter: adapter.name.clone(), driver: adapter.driver.clone() };
        tuning::settle(&device, &key, folder, MEASURED_FOR);
    }
    let (name, precision) = (format!("{} ({})", adapter.name, adapter.api), Precision::best_on(&device));
    check(&device, &name)?;
    let portion_limit = PortionLimit::of(&adapter.name, cache);
    let device =
        OpenDevice { submits, portion_limit, gives_way, ..OpenDevice::plain(device, name, software, precision) };
    opened.push((adapter.index, device.clone()));
    Ok(device)
}

/// Refuses a device that computes wrongly, in the way that training will go there.
fn check(device: &Device, name: &str) -> Result<(), DeviceError> {
    tuning::wrong(device).map_or(Ok(()), |op| Err(DeviceError::Wrong { name: name.to_owned(), op }))
}

/// Starts the runtime on an adapter, and says what matrix units there are. Gives the device, its queue, and whether
/// that gives way to all others: where the driver has such queues, unless it is to have `normal_priority`.
fn start(
    adapter: &Adapter,
    launches: Option<usize>,
    normal_priority: bool,
) -> Result<(Device, wgpu::Queue, bool), DeviceError> {
    let kind = match adapter.kind {
        AdapterKind::Discrete => DeviceKind::DiscreteGpu(adapter.nth_of_kind),
        AdapterKind::Integrated => DeviceKind::IntegratedGpu(adapter.nth_of_kind),
        AdapterKind::Virtual => DeviceKind::VirtualGpu(adapter.nth_of_kind),
        AdapterKind::Software => DeviceKind::Cpu,
        AdapterKind::Unknown => return Err(DeviceError::UnknownKind(adapter.name.clone())),
    };
    let options = launches.into_iter().fold(Device::wgpu_options(), |options, n| options.tasks_max(n));
    let failed = |e: WgpuInitError| DeviceError::Open { name: adapter.name.clone(), reason: e.to_string() };
    if adapter.api == wgpu::Backend::Vulkan.to_string() {
        let (instance, adapters) = enumerate(wgpu::Backend::Vulkan);
        if let Some((setup, low)) =
            adapters.get(adapter.index).and_then(|adapter| vulkan::open(&instance, adapter, normal_priority))
        {
            let (queue, units) = (setup.queue.clone(), MatrixUnits::of(&setup.adapter));
            let device = options.setup(setup).init().map_err(failed)?;
            MatrixUnits::set(units);
            return Ok((device, queue, low));
        }
    }
    let (device, setup) = options.device_kind(kind).init_with_setup().map_err(failed)?;
    MatrixUnits::set(MatrixUnits::of(&setup.adapter));
    Ok((device, setup.queue, false))
}

/// Sets the number of threads of the pool that all CPU work runs in (flex, its matrix products, the CPU twins).
fn bound_threads(wanted: usize) -> Result<usize, DeviceError> {
    // Fails if the pool runs already, which is fine if it has as many threads.
    let started = rayon::ThreadPoolBuilder::new().num_threads(wanted).build_global().is_ok();
    let running = rayon::current_num_threads();
    if started || wanted == 0 || running == wanted {
        Ok(running)
    } else {
        Err(DeviceError::ThreadsRunning { running, wanted })
    }
}

/// From here on the calling thread computes all by itself: what it would share with the process's pool of threads, it
/// does alone. So that several such threads do different work side by side, each undisturbed.
pub fn compute_alone() -> Result<Alone, DeviceError> {
    crate::allocator::keep_freed();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    pool.map(Alone).map_err(|_| DeviceError::ThreadsRunning { running: rayon::current_num_threads(), wanted: 1 })
}

/// Holds a thread's promise to compute alone; to be kept as long as it computes.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "held, not read")] rayon::ThreadPool);

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, kind: AdapterKind) -> Adapter {
        Adapter {
            index,
            name: format!("{kind:?}"),
            kind,
            api: "vulkan".into(),
            driver: String::new(),
            gives_way: false,
            nth_of_kind: 0,
        }
    }

    #[test]
    fn choices_read_as_they_print() {
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        for text in ["auto", "wgpu", "wgpu:0", "wgpu:12", "cuda:3", "flex"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["", "gpu", "wgpu:", "wgpu:-1", "cuda:x", "flex:0", "Flex"] {
            assert!(matches!(text.parse::<DeviceChoice>(), Err(DeviceError::NotADevice(_))), "{text}");
        }
    }

    #[test]
    fn auto_never_takes_a_software_adapter() {
        use AdapterKind::*;
        let list = [adapter(0, Software), adapter(1, Integrated), adapter(2, Discrete)];
        assert_eq!(choose(DeviceChoice::Auto, &list).unwrap().unwrap().index, 2);
        assert_eq!(choose(DeviceChoice::Auto, &list[..2]).unwrap().unwrap().index, 1);
        assert_eq!(choose(DeviceChoice::Auto, &list[..1]).unwrap(), None);
        assert_eq!(choose(DeviceChoice::Auto, &[]).unwrap(), None);
        assert_eq!(choose(DeviceChoice::Wgpu(None), &list[..1]).unwrap().unwrap().index, 0);
        assert_eq!(choose(DeviceChoice::Wgpu(Some(1)), &list).unwrap().unwrap().kind, Integrated);
        assert!(matches!(choose(DeviceChoice::Wgpu(Some(3)), &list), Err(DeviceError::NoAdapter { index: 3, .. })));
        assert!(matches!(choose(DeviceChoice::Wgpu(None), &[]), Err(DeviceError::NoAdapter { .. })));
    }
}
