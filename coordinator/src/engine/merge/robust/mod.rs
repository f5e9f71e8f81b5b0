//! Robust averaging: what a delta counts, given the others of its version. Most of them are taken to be honest; which of
//! them are, nobody knows.
//!
//! Deltas wait, encoded as they came, until a company of them is there or the version is due, and are judged together:
//! memory stays bounded, however many make a version. What was judged earlier in the same version speaks, too.

pub mod clip;
pub mod direction;
pub mod sketch;

use nightjar_shared::run_spec::Robust;

/// So many deltas are judged together.
pub const COMPANY: usize = 16;
/// Of fewer deltas nobody can tell which the odd one is: all count as they are.
pub const FEWEST: usize = 4;

/// Deltas that wait to be judged, at most, in memory.
pub fn held_max(robust: Robust) -> u64 {
    if robust == Robust::None { 0 } else { COMPANY as u64 }
}

/// The middle one; of two, the smaller. `None` of none.
pub(super) fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    let at = sorted.len().checked_sub(1)? / 2;
    Some(*sorted.select_nth_unstable_by(at, f64::total_cmp).1)
}
