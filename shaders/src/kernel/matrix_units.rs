//! Units of a GPU that multiply whole tiles: what an adapter says of its cooperative matrices.

use burn_wgpu::wgpu::{
    Adapter, AdapterInfo, Backend, CooperativeMatrixProperties, CooperativeScalarType, Features, Limits,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Units that multiply tiles of f16 and sum in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixUnits {
    /// Side of a tile: 8 or 16.
    pub tile: u32,
    /// Most invocations of a subgroup.
    pub subgroup: u32,
}

/// Invocations of a workgroup of the kernels that use them, and parts that its subgroups share among them.
const WORKGROUP: u32 = 256;
const PARTS: u32 = 8;

/// A process trains on one device; 0 stands for none.
static CURRENT: AtomicU64 = AtomicU64::new(0);

impl MatrixUnits {
    /// Those of an adapter, of the larger tile where it has both; `None` where it has none that our kernels can use.
    pub fn of(adapter: &Adapter) -> Option<Self> {
        let known = adapter.cooperative_matrix_properties();
        Self::chosen(&adapter.get_info(), &adapter.limits(), adapter.features(), &known)
    }

    /// By what an adapter says of itself. Under Vulkan alone: to naga's MSL a tile in quads is a pointer to four values
    /// where one to a single value is wanted, so that Metal refuses the kernel though it has the units, and to its HLSL
    /// there are no tiles.
    fn chosen(
        info: &AdapterInfo,
        limits: &Limits,
        features: Features,
        known: &[CooperativeMatrixProperties],
    ) -> Option<Self> {
        let needed = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16 | Features::SUBGROUP;
        let fits = info.backend == Backend::Vulkan
            && features.contains(needed)
            && limits.max_compute_invocations_per_workgroup >= WORKGROUP
            && info.subgroup_max_size > 0;
        let has = |tile: &u32| {
            let in_memory = memory(*tile) <= limits.max_compute_workgroup_storage_size;
            in_memory
                && known.iter().any(|p| {
                    let square = [p.m_size, p.n_size, p.k_size] == [*tile; 3];
                    square && (p.ab_type, p.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
                })
        };
        let tile = [16, 8].into_iter().find(has).filter(|_| fits)?;
        Some(MatrixUnits { tile, subgroup: info.subgroup_max_size.min(WORKGROUP) })
    }

    /// Those of the device that this process trains on, as [`MatrixUnits::set`] was told.
    pub fn current() -> Option<Self> {
        let bits = CURRENT.load(Ordering::Relaxed);
        (bits != 0).then_some(MatrixUnits { tile: (bits >> 32) as u32, subgroup: bits as u32 })
    }

    /// Says what the device has that this process trains on.
    pub fn set(units: Option<Self>) {
        let bits = units.map_or(0, |units| u64::from(units.tile) << 32 | u64::from(units.subgroup));
        CURRENT.store(bits, Ordering::Relaxed);
    }

    /// Rows and columns of what a workgroup makes.
    pub(crate) fn sides(self) -> [usize; 2] {
        [8, 16].map(|tiles| tiles * self.tile as usize)
    }

    /// How much of the inner dimension it has in memory at once.
    pub(crate) fn depth(self) -> usize {
        2 * self.tile as usize
    }

    /// How often the smallest number of subgroups must go over the workgroup's parts to come to all.
    pub(crate) fn laps(self) -> u32 {
        PARTS.div_ceil(WORKGROUP / self.subgroup)
    }
}

/// Bytes of workgroup memory that `product.wgsl` takes: its slabs of f16, and f32 on the way out.
fn memory(tile: u32) -> u32 {
    let (depth, long) = (2 * tile, 2 * tile + 8);
    let slab = |side: u32| 2 * (side * long).max(depth * (side + 8));
    slab(8 * tile) + slab(16 * tile) + 4 * 8 * 2 * tile * tile
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_wgpu::wgpu::DeviceType;

    #[test]
    fn only_vulkan_is_given_the_kernel() {
        // As wgpu tells them of Apple's GPUs, by which they would do.
        let tile = CooperativeMatrixProperties {
            m_size: 8,
            n_size: 8,
            k_size: 8,
            ab_type: CooperativeScalarType::F16,
            cr_type: CooperativeScalarType::F32,
            saturating_accumulation: false,
        };
        let units = |backend| {
            let info = AdapterInfo { subgroup_max_size: 32, ..AdapterInfo::new(DeviceType::IntegratedGpu, backend) };
            MatrixUnits::chosen(&info, &Limits::default(), Features::all(), &[tile])
        };
        assert_eq!(units(Backend::Vulkan), Some(MatrixUnits { tile: 8, subgroup: 32 }));
        assert_eq!([Backend::Metal, Backend::Dx12].map(units), [None, None]);
    }

    #[test]
    fn what_a_kernel_takes_of_workgroup_memory_is_its_files() {
        assert_eq!([8, 16].map(memory), [13_312, 47_104]);
    }

    #[test]
    fn all_parts_are_come_to_whatever_a_subgroup_holds() {
        let laps = |subgroup| MatrixUnits { tile: 16, subgroup }.laps();
        assert_eq!([4, 8, 32, 64, 128, 256].map(laps), [1, 1, 1, 2, 4, 8]);
    }
}
