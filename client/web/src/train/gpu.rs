//! A browser's GPU: opened with all that its adapter allows, its buffers, pipelines and the one way to read from it.
//! Whatever goes wrong on it is found here, since WebGPU tells mistakes later, or not at all.

use js_sys::{Function, Object, Promise, Reflect, Uint32Array, Undefined};
use nightjar_wgsl::{Elem, Kernel};
use std::{cell::RefCell, collections::HashMap, rc::Rc};
use wasm_bindgen::prelude::*;
use web_sys::{
    Gpu, GpuAdapterInfo, GpuAutoLayoutMode, GpuBuffer, GpuBufferDescriptor, GpuCommandEncoder, GpuComputePipeline,
    GpuComputePipelineDescriptor, GpuDevice, GpuDeviceDescriptor, GpuDeviceLostInfo, GpuErrorFilter,
    GpuPowerPreference, GpuProgrammableStage, GpuQueue, GpuRequestAdapterOptions, GpuShaderModuleDescriptor,
    GpuUncapturedErrorEvent,
};

#[wasm_bindgen]
extern "C" {
    /// A page's and a worker's alike; none where the browser has no WebGPU, or the page is no secure context.
    #[wasm_bindgen(thread_local_v2, js_namespace = navigator, js_name = gpu)]
    static GPU: Option<Gpu>;
}

/// Why a browser's GPU cannot be used, or not any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GpuError {
    /// The browser has no WebGPU.
    #[error("this browser cannot compute on the GPU (it has no WebGPU, or the page is not loaded over https)")]
    NoWebGpu,
    /// It has, and finds no GPU.
    #[error("this browser found no GPU that it lets pages compute on")]
    NoAdapter,
    /// It does not take what it was given.
    #[error("the browser's GPU refused: {0}")]
    Refused(String),
    /// It has no room for the model.
    #[error("the GPU's memory is too small: {0}")]
    OutOfMemory(String),
    /// It is gone: taken away by the system, or its driver crashed.
    #[error("the GPU was lost: {0}")]
    Lost(String),
    /// It computes, and wrongly.
    #[error("this GPU computes wrongly: {0}")]
    Wrong(String),
}

/// `GPUBufferUsage` and `GPUMapMode`, as the standard numbers them.
mod usage {
    pub const MAP_READ: u32 = 1;
    pub const COPY_SRC: u32 = 4;
    pub const COPY_DST: u32 = 8;
    pub const STORAGE: u32 = 128;
    pub const MODE_READ: u32 = 1;
}

/// Limits that a device is asked for beyond what every browser promises: as much as the adapter has.
const LIMITS: [&str; 2] = ["maxBufferSize", "maxStorageBufferBindingSize"];
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 20;

/// What was found on a device since it was opened, by the callbacks that it tells it to.
#[derive(Default)]
struct Found {
    lost: Option<String>,
    error: Option<String>,
}

/// An open GPU. Dropping it gives its memory back.
pub struct OpenGpu {
    device: GpuDevice,
    queue: GpuQueue,
    name: String,
    found: Rc<RefCell<Found>>,
    pipelines: HashMap<(&'static str, Vec<(&'static str, u32)>), GpuComputePipeline>,
    staging: GpuBuffer,
    _on_error: Closure<dyn FnMut(GpuUncapturedErrorEvent)>,
    _on_loss: Closure<dyn FnMut(GpuDeviceLostInfo)>,
}

impl OpenGpu {
    /// Opens the GPU that the browser takes for the fastest.
    pub async fn open() -> Result<Self, GpuError> {
        let gpu = GPU.with(Clone::clone).ok_or(GpuError::NoWebGpu)?;
        let options = GpuRequestAdapterOptions::new();
        options.set_power_preference(GpuPowerPreference::HighPerformance);
        let adapter = gpu.request_adapter_with_options(&options).await.map_err(refused)?;
        let adapter = adapter.into_option().ok_or(GpuError::NoAdapter)?;
        let limits = Object::new();
        for name in LIMITS {
            let limit = Reflect::get(&adapter.limits(), &name.into()).map_err(refused)?;
            Reflect::set(&limits, &name.into(), &limit).map_err(refused)?;
        }
        let descriptor = GpuDeviceDescriptor::new();
        descriptor.set_required_limits(limits.unchecked_ref());
        let device = adapter.request_device_with_descriptor(&descriptor).await.map_err(refused)?;
        Self::of(device, &adapter.info())
    }

    fn of(device: GpuDevice, info: &GpuAdapterInfo) -> Result<Self, GpuError> {
        let found = Rc::new(RefCell::new(Found::default()));
        let of_error = found.clone();
        let on_error = Closure::<dyn FnMut(GpuUncapturedErrorEvent)>::new(move |event: GpuUncapturedErrorEvent| {
            of_error.borrow_mut().error.get_or_insert(event.error().message());
        });
        device.set_onuncapturederror(Some(on_error.as_ref().unchecked_ref::<Function>()));
        let of_loss = found.clone();
        let on_loss = Closure::<dyn FnMut(GpuDeviceLostInfo)>::new(move |info: GpuDeviceLostInfo| {
            of_loss.borrow_mut().lost = Some(info.message());
        });
        let _ = device.lost().then(&on_loss);
        let parts = [info.vendor(), info.architecture(), info.description()];
        let name = parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ");
        let staging = buffer(&device, READ_BYTES, usage::MAP_READ | usage::COPY_DST).map_err(refused)?;
        let queue = device.queue();
        Ok(OpenGpu {
            queue,
            name: if name.is_empty() { "a GPU".into() } else { name },
            found,
            pipelines: HashMap::new(),
            staging,
            device,
            _on_error: on_error,
            _on_loss: on_loss,
        })
    }

    /// What the browser calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that one buffer may have.
    pub fn buffer_bytes_max(&self) -> u64 {
        let limits = self.device.limits();
        limits.max_buffer_size().min(limits.max_storage_buffer_binding_size()) as u64
    }

    /// What was found wrong since it was opened, if anything was.
    pub fn check(&self) -> Result<(), GpuError> {
        let found = self.found.borrow();
        match (&found.lost, &found.error) {
            (Some(why), _) => Err(GpuError::Lost(why.clone())),
            (None, Some(error)) => Err(GpuError::Refused(error.clone())),
            (None, None) => Ok(()),
        }
    }

    /// Buffers of so many numbers each, all zero.
    pub async fn buffers(&self, numbers: impl IntoIterator<Item = usize>) -> Result<Vec<GpuBuffer>, GpuError> {
        self.device.push_error_scope(GpuErrorFilter::OutOfMemory);
        let all = numbers
            .into_iter()
            .map(|n| buffer(&self.device, 4 * n.max(1), usage::STORAGE | usage::COPY_SRC | usage::COPY_DST));
        let made: Result<Vec<GpuBuffer>, JsValue> = all.collect();
        let error = self.device.pop_error_scope().await.map_err(refused)?;
        self.check()?;
        match error.into_option() {
            Some(error) => Err(GpuError::OutOfMemory(error.message())),
            None => made.map_err(refused),
        }
    }

    /// Compiles a kernel, unless it is compiled already. The browser says here if it does not take it.
    pub async fn prepare(&mut self, kernel: &Kernel, constants: &[(&'static str, u32)]) -> Result<(), GpuError> {
        if self.pipelines.contains_key(&(kernel.name, constants.to_vec())) {
            return Ok(());
        }
        let text = kernel.text(constants, Elem::F32);
        let module = self.device.create_shader_module(&GpuShaderModuleDescriptor::new(&text));
        let stage = GpuProgrammableStage::new(&module);
        let descriptor = GpuComputePipelineDescriptor::new_with_gpu_auto_layout_mode(GpuAutoLayoutMode::Auto, &stage);
        let made = self.device.create_compute_pipeline_async(&descriptor).await;
        let pipeline = made.map_err(|e| GpuError::Refused(format!("{}: {}", kernel.name, words(&e))))?;
        self.pipelines.insert((kernel.name, constants.to_vec()), pipeline);
        Ok(())
    }

    /// A compiled kernel.
    pub fn pipeline(&self, kernel: &Kernel, constants: &[(&'static str, u32)]) -> Option<&GpuComputePipeline> {
        self.pipelines.get(&(kernel.name, constants.to_vec()))
    }

    /// The device, for whoever records what it is to do.
    pub fn device(&self) -> &GpuDevice {
        &self.device
    }

    /// Writes the first numbers of a buffer.
    pub fn write(&self, to: &GpuBuffer, words: &[u32]) -> Result<(), GpuError> {
        // A view of this program's memory, which nothing moves before the call is over.
        #[allow(unsafe_code)]
        // SAFETY: no memory is taken between making the view and its last use.
        let view = unsafe { Uint32Array::view(words) };
        self.queue.write_buffer_with_u32_and_buffer_source(to, 0, &view).map_err(refused)
    }

    /// Hands over what was recorded; what this gives is kept once it is done, and all before it.
    pub fn submit(&self, recorded: GpuCommandEncoder) -> Promise<Undefined> {
        self.queue.submit(&[recorded.finish()]);
        self.queue.on_submitted_work_done()
    }

    /// Waits for what was handed over.
    pub async fn done(&self, submitted: Promise<Undefined>) -> Result<(), GpuError> {
        submitted.await.map_err(refused)?;
        self.check()
    }

    /// The first numbers of a buffer, appended to a list, once all that was handed over is done.
    pub async fn read(&self, from: &GpuBuffer, numbers: usize, to: &mut Vec<u32>) -> Result<(), GpuError> {
        let mut first = 0;
        while first < numbers {
            let bytes = (4 * (numbers - first)).min(READ_BYTES);
            let encoder = self.device.create_command_encoder();
            encoder
                .copy_buffer_to_buffer_with_f64_and_u32_and_f64(
                    from,
                    4.0 * first as f64,
                    &self.staging,
                    0,
                    bytes as f64,
                )
                .map_err(refused)?;
            let _ = self.submit(encoder);
            let mapped = self.staging.map_async_with_u32_and_f64(usage::MODE_READ, 0, bytes as f64);
            mapped.await.map_err(refused)?;
            self.check()?;
            let range = self.staging.get_mapped_range_with_u32_and_f64(0, bytes as f64).map_err(refused)?;
            let at = to.len();
            to.resize(at + bytes / 4, 0);
            Uint32Array::new(&range).copy_to(&mut to[at..]);
            self.staging.unmap();
            first += bytes / 4;
        }
        Ok(())
    }
}

impl Drop for OpenGpu {
    fn drop(&mut self) {
        self.device.set_onuncapturederror(None);
        self.device.destroy();
    }
}

fn buffer(device: &GpuDevice, bytes: usize, usage: u32) -> Result<GpuBuffer, JsValue> {
    device.create_buffer(&GpuBufferDescriptor::new_with_f64(bytes as f64, usage))
}

/// What a browser throws, as an error.
fn refused(thrown: JsValue) -> GpuError {
    GpuError::Refused(words(&thrown))
}

/// The words of what a browser throws.
fn words(thrown: &JsValue) -> String {
    let message = Reflect::get(thrown, &"message".into()).ok().and_then(|message| message.as_string());
    message.unwrap_or_else(|| format!("{thrown:?}"))
}
