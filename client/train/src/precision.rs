//! Mixed precision (Micikevicius et al., arXiv 1710.03740): products are computed in a type of half the width, while
//! the weights themselves, what flows past the layers, norms, moments and sums stay f32. What is small in f16 is lost
//! below 6·10⁻⁸, so the loss is scaled up before its gradient is taken and the gradient scaled down after: by as much
//! as f16's range bears, which is found by trying.

use burn::tensor::{Device, FloatDType};
use nightjar_shaders::{choice, kernel, op};

/// What a training step's products are computed in; they accumulate in f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32.
    #[default]
    Full,
    /// f16, with a scaled loss: WGSL has no other half type.
    Half,
    /// bf16, which has f32's range and needs no scale: for CUDA.
    BFloat,
}

impl Precision {
    /// What is best on a device: half the width where it can and gains by it. Where our kernels run that is measured
    /// once a device; what an anchor node has, behind CUDA or SPIR-V, is built for bf16.
    pub fn best_on(device: &Device) -> Self {
        let is_anchor = !op::is_host(device) && !kernel::runs_on(device);
        if choice::halves_products(device) {
            Precision::Half
        } else if is_anchor && device.supports_dtype(FloatDType::BF16) {
            Precision::BFloat
        } else {
            Precision::Full
        }
    }

    /// The type of products.
    pub(crate) fn dtype(self) -> FloatDType {
        match self {
            Precision::Full => FloatDType::F32,
            Precision::Half => FloatDType::F16,
            Precision::BFloat => FloatDType::BF16,
        }
    }
}

/// What the loss is multiplied by: a power of two, so that scaling alone changes no digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LossScale {
    scale: f32,
    /// Whether there is a range to keep to. A scale that has come down to 1 has one still, and grows again.
    scales: bool,
    good_steps: u32,
}

impl LossScale {
    const FIRST: f32 = 65_536.0;
    const MOST: f32 = 16_777_216.0;
    /// After so many steps without an overflow a scale twice as large is tried.
    const GROWS_AFTER: u32 = 1000;

    /// The scale to begin with.
    pub fn first(precision: Precision) -> Self {
        let scales = precision == Precision::Half;
        LossScale { scale: if scales { Self::FIRST } else { 1.0 }, scales, good_steps: 0 }
    }

    pub fn value(self) -> f32 {
        self.scale
    }

    /// A step went well.
    pub fn held(&mut self) {
        self.good_steps += 1;
        if self.good_steps >= Self::GROWS_AFTER && self.scales {
            (self.scale, self.good_steps) = ((2.0 * self.scale).min(Self::MOST), 0);
        }
    }

    /// A gradient left the range; false if no smaller scale is left to try.
    pub fn overflowed(&mut self) -> bool {
        let had_room = self.scale > 1.0;
        (self.scale, self.good_steps) = ((self.scale / 2.0).max(1.0), 0);
        had_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_halves_at_an_overflow_and_grows_after_many_good_steps() {
        let mut scale = LossScale::first(Precision::Half);
        assert!(scale.overflowed());
        assert_eq!(scale.value(), 32_768.0);
        (0..999).for_each(|_| scale.held());
        assert_eq!(scale.value(), 32_768.0);
        scale.held();
        assert_eq!(scale.value(), 65_536.0);
        // Good steps count from the last overflow.
        (0..999).for_each(|_| scale.held());
        assert!(scale.overflowed());
        scale.held();
        assert_eq!(scale.value(), 32_768.0);
        (0..100_000).for_each(|_| scale.held());
        assert_eq!(scale.value(), LossScale::MOST);
    }

    #[test]
    fn a_scale_of_one_is_the_last() {
        let mut scale = LossScale::first(Precision::Half);
        let halvings = (0..100).take_while(|_| scale.overflowed()).count();
        assert_eq!((halvings, scale.value()), (16, 1.0));
        // But not for ever.
        (0..1000).for_each(|_| scale.held());
        assert_eq!(scale.value(), 2.0);
        let mut none = LossScale::first(Precision::Full);
        (0..5000).for_each(|_| none.held());
        assert_eq!((none.value(), none.overflowed()), (1.0, false));
    }
}
