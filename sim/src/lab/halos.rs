//! HALoS' two tiers (Kim et al., arXiv 2506.04531): devices report to a server of their region, regions to a global
//! one, and both tiers step by Delayed Nesterov.

use nightjar_coordinator::engine::merge::delayed_nesterov::DelayedNesterov;

/// Arrivals after which a region reports.
const REPORT_EVERY: u32 = 32;
/// What a region keeps of its own weights when the global ones come back.
const KEEP: f32 = 0.75;

/// The server of a region: Delayed Nesterov with rate 0.2, β = 0.9, N = 16.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    outer: DelayedNesterov,
    theta: Vec<f32>,
    /// The weights that the next report is counted from.
    reference: Vec<f32>,
    arrived: u32,
}

/// The server above the regions: Delayed Nesterov with rate 0.15, β = 0.5, N = 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    outer: DelayedNesterov,
    theta: Vec<f32>,
}

impl Region {
    /// From the run's first weights.
    pub fn new(theta: Vec<f32>) -> Self {
        let outer = DelayedNesterov::new(0.2, 0.9, 16, 0.0, theta.len());
        Region { outer, reference: theta.clone(), theta, arrived: 0 }
    }

    /// What the region's devices start from.
    pub fn weights(&self) -> &[f32] {
        &self.theta
    }

    /// A device's pseudo-gradient. At every 32nd the region's own is returned, for [`Global::arrive`].
    pub fn arrive(&mut self, g: &[f32]) -> Option<Vec<f32>> {
        self.outer.arrive(g, &mut self.theta);
        self.arrived += 1;
        if self.arrived < REPORT_EVERY {
            return None;
        }
        self.arrived = 0;
        let report = self.reference.iter().zip(&self.theta).map(|(from, to)| from - to).collect();
        self.reference.clone_from(&self.theta);
        Some(report)
    }

    /// The global weights come back: θ ← 0.75·θ + 0.25·θ_global. The reference moves along, so that the region reports
    /// only what its own devices did.
    pub fn mix(&mut self, global: &[f32]) {
        for ((theta, reference), global) in self.theta.iter_mut().zip(&mut self.reference).zip(global) {
            let moved = (1.0 - KEEP) * (global - *theta);
            *theta += moved;
            *reference += moved;
        }
    }
}

impl Global {
    /// From the run's first weights.
    pub fn new(theta: Vec<f32>) -> Self {
        Global { outer: DelayedNesterov::new(0.15, 0.5, 2, 0.0, theta.len()), theta }
    }

    /// The newest weights, for [`Region::mix`].
    pub fn weights(&self) -> &[f32] {
        &self.theta
    }

    /// A region's report.
    pub fn arrive(&mut self, report: &[f32]) {
        self.outer.arrive(report, &mut self.theta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_reports_what_its_devices_did_and_mixes_what_comes_back() {
        let (mut region, mut global) = (Region::new(vec![10.0]), Global::new(vec![10.0]));
        let reports: Vec<_> = (0..32).filter_map(|_| region.arrive(&[1.0])).collect();
        // 32 arrivals of 1/16 · 0.2 = 0.4; momentum 1 and 1.9, each times 0.9 · 0.2: 0.522 more.
        let moved = 0.4 + 0.18 * (1.0 + 1.9);
        assert_eq!(reports.len(), 1);
        assert!((reports[0][0] - moved).abs() < 1e-5, "{reports:?}");
        global.arrive(&reports[0]);
        // The first of two: 0.15 · moved / 2, and no momentum yet.
        assert!((global.weights()[0] - (10.0 - 0.075 * moved)).abs() < 1e-5);
        region.mix(global.weights());
        let mixed = 0.75 * (10.0 - moved) + 0.25 * global.weights()[0];
        assert!((region.weights()[0] - mixed).abs() < 1e-5);
        // Nothing done since: nothing to report but what the momentum still does.
        let report = (0..32).find_map(|_| region.arrive(&[0.0])).unwrap();
        let momentum = 0.18 * (0.9 * 1.9 + 0.81 * 1.9);
        assert!((report[0] - momentum).abs() < 1e-5, "{report:?} {momentum}");
    }
}
