//! A device whose deltas are refused again and again is not asked for more: each refusal beyond the first few costs it
//! twice as long without a lease. What is merged takes half of them back.

use super::{
    Engine,
    bounds::{REFUSALS_FREE, REFUSED_HOLD_S, REFUSED_HOLD_S_MAX},
};
use nightjar_shared::{
    ids::DeviceId,
    time::Mono,
    wire::{Refusal, RefusalCode, limits},
};
use std::time::Duration;

/// Why a delta is not merged, for figures: the sentence is the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its offer does not fit its lease.
    Offer,
    /// It was merged before, for another lease.
    Repeated,
    /// What was uploaded was not what its name says.
    Upload,
    /// It is no delta of this run.
    Undecodable,
    /// Too many versions were published since its base.
    Stale,
    /// Its norm or its largest value is more than its steps can lead to.
    Impossible,
    /// It is next to nothing.
    Nothing,
    /// Its norm is far from what others had.
    Far,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 8] = [
        Reason::Offer,
        Reason::Repeated,
        Reason::Upload,
        Reason::Undecodable,
        Reason::Stale,
        Reason::Impossible,
        Reason::Nothing,
        Reason::Far,
    ];

    /// The reason's word.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Offer => "offer",
            Reason::Repeated => "repeated",
            Reason::Upload => "upload",
            Reason::Undecodable => "undecodable",
            Reason::Stale => "stale",
            Reason::Impossible => "impossible",
            Reason::Nothing => "nothing",
            Reason::Far => "far",
        }
    }
}

/// How many deltas were not merged since this engine was built, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Reason::ALL.len()]);

impl Refusals {
    pub(super) fn count(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    /// For this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }
}

/// Refusals of a device's deltas.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    /// Since the last that was merged, and half of those before.
    pub in_a_row: u32,
    /// Until then it is given nothing to do.
    until: Mono,
    /// The last reason.
    why: String,
}

impl Refused {
    /// As the ledger tells them; how long the device was to wait is forgotten. What was only too stale is among them,
    /// so they cost nothing yet.
    pub fn remembered(in_a_row: u32) -> Self {
        Refused { in_a_row: in_a_row.min(REFUSALS_FREE), ..Refused::default() }
    }

    fn add(&mut self, why: &str, now: Mono) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let doublings = self.in_a_row.saturating_sub(REFUSALS_FREE + 1).min(30);
        let hold_s = (REFUSED_HOLD_S * f64::from(1u32 << doublings)).min(REFUSED_HOLD_S_MAX);
        if self.in_a_row > REFUSALS_FREE {
            self.until = now + Duration::from_secs_f64(hold_s);
        }
        self.why = limits::tame(why);
    }

    pub fn merged(&mut self) {
        self.in_a_row /= 2;
    }
}

impl Engine {
    /// A delta of the device was refused, for a reason that lies with it.
    pub(super) fn refused(&mut self, device: DeviceId, why: &str, now: Mono) {
        if let Some(device) = self.roster.get_mut(device) {
            device.refused.add(why, now);
        }
    }

    /// What a device is told that has to wait because of what was refused.
    pub(super) fn held_for_refusals(&self, device: DeviceId, now: Mono) -> Option<Refusal> {
        let Refused { in_a_row, until, why } = &self.roster.get(device)?.refused;
        let wait = until.since(now);
        if wait.is_zero() {
            return None;
        }
        let sentence = format!("The last {in_a_row} deltas of this device were refused. {why}");
        Some(self.retry(RefusalCode::BadDelta, &limits::tame(&sentence), wait, device, now))
    }
}
