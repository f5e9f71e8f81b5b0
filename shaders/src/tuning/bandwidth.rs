//! How fast a device's memory is, told to the runtime before it tunes. Left to itself the runtime finds out by copying
//! between two buffers of up to a gigabyte each, anew for every size of what it tunes: more than many a GPU has free while
//! its owner uses it, and one that cannot allocate them takes the worker down.

use super::copy_speed;
use burn::{backend::DispatchDevice, tensor::Device};
use cubecl::throughput::{
    MemoryAccess, MemorySpec, ThroughputError, ThroughputKey, ThroughputMode, ThroughputValue, working_set_sweep,
};
use std::time::Duration;

/// All that the runtime may ask: for each way to pass over memory the sizes that it tells apart.
fn questions() -> impl Iterator<Item = ThroughputKey> {
    [MemoryAccess::Copy, MemoryAccess::Read, MemoryAccess::Write].into_iter().flat_map(|access| {
        let sizes = working_set_sweep(access.default_working_set()).into_iter();
        sizes.map(move |bytes| ThroughputKey { mode: ThroughputMode::Memory(MemorySpec::new(access, bytes)) })
    })
}

/// Measures how fast a GPU copies, with 128 MiB, and answers with that whatever the runtime asks of the device's memory: it
/// stops trying kernels where one comes near to it, and for what is small and in a cache it only tries a few more. What an
/// earlier start has left in the runtime's cache is not measured again. To be called before the device's first operation.
pub fn tell_bandwidth(device: &Device) {
    let DispatchDevice::Cube(cube) = device.as_dispatch() else { return };
    let client = cube.client();
    // An answer that fails is not kept.
    let is_open = |key: &ThroughputKey| client.measure_throughput(*key, || Err(ThroughputError::Unsupported)).is_err();
    let open: Vec<ThroughputKey> = questions().filter(is_open).collect();
    if open.is_empty() {
        return;
    }
    let bytes_per_s = copy_speed(device);
    for key in open {
        let values = 1 << 24;
        let seconds = (values * key.dtype().size()) as f64 / bytes_per_s;
        let value = ThroughputValue { ops_count: values, duration: Duration::from_secs_f64(seconds) };
        let _ = client.measure_throughput(key, || Ok(value));
    }
    // The model needs it for other sizes.
    device.memory_cleanup();
}
