//! What the runtime says of a device: its name, the most that it gives at once, and how much of its memory is held.

use burn::{backend::DispatchDevice, tensor::Device};
use cubecl::MemoryScope;

/// A GPU's name; `None` for the processor.
///
/// # Panics
/// If the runtime cannot start on it.
pub fn name(device: &Device) -> Option<String> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.client().properties().identity.name.clone()),
        _ => None,
    }
}

/// Most bytes of one tensor on a GPU. `None` on the processor, and on a device that records.
///
/// # Panics
/// If the runtime cannot start on it.
pub fn allocation_max(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.client().properties().memory.max_page_size),
        _ => None,
    }
}

/// Bytes that the runtime has taken from a GPU and not given back: since it keeps what it will need again, about the
/// most that was in use at once, rounded up to its pages. `None` on the processor, whose tensors are the process's own
/// memory.
pub fn held(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.client().memory_report(MemoryScope::Device).usage().bytes_reserved),
        _ => None,
    }
}
