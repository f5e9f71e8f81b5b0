//! What the runtime may not find out. Before it tunes a product it measures how fast the device's memory is, by copying
//! between two buffers of up to a gigabyte each, anew for every size: more than many a GPU has free while its owner
//! uses it, and a worker that cannot allocate them is taken down. All that it gains is to stop trying kernels where one
//! comes near to what memory allows, once a device.

use burn::{backend::DispatchDevice, tensor::Device};
use cubecl::throughput::{MemoryAccess, MemorySpec, ThroughputKey, ThroughputMode, ThroughputValue, working_set_sweep};

/// All that the runtime may ask of a device's memory: for each way to pass over it the sizes that it tells apart.
fn questions() -> impl Iterator<Item = ThroughputKey> {
    [MemoryAccess::Copy, MemoryAccess::Read, MemoryAccess::Write].into_iter().flat_map(|access| {
        let sizes = working_set_sweep(access.default_working_set()).into_iter();
        sizes.map(move |bytes| ThroughputKey { mode: ThroughputMode::Memory(MemorySpec::new(access, bytes)) })
    })
}

/// Answers each of its questions with what it takes for "not known". To be called before the device's first operation.
pub fn leave_bandwidth_unknown(device: &Device) {
    let DispatchDevice::Cube(cube) = device.as_dispatch() else { return };
    let client = cube.client();
    for key in questions() {
        let _ = client.measure_throughput(key, || Ok(ThroughputValue::ZERO));
    }
}
