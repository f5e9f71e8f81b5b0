//! A Vulkan device as an owner's GPU is opened, through wgpu-hal, and handed to the runtime. By itself the runtime asks
//! for all that an adapter has, ray tracing among it, for which NVIDIA's driver starts all of CUDA; and wgpu cannot ask
//! for a queue that gives way to all others of the computer, the owner's windows first: Vulkan's low *global* priority.

use burn::tensor::wgpu::{WgpuSetup, wgpu};

/// A device on this adapter, and whether its queue has low priority: where the driver knows such a thing, unless it is
/// to have
/// `normal_priority`. `None` where the adapter is not to be opened by hand, or does not open.
pub(crate) fn open(
    instance: &wgpu::Instance,
    adapter: &wgpu::Adapter,
    normal_priority: bool,
) -> Option<(WgpuSetup, bool)> {
    imp::open(instance, adapter, normal_priority)
}

/// Whether the driver has queues of low priority.
pub(crate) fn gives_way(adapter: &wgpu::Adapter) -> bool {
    imp::priority(adapter).is_some()
}

/// What computing needs of an adapter, where it has it.
#[cfg(not(target_vendor = "apple"))]
fn features(adapter: &wgpu::Adapter) -> wgpu::Features {
    use wgpu::Features as F;
    let types = F::SHADER_F16 | F::SHADER_F64 | F::SHADER_I16 | F::SHADER_INT64 | F::SHADER_FLOAT32_ATOMIC;
    let groups = F::SUBGROUP | F::SUBGROUP_BARRIER | F::EXPERIMENTAL_COOPERATIVE_MATRIX;
    let clock = F::TIMESTAMP_QUERY | F::TIMESTAMP_QUERY_INSIDE_ENCODERS | F::TIMESTAMP_QUERY_INSIDE_PASSES;
    adapter.features() & (types | groups | clock)
}

/// Metal has nothing like it.
#[cfg(target_vendor = "apple")]
mod imp {
    use super::*;

    pub fn open(_: &wgpu::Instance, _: &wgpu::Adapter, _: bool) -> Option<(WgpuSetup, bool)> {
        None
    }

    pub fn priority(_: &wgpu::Adapter) -> Option<()> {
        None
    }
}

#[cfg(not(target_vendor = "apple"))]
mod imp {
    use super::*;
    use ash::{ext, khr, vk};
    use std::ffi::CStr;
    use wgpu::hal::{api::Vulkan, vulkan::CreateDeviceCallback};

    pub fn open(
        instance: &wgpu::Instance,
        adapter: &wgpu::Adapter,
        normal_priority: bool,
    ) -> Option<(WgpuSetup, bool)> {
        // SPIR-V wants more of a device than is asked for here, and an anchor node has no owner at its screen.
        if cfg!(feature = "vulkan") || adapter.get_info().backend != wgpu::Backend::Vulkan {
            return None;
        }
        let low = priority(adapter)
            .filter(|_| !normal_priority)
            .and_then(|name| Some((open_with(instance, adapter, Some(name)).ok()?, true)));
        low.or_else(|| Some((open_with(instance, adapter, None).ok()?, false)))
    }

    /// The extension that gives a queue its priority, by the name that this driver has for it.
    pub fn priority(adapter: &wgpu::Adapter) -> Option<&'static CStr> {
        if cfg!(feature = "vulkan") {
            return None;
        }
        // SAFETY: only asked what it has.
        #[expect(unsafe_code, reason = "wgpu's own interface does not tell a driver's extensions")]
        let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
        let known = hal.physical_device_capabilities();
        [khr::global_priority::NAME, ext::global_priority::NAME].into_iter().find(|name| known.supports_extension(name))
    }

    /// If there is an extension, the queue has low priority.
    fn open_with(
        instance: &wgpu::Instance,
        adapter: &wgpu::Adapter,
        extension: Option<&'static CStr>,
    ) -> Result<WgpuSetup, Box<dyn std::error::Error>> {
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features(adapter),
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            // SAFETY: what is experimental are the cooperative matrices, and only kernels that were tried use them.
            #[expect(unsafe_code, reason = "wgpu wants a word for what is experimental")]
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let low =
            &mut vk::DeviceQueueGlobalPriorityCreateInfoKHR::default().global_priority(vk::QueueGlobalPriorityKHR::LOW);
        let ask: Box<CreateDeviceCallback<'_>> = Box::new(move |args| {
            if let (Some(extension), Some(queue)) = (extension, args.queue_create_infos.first_mut()) {
                args.extensions.push(extension);
                *queue = queue.push_next(low);
            }
        });
        // SAFETY: the hal's adapter is only used while the guard is held; the callback adds an extension that the
        // adapter has and a priority in the place that it defines, and takes nothing away.
        #[expect(unsafe_code, reason = "wgpu's own interface cannot ask for a priority")]
        let opened = unsafe {
            let hal = adapter.as_hal::<Vulkan>().ok_or("no Vulkan adapter")?;
            hal.open_with_callback(
                descriptor.required_features,
                &descriptor.required_limits,
                &descriptor.memory_hints,
                Some(ask),
            )?
        };
        // SAFETY: it was opened from this very adapter, with these features.
        #[expect(unsafe_code, reason = "wgpu takes over what the hal opened")]
        let (device, queue) = unsafe { adapter.create_device_from_hal(opened, &descriptor)? };
        let (instance, adapter) = (instance.clone(), adapter.clone());
        Ok(WgpuSetup { instance, adapter, device, queue, backend: wgpu::Backend::Vulkan })
    }
}

#[cfg(all(test, not(target_vendor = "apple")))]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor, read_sync};

    /// A device that is opened by hand computes as one that the runtime opens itself, and where the driver has no
    /// priorities none is asked for.
    #[test]
    fn a_device_opened_by_hand_computes() {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapters = read_sync(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        assert!(
            !adapters.is_empty() || std::env::var("CI").as_deref() != Ok("true"),
            "no Vulkan: install mesa-vulkan-drivers"
        );
        for adapter in adapters {
            assert!(!open(&instance, &adapter, true).expect("it opens").1, "a queue of normal priority was asked for");
            let (setup, low) = open(&instance, &adapter, false).expect("it opens");
            assert_eq!(low, gives_way(&adapter));
            assert!(features(&adapter).contains(adapter.features() & wgpu::Features::SHADER_F16));
            assert!(!features(&adapter).contains(wgpu::Features::EXPERIMENTAL_RAY_QUERY));
            let device = Device::wgpu_options().setup(setup).init().unwrap();
            let doubled = Tensor::<1>::from_floats([1.0, -2.5], &device) * 2.0;
            assert_eq!(doubled.into_data().try_to_vec::<f32>().unwrap(), [2.0, -5.0], "{:?}", adapter.get_info());
        }
    }
}
