//! macOS: last input and mains, each by one function of the system.
#![expect(unsafe_code, reason = "the system's functions are declared here: two of them need no crate of bindings")]

use crate::policy::{Power, Reading};
use std::time::Duration;

pub const NAME: &str = "macOS";

/// `kCGEventSourceStateHIDSystemState`: what the hardware did, whoever it was for.
const HARDWARE: i32 = 1;
/// `kCGAnyInputEventType`.
const ANY_INPUT: u32 = u32::MAX;
/// `kIOPSTimeRemainingUnlimited`: on mains.
const UNLIMITED: f64 = -2.0;

#[link(name = "ApplicationServices", kind = "framework")]
unsafe extern "C" {
    safe fn CGEventSourceSecondsSinceLastEventType(state: i32, event: u32) -> f64;
}

#[link(name = "IOKit", kind = "framework")]
unsafe extern "C" {
    safe fn IOPSGetTimeRemainingEstimate() -> f64;
}

pub fn idle() -> Reading<Duration> {
    match Duration::try_from_secs_f64(CGEventSourceSecondsSinceLastEventType(HARDWARE, ANY_INPUT)) {
        Ok(time) => Reading::Known(time),
        Err(_) => Reading::Unknown("macOS does not tell of input".into()),
    }
}

pub fn power() -> Reading<Power> {
    let on_mains = IOPSGetTimeRemainingEstimate() == UNLIMITED;
    Reading::Known(Power { on_mains, charge_percent: None })
}

pub fn full_screen() -> Reading<bool> {
    Reading::Unknown("this version cannot ask macOS for full-screen programs".into())
}

pub fn metered() -> Reading<bool> {
    Reading::Unknown("this version cannot ask macOS whether the network is metered".into())
}
