//! The simulation's chance: each device and each purpose has a stream of its own, so that two runs that differ in one
//! setting share all other draws, and one more draw here moves none elsewhere.

use nightjar_shared::rng;

/// What is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// What a device is like: its speed, its link, and so on.
    Traits,
    /// Which effect does not happen any more.
    Kill,
    /// How long messages and starts take.
    Delay,
    /// Which connections break, and where in a transfer.
    Loss,
    /// When owners use their computers.
    Owner,
    /// When a device is switched on and off.
    Presence,
    /// Power cuts.
    Power,
    /// How fast each lease goes.
    Pace,
    /// Which deltas are lost, and what becomes of the device.
    Vanish,
    /// What liars send.
    Lie,
    /// When laptops are unplugged.
    Unplugged,
    /// When networks are paid for by the byte.
    Metered,
    /// When a window covers the screen.
    FullScreen,
}

const PURPOSES: usize = Purpose::FullScreen as usize + 1;

/// One device's draws, or the world's.
#[derive(Clone, Debug)]
pub struct Draws {
    seed: u64,
    who: u32,
    drawn: [u32; PURPOSES],
}

impl Draws {
    /// Of the world as a whole.
    pub fn of_world(seed: u64) -> Self {
        Draws { seed, who: 0, drawn: [0; PURPOSES] }
    }

    /// Of a device.
    pub fn of_device(seed: u64, number: u32) -> Self {
        Draws { seed, who: number + 1, drawn: [0; PURPOSES] }
    }

    fn next(&mut self, purpose: Purpose) -> (u64, u64) {
        let i = &mut self.drawn[purpose as usize];
        *i += 1;
        (rng::stream::SIM + u64::from(self.who) * 16 + purpose as u64, u64::from(*i))
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self, purpose: Purpose) -> f64 {
        let (stream, i) = self.next(purpose);
        rng::unit(self.seed, stream, i)
    }

    /// Any `u64`.
    pub fn bits(&mut self, purpose: Purpose) -> u64 {
        let (stream, i) = self.next(purpose);
        rng::draw(self.seed, stream, i)
    }

    /// Standard normal.
    pub fn normal(&mut self, purpose: Purpose) -> f64 {
        let (stream, i) = self.next(purpose);
        rng::normal(self.seed ^ 0x6e6f_726d, stream, i)
    }

    /// Exponential of this mean, cut at twenty times that.
    pub fn exponential(&mut self, purpose: Purpose, mean: f64) -> f64 {
        mean * (-libm::log(1.0 - self.unit(purpose))).min(20.0)
    }

    /// Whether what happens with this probability does happen.
    pub fn falls(&mut self, purpose: Purpose, probability: f64) -> bool {
        probability > 0.0 && self.unit(purpose) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_do_not_move_each_other() {
        let (mut a, mut b) = (Draws::of_device(1, 5), Draws::of_device(1, 5));
        for _ in 0..7 {
            b.unit(Purpose::Kill);
        }
        assert_eq!(a.unit(Purpose::Loss), b.unit(Purpose::Loss));
        assert_ne!(a.unit(Purpose::Loss), Draws::of_device(1, 6).unit(Purpose::Loss));
        assert_ne!(Draws::of_world(1).unit(Purpose::Loss), Draws::of_device(1, 0).unit(Purpose::Loss));
    }

    #[test]
    fn an_exponential_has_its_mean() {
        let mut draws = Draws::of_world(3);
        let mean = (0..20_000).map(|_| draws.exponential(Purpose::Presence, 5.0)).sum::<f64>() / 20_000.0;
        assert!((mean - 5.0).abs() < 0.15, "{mean}");
    }
}
