//! SGD with Nesterov momentum on the pseudo-gradient: DiLoCo's outer step (Douillard et al., arXiv 2311.08105).

/// m ← μ·m + g, θ ← θ − η·(g + μ·m), as `torch.optim.SGD(nesterov=True)` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Nesterov {
    /// μ.
    pub momentum: f32,
    /// m, a flat vector.
    pub m: Vec<f32>,
}

impl Nesterov {
    /// At rest, for vectors of `len` values.
    pub fn new(momentum: f32, len: usize) -> Self {
        Nesterov { momentum, m: vec![0.0; len] }
    }

    /// One step with learning rate `rate`; `g` and `theta` are as long as `m`.
    pub fn step(&mut self, rate: f32, g: &[f32], theta: &mut [f32]) {
        let mu = self.momentum;
        for ((m, g), theta) in self.m.iter_mut().zip(g).zip(theta) {
            *m = mu * *m + g;
            *theta -= rate * (g + mu * *m);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_by_hand() {
        // μ = 0.5, η = 0.5, g = 1 twice. Step 1: m = 1, 1 + 0.5 = 1.5. Step 2: m = 1.5, 1 + 0.75 = 1.75.
        let (mut outer, mut theta) = (Nesterov::new(0.5, 1), [0.0]);
        outer.step(0.5, &[1.0], &mut theta);
        assert_eq!((outer.m[0], theta), (1.0, [-0.75]));
        outer.step(0.5, &[1.0], &mut theta);
        assert_eq!((outer.m[0], theta), (1.5, [-1.625]));
    }
}
