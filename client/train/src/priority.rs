//! A GPU's queue that gives way to all others of the computer, the owner's windows first: Vulkan's low *global* priority,
//! where a driver has it. wgpu cannot ask for it, so the device is made through wgpu-hal and handed to the runtime.

use burn::tensor::wgpu::{WgpuSetup, wgpu};

/// A device on this adapter whose queue has low priority; `None` where the driver knows no such thing or refuses it.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn low(instance: &wgpu::Instance, adapter: &wgpu::Adapter) -> Option<WgpuSetup> {
    vulkan::open(instance, adapter, Some(vulkan::extension(adapter)?)).ok()
}

/// Whether the driver has queues of low priority.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn is_offered(adapter: &wgpu::Adapter) -> bool {
    vulkan::extension(adapter).is_some()
}

/// Metal has nothing like it.
#[cfg(target_vendor = "apple")]
pub(crate) fn low(_: &wgpu::Instance, _: &wgpu::Adapter) -> Option<WgpuSetup> {
    None
}

/// Metal has nothing like it.
#[cfg(target_vendor = "apple")]
pub(crate) fn is_offered(_: &wgpu::Adapter) -> bool {
    false
}

#[cfg(not(target_vendor = "apple"))]
mod vulkan {
    use super::*;
    use ash::{ext, khr, vk};
    use std::ffi::CStr;
    use wgpu::hal::{api::Vulkan, vulkan::CreateDeviceCallback};

    /// The extension that gives a queue its priority, by the name that this driver has for it.
    pub fn extension(adapter: &wgpu::Adapter) -> Option<&'static CStr> {
        if cfg!(feature = "vulkan") {
            // SPIR-V wants more of a device than is asked for here, and an anchor node has no owner at its screen.
            return None;
        }
        // SAFETY: only asked what it has.
        #[expect(unsafe_code, reason = "wgpu's own interface does not tell a driver's extensions")]
        let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
        let known = hal.physical_device_capabilities();
        [khr::global_priority::NAME, ext::global_priority::NAME].into_iter().find(|name| known.supports_extension(name))
    }

    /// A device as the runtime would open it, all that the adapter has enabled; if there is an extension, its queue has low
    /// priority.
    pub fn open(
        instance: &wgpu::Instance,
        adapter: &wgpu::Adapter,
        extension: Option<&'static CStr>,
    ) -> Result<WgpuSetup, Box<dyn std::error::Error>> {
        // Without mapped memory, as the runtime has it.
        let required_features = adapter.features().difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS);
        let descriptor = wgpu::DeviceDescriptor {
            required_features,
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            // SAFETY: all that is experimental and on is what this adapter has; the runtime opens its devices so.
            #[expect(unsafe_code, reason = "the runtime wants all features, experimental ones among them")]
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let low = &mut vk::DeviceQueueGlobalPriorityCreateInfoKHR::default().global_priority(vk::QueueGlobalPriorityKHR::LOW);
        let ask: Box<CreateDeviceCallback<'_>> = Box::new(move |args| {
            if let (Some(extension), Some(queue)) = (extension, args.queue_create_infos.first_mut()) {
                args.extensions.push(extension);
                *queue = queue.push_next(low);
            }
        });
        // SAFETY: the hal's adapter is only used while the guard is held; the callback adds an extension that the adapter has
        // and a priority in the place that it defines, and takes nothing away.
        #[expect(unsafe_code, reason = "wgpu's own interface cannot ask for a priority")]
        let opened = unsafe {
            let hal = adapter.as_hal::<Vulkan>().ok_or("no Vulkan adapter")?;
            hal.open_with_callback(required_features, &descriptor.required_limits, &descriptor.memory_hints, Some(ask))?
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

    /// A device that is opened through wgpu-hal computes as one that the runtime opens itself, and where the driver has no
    /// priorities none is asked for.
    #[test]
    fn a_device_opened_by_hand_computes() {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapters = read_sync(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        assert!(!adapters.is_empty() || std::env::var("CI").as_deref() != Ok("true"), "no Vulkan: install mesa-vulkan-drivers");
        for adapter in adapters {
            let setup = match vulkan::extension(&adapter) {
                Some(_) => low(&instance, &adapter),
                None => {
                    assert!(low(&instance, &adapter).is_none() && !is_offered(&adapter));
                    vulkan::open(&instance, &adapter, None).ok()
                }
            };
            let device = Device::wgpu_options().setup(setup.expect("it opens")).init().unwrap();
            let doubled = Tensor::<1>::from_floats([1.0, -2.5], &device) * 2.0;
            assert_eq!(doubled.into_data().try_to_vec::<f32>().unwrap(), [2.0, -5.0], "{:?}", adapter.get_info());
        }
    }
}
