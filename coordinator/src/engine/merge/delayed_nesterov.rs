//! Delayed Nesterov: the momentum moves only at every N-th arrival, since momentum that is applied at each is what
//! makes asynchronous training diverge (Asynchronous Local-SGD, Liu et al., arXiv 2401.09135, algorithm 3).

/// At every arrival B ← B + g. At each `interval`-th (N-th): m ← β·m + B/N, θ ← θ − η·((1 − cN + c)·β·m + g/N), B ← 0.
/// At those between: θ ← θ − η·(c·β·m + g/N).
///
/// With N = 1 it is [`Nesterov`](super::nesterov::Nesterov). In the merger an arrival is a published version: the mean
/// of a quorum stands for one device's pseudo-gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct DelayedNesterov {
    /// η.
    pub rate: f32,
    /// β.
    pub momentum: f32,
    /// N, at least 1.
    pub interval: u32,
    /// c: 0 leaves the momentum to every N-th arrival; 1/N spreads it evenly over all.
    pub c: f32,
    /// m, a flat vector.
    pub m: Vec<f32>,
    /// B: the arrivals since the momentum moved, together.
    pub buffer: Vec<f32>,
    /// How many those are.
    pub arrived: u32,
}

impl DelayedNesterov {
    /// At rest, for vectors of `len` values.
    pub fn new(rate: f32, momentum: f32, interval: u32, c: f32, len: usize) -> Self {
        let interval = interval.max(1);
        DelayedNesterov { rate, momentum, interval, c, m: vec![0.0; len], buffer: vec![0.0; len], arrived: 0 }
    }

    /// One arrival; `g` and `theta` are as long as `m`.
    pub fn arrive(&mut self, g: &[f32], theta: &mut [f32]) {
        self.arrive_at(self.rate, g, theta);
    }

    /// One arrival, with another learning rate.
    pub fn arrive_at(&mut self, rate: f32, g: &[f32], theta: &mut [f32]) {
        let (n, beta) = (self.interval as f32, self.momentum);
        let all = self.m.iter_mut().zip(&mut self.buffer).zip(g).zip(theta);
        self.arrived += 1;
        if self.arrived < self.interval {
            let share = self.c * beta;
            for (((m, sum), g), theta) in all {
                *sum += g;
                *theta -= rate * (share * *m + g / n);
            }
        } else {
            let share = (1.0 - self.c * n + self.c) * beta;
            for (((m, sum), g), theta) in all {
                *m = beta * *m + (*sum + g) / n;
                *sum = 0.0;
                *theta -= rate * (share * *m + g / n);
            }
            self.arrived = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::nesterov::Nesterov;
    use super::*;

    #[test]
    fn the_momentum_moves_at_every_second_arrival() {
        // η = 1, β = 0.5, N = 2, c = 0; g = 2, 4, 2, 4.
        let (mut outer, mut theta) = (DelayedNesterov::new(1.0, 0.5, 2, 0.0, 1), [0.0]);
        let mut after = vec![];
        for g in [2.0, 4.0, 2.0, 4.0] {
            outer.arrive(&[g], &mut theta);
            after.push((outer.m[0], theta[0]));
        }
        // 1: −2/2. 2: m = (2 + 4)/2 = 3, −(0.5·3 + 4/2). 3: −2/2. 4: m = 1.5 + 3 = 4.5, −(0.5·4.5 + 2).
        assert_eq!(after, [(0.0, -1.0), (3.0, -4.5), (3.0, -5.5), (4.5, -9.75)]);
    }

    #[test]
    fn c_spreads_the_momentum_over_the_arrivals() {
        // N = 2, c = 0.5: (1 − cN + c) = 0.5 = c, so every arrival applies half of β·m.
        let (mut outer, mut theta) = (DelayedNesterov::new(1.0, 0.5, 2, 0.5, 1), [0.0]);
        for g in [2.0, 4.0, 2.0] {
            outer.arrive(&[g], &mut theta);
        }
        // −1; m = 3, −(0.25·3 + 2) = −2.75; −(0.25·3 + 1) = −1.75.
        assert_eq!(theta, [-5.5]);
    }

    #[test]
    fn an_interval_of_one_is_nesterov() {
        let (mut delayed, mut plain) = (DelayedNesterov::new(0.7, 0.9, 1, 0.3, 3), Nesterov::new(0.9, 3));
        let (mut a, mut b) = ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]);
        for g in [[0.1, -0.2, 0.3], [0.4, 0.1, -0.3], [-0.2, 0.2, 0.5]] {
            delayed.arrive(&g, &mut a);
            plain.step(0.7, &g, &mut b);
        }
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
