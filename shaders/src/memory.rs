//! How much of a device's memory the runtime holds.

use burn::{backend::DispatchDevice, tensor::Device};
use cubecl::MemoryScope;

/// Bytes that the runtime has taken from a GPU and not given back: since it keeps what it will need again, about the most
/// that was in use at once, rounded up to its pages. `None` on the processor, whose tensors are the process's own memory.
pub fn held(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.client().memory_report(MemoryScope::Device).usage().bytes_reserved),
        _ => None,
    }
}
