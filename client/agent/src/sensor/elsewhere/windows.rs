//! Windows: last input, mains and battery, full screen, each by one function of the system; what the network costs, and
//! sleep as it is announced.
#![expect(unsafe_code, reason = "the system's functions are declared here: three of them need no crate of bindings")]

mod sleep;

pub use sleep::listen as listen_for_sleep;

use crate::policy::{Power, Reading};
use std::time::Duration;
use windows::Networking::Connectivity::{NetworkCostType, NetworkInformation};

pub const NAME: &str = "Windows";

#[repr(C)]
struct LastInputInfo {
    size: u32,
    time: u32,
}

#[repr(C)]
#[derive(Default)]
struct SystemPowerStatus {
    ac_line_status: u8,
    battery_flag: u8,
    battery_life_percent: u8,
    system_status_flag: u8,
    battery_life_time: u32,
    battery_full_life_time: u32,
}

#[link(name = "user32")]
unsafe extern "system" {
    fn GetLastInputInfo(info: *mut LastInputInfo) -> i32;
}

#[link(name = "kernel32")]
unsafe extern "system" {
    safe fn GetTickCount() -> u32;
    fn GetSystemPowerStatus(status: *mut SystemPowerStatus) -> i32;
}

#[link(name = "shell32")]
unsafe extern "system" {
    fn SHQueryUserNotificationState(state: *mut i32) -> i32;
}

pub fn idle() -> Reading<Duration> {
    let mut info = LastInputInfo { size: size_of::<LastInputInfo>() as u32, time: 0 };
    // SAFETY: the pointer is to a structure of the size that it names, which lives through the call.
    if unsafe { GetLastInputInfo(&mut info) } == 0 {
        return Reading::Unknown("Windows does not tell of input, as for a service without a desktop".into());
    }
    // Both count milliseconds, and begin anew after 49 days.
    Reading::Known(Duration::from_millis(GetTickCount().wrapping_sub(info.time).into()))
}

pub fn power() -> Reading<Power> {
    let mut status = SystemPowerStatus::default();
    // SAFETY: the pointer is to a structure of the system's layout, which lives through the call.
    if unsafe { GetSystemPowerStatus(&mut status) } == 0 {
        return Reading::Unknown("Windows does not tell of its power".into());
    }
    let has_battery = status.battery_flag & 128 == 0;
    let charge = (has_battery && status.battery_life_percent <= 100).then_some(f64::from(status.battery_life_percent));
    match status.ac_line_status {
        0 => Reading::Known(Power { on_mains: false, charge_percent: charge }),
        1 => Reading::Known(Power { on_mains: true, charge_percent: charge }),
        _ => Reading::Unknown("Windows does not know where its power comes from".into()),
    }
}

pub fn full_screen() -> Reading<bool> {
    let mut state = 0;
    // SAFETY: the pointer is to a number that lives through the call.
    if unsafe { SHQueryUserNotificationState(&mut state) } < 0 {
        return Reading::Unknown("Windows does not tell of full-screen programs".into());
    }
    // A full-screen program, a full-screen game, a presentation.
    Reading::Known(matches!(state, 2..=4))
}

pub fn metered() -> Reading<bool> {
    let unknown =
        |e: windows::core::Error| Reading::Unknown(format!("Windows does not tell what the network costs ({e})"));
    let profile = match NetworkInformation::GetInternetConnectionProfile() {
        Ok(profile) => profile,
        // No connection, no profile: nothing to pay for.
        Err(none) if none.code().is_ok() => return Reading::Known(false),
        Err(e) => return unknown(e),
    };
    match profile.GetConnectionCost().and_then(|cost| cost.NetworkCostType()) {
        Ok(NetworkCostType::Unrestricted) => Reading::Known(false),
        Ok(NetworkCostType::Fixed | NetworkCostType::Variable) => Reading::Known(true),
        Ok(_) => Reading::Unknown("Windows does not know what the network costs".into()),
        Err(e) => unknown(e),
    }
}
