//! Carries programs out on a GPU: buffers and parameters bound once a program, launches handed over some at a time.

use super::{
    gpu::{GpuError, OpenGpu},
    program::{ALIGNMENT, Buffer, Launch, Part, Program, Step},
};
use std::collections::{HashMap, VecDeque};
use web_sys::{GpuBindGroup, GpuBindGroupDescriptor, GpuBindGroupEntry, GpuBuffer, GpuBufferBinding};

/// Launches that are handed over at once, and how many such heaps may be under way. A page shares its GPU with whatever
/// draws the screen, which comes in between; and iOS ends a page that hands over too much.
const HEAP: usize = 24;
const UNDER_WAY: usize = 2;

/// What a program is, apart from its parameters: one that was carried out before is bound already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Zeros for a gradient.
    Begin,
    /// The gradient of so many samples.
    Gradient(usize),
    /// The nats of so many samples alone.
    Nats(usize),
    /// The gradient's norm.
    Norms,
    /// The update by it.
    Update,
}

/// What a program's launches are bound to.
struct Bound {
    groups: Vec<GpuBindGroup>,
    /// The parameters of each launch, [`ALIGNMENT`] apart.
    parameters: GpuBuffer,
}

/// Buffers on a GPU, and the programs that were bound to them.
pub struct Executor {
    buffers: Vec<GpuBuffer>,
    bound: HashMap<Kind, Bound>,
}

impl Executor {
    /// Takes memory for buffers of so many numbers.
    pub async fn new(gpu: &OpenGpu, numbers: &[usize]) -> Result<Self, GpuError> {
        Ok(Executor { buffers: gpu.buffers(numbers.iter().copied()).await?, bound: HashMap::new() })
    }

    /// A buffer.
    pub fn buffer(&self, buffer: Buffer) -> &GpuBuffer {
        &self.buffers[buffer.id]
    }

    /// Compiles what a program launches and binds it, unless that is done.
    pub async fn prepare(&mut self, gpu: &mut OpenGpu, kind: Kind, program: &Program) -> Result<(), GpuError> {
        if self.bound.contains_key(&kind) {
            return Ok(());
        }
        for launch in program.launches() {
            gpu.prepare(launch.kernel, &launch.constants).await?;
        }
        let launches = program.launches().count();
        let parameters = gpu.buffers([ALIGNMENT * launches.max(1)]).await?.remove(0);
        let bind = |(i, launch)| self.bind(gpu, launch, &parameters, i);
        let groups = program.launches().enumerate().map(bind).collect::<Result<_, _>>()?;
        self.bound.insert(kind, Bound { groups, parameters });
        gpu.check()
    }

    fn bind(&self, gpu: &OpenGpu, launch: &Launch, parameters: &GpuBuffer, i: usize) -> Result<GpuBindGroup, GpuError> {
        let binding = |buffer: &GpuBuffer, first: usize, numbers: usize| {
            let binding = GpuBufferBinding::new(buffer);
            binding.set_offset_f64(4.0 * first as f64);
            binding.set_size_f64(4.0 * numbers as f64);
            binding
        };
        let part = |part: &Part| binding(&self.buffers[part.buffer.id], part.first, part.numbers.max(1));
        let own = binding(parameters, ALIGNMENT * i, launch.parameters.len());
        let all = launch.parts.iter().map(part).chain([own]);
        let entries: Vec<GpuBindGroupEntry> =
            (0..).zip(all).map(|(i, binding)| GpuBindGroupEntry::new_with_gpu_buffer_binding(i, &binding)).collect();
        let layout = pipeline(gpu, launch)?.get_bind_group_layout(0);
        Ok(gpu.device().create_bind_group(&GpuBindGroupDescriptor::new(&entries, &layout)))
    }

    /// Carries a program out that was prepared; most of it is under way still when this ends.
    pub async fn run(&self, gpu: &OpenGpu, kind: Kind, program: &Program) -> Result<(), GpuError> {
        let Some(Bound { groups, parameters }) = self.bound.get(&kind) else { return Err(unprepared(&kind)) };
        let mut words = vec![0u32; ALIGNMENT * groups.len()];
        for (launch, place) in program.launches().zip(words.chunks_mut(ALIGNMENT)) {
            place[..launch.parameters.len()].copy_from_slice(&launch.parameters);
        }
        gpu.write(parameters, &words)?;
        let mut groups = groups.iter();
        let mut under_way = VecDeque::with_capacity(UNDER_WAY + 1);
        for heap in program.steps.chunks(HEAP) {
            let encoder = gpu.device().create_command_encoder();
            let mut pass = None;
            for step in heap {
                match step {
                    Step::Launch(launch) => {
                        let pass = pass.get_or_insert_with(|| encoder.begin_compute_pass());
                        let [x, y, z] = launch.groups;
                        pass.set_pipeline(pipeline(gpu, launch)?);
                        pass.set_bind_group(0, groups.next());
                        pass.dispatch_workgroups_with_workgroup_count_y_and_workgroup_count_z(x, y, z);
                    }
                    Step::Copy { from, to, numbers } => {
                        pass.take().inspect(|pass| pass.end());
                        let (from, to, bytes) = (self.buffer(*from), self.buffer(*to), 4.0 * *numbers as f64);
                        let copied = encoder.copy_buffer_to_buffer_with_u32_and_u32_and_f64(from, 0, to, 0, bytes);
                        copied.map_err(|e| GpuError::Refused(format!("a copy: {e:?}")))?;
                    }
                    Step::Clear(buffer) => {
                        pass.take().inspect(|pass| pass.end());
                        encoder.clear_buffer(self.buffer(*buffer));
                    }
                }
            }
            pass.inspect(|pass| pass.end());
            under_way.push_back(gpu.submit(encoder));
            if under_way.len() > UNDER_WAY
                && let Some(earliest) = under_way.pop_front()
            {
                gpu.done(earliest).await?;
            }
        }
        gpu.check()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.buffers.iter().chain(self.bound.values().map(|bound| &bound.parameters)).for_each(GpuBuffer::destroy);
    }
}

fn pipeline<'g>(gpu: &'g OpenGpu, launch: &Launch) -> Result<&'g web_sys::GpuComputePipeline, GpuError> {
    gpu.pipeline(launch.kernel, &launch.constants).ok_or_else(|| unprepared(&launch.kernel.name))
}

fn unprepared(what: &dyn std::fmt::Debug) -> GpuError {
    GpuError::Refused(format!("{what:?} was not prepared"))
}
