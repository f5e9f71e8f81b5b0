//! The outer step: which of the rules a run has, and its state.

use super::{delayed_nesterov::DelayedNesterov, nesterov::Nesterov};
use nightjar_shared::run_spec::{MergeRule, MergeSpec};

/// A rule with its state.
#[derive(Clone, Debug, PartialEq)]
pub enum Outer {
    /// θ ← θ − η·Δ: the mean of the buffer (FedBuff, arXiv 2106.06639).
    Mean,
    /// With momentum at every version.
    Nesterov(Nesterov),
    /// With momentum that moves at every N-th version.
    DelayedNesterov(DelayedNesterov),
}

impl Outer {
    /// The run's rule at rest, for a model of so many parameters.
    pub fn new(spec: &MergeSpec, parameters: usize) -> Self {
        match spec.rule {
            // Without momentum it is the mean, and needs no vector.
            MergeRule::Nesterov { momentum } if momentum as f32 > 0.0 => {
                Outer::Nesterov(Nesterov::new(momentum as f32, parameters))
            }
            MergeRule::Mean | MergeRule::Nesterov { .. } => Outer::Mean,
            MergeRule::DelayedNesterov { momentum, interval, c } => {
                let rate = spec.learning_rate as f32;
                Outer::DelayedNesterov(DelayedNesterov::new(rate, momentum as f32, interval, c as f32, parameters))
            }
        }
    }

    /// Adds the step to `change`, given the averaged pseudo-gradient `g`.
    pub fn step(&mut self, rate: f32, g: &[f32], change: &mut [f32]) {
        match self {
            Outer::Mean => change.iter_mut().zip(g).for_each(|(change, g)| *change -= rate * g),
            Outer::Nesterov(rule) => rule.step(rate, g, change),
            Outer::DelayedNesterov(rule) => rule.arrive_at(rate, g, change),
        }
    }

    /// The momentum, where the rule has one.
    pub fn momentum(&self) -> Option<&[f32]> {
        match self {
            Outer::Mean => None,
            Outer::Nesterov(rule) => Some(&rule.m),
            Outer::DelayedNesterov(rule) => Some(&rule.m),
        }
    }

    /// All vectors of its state, for a checkpoint.
    pub(super) fn vectors(&self) -> Vec<&[f32]> {
        match self {
            Outer::Mean => vec![],
            Outer::Nesterov(rule) => vec![&rule.m],
            Outer::DelayedNesterov(rule) => vec![&rule.m, &rule.buffer],
        }
    }

    pub(super) fn vectors_mut(&mut self) -> Vec<&mut [f32]> {
        match self {
            Outer::Mean => vec![],
            Outer::Nesterov(rule) => vec![&mut rule.m],
            Outer::DelayedNesterov(rule) => vec![&mut rule.m, &mut rule.buffer],
        }
    }

    /// Arrivals since a delayed momentum moved.
    pub(super) fn arrived(&self) -> u32 {
        if let Outer::DelayedNesterov(rule) = self { rule.arrived } else { 0 }
    }

    /// Goes on from so many arrivals; `false` if the rule is never where those are.
    pub(super) fn set_arrived(&mut self, arrived: u64) -> bool {
        match (self, u32::try_from(arrived)) {
            (Outer::DelayedNesterov(rule), Ok(arrived)) if arrived < rule.interval => {
                rule.arrived = arrived;
                true
            }
            (Outer::Mean | Outer::Nesterov(_), Ok(0)) => true,
            _ => false,
        }
    }
}
