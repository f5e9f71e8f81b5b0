//! macOS: last input and mains, each by one function of the system; full screen from its list of windows; what the
//! network costs and sleep from what it tells by itself.
#![expect(unsafe_code, reason = "the system's functions are C's: some are declared here, some by crates of bindings")]

mod network;
mod sleep;

pub use network::metered;
pub use sleep::listen as listen_for_sleep;

use crate::policy::{Power, Reading};
use objc2_core_foundation::{CFArray, CFDictionary, CFNumber, CFRetained, CFString, CFType, CGRect, Type};
use objc2_core_graphics::{
    CGDisplayBounds, CGError, CGGetActiveDisplayList, CGRectMakeWithDictionaryRepresentation,
    CGWindowListCopyWindowInfo, CGWindowListOption, kCGWindowBounds, kCGWindowLayer,
};
use std::{
    ffi::c_void,
    ops::RangeInclusive,
    ptr::{self, NonNull},
    time::Duration,
};

pub const NAME: &str = "macOS";

/// `kCGEventSourceStateHIDSystemState`: what the hardware did, whoever it was for.
const HARDWARE: i32 = 1;
/// `kCGAnyInputEventType`.
const ANY_INPUT: u32 = u32::MAX;
/// `kIOPSTimeRemainingUnlimited`: on mains.
const UNLIMITED: f64 = -2.0;
/// More screens than a computer has.
const SCREENS_MAX: usize = 16;
/// The strip beside a camera in the screen's edge, which full-screen windows leave free, in points. It is as high as
/// the menu bar is there, so that a maximised window counts too; elsewhere the menu bar is lower.
const STRIP: RangeInclusive<f64> = 30.0..=40.0;

#[link(name = "ApplicationServices", kind = "framework")]
unsafe extern "C" {
    safe fn CGEventSourceSecondsSinceLastEventType(state: i32, event: u32) -> f64;
}

#[link(name = "IOKit", kind = "framework")]
unsafe extern "C" {
    safe fn IOPSGetTimeRemainingEstimate() -> f64;
    safe fn IOPSCopyPowerSourcesInfo() -> *mut CFType;
    fn IOPSCopyPowerSourcesList(info: *const CFType) -> *mut CFArray;
    fn IOPSGetPowerSourceDescription(info: *const CFType, source: *const c_void) -> *const CFDictionary;
    fn IOPMCopyAssertionsStatus(status: *mut *const CFDictionary) -> i32;
}

pub fn idle() -> Reading<Duration> {
    match Duration::try_from_secs_f64(CGEventSourceSecondsSinceLastEventType(HARDWARE, ANY_INPUT)) {
        Ok(time) => Reading::Known(time),
        Err(_) => Reading::Unknown("macOS does not tell of input".into()),
    }
}

pub fn power() -> Reading<Power> {
    let on_mains = IOPSGetTimeRemainingEstimate() == UNLIMITED;
    Reading::Known(Power { on_mains, charge_percent: charge() })
}

/// How full the first battery is, in percent.
fn charge() -> Option<f64> {
    let info = NonNull::new(IOPSCopyPowerSourcesInfo())?;
    // SAFETY: the functions' names say that what they give is the caller's to release; what the last one gives lives as
    // long as the information does.
    unsafe {
        let info: CFRetained<CFType> = CFRetained::from_raw(info);
        let sources: CFRetained<CFArray> = CFRetained::from_raw(NonNull::new(IOPSCopyPowerSourcesList(&*info))?);
        (0..sources.count()).find_map(|at| {
            let described = IOPSGetPowerSourceDescription(&*info, sources.value_at_index(at)).as_ref()?;
            let of = |name| number(described, &CFString::from_static_str(name));
            let (now, most) = (of("Current Capacity")?, of("Max Capacity").filter(|most| *most > 0)?);
            Some(100.0 * now as f64 / most as f64)
        })
    }
}

/// Whether a window covers a whole screen, or a program keeps the screen on, as films do.
pub fn full_screen() -> Reading<bool> {
    match (is_kept_on(), is_covered()) {
        (Some(true), _) | (_, Some(true)) => Reading::Known(true),
        (Some(false), Some(false)) => Reading::Known(false),
        (None, _) | (_, None) => Reading::Unknown("macOS does not tell of full-screen programs".into()),
    }
}

/// Whether a program keeps the screen from going dark.
fn is_kept_on() -> Option<bool> {
    let mut status = ptr::null();
    // SAFETY: the pointer is to a place for a pointer, which lives through the call.
    let error = unsafe { IOPMCopyAssertionsStatus(&mut status) };
    let status = NonNull::new(status.cast_mut()).filter(|_| error == 0)?;
    // SAFETY: the function's name says that what it gives is the caller's to release.
    let status: CFRetained<CFDictionary> = unsafe { CFRetained::from_raw(status) };
    let held = |name: &'static str| number(&status, &CFString::from_static_str(name)).is_some_and(|count| count > 0);
    Some(held("PreventUserIdleDisplaySleep") || held("NoDisplaySleepAssertion"))
}

/// Whether an ordinary window is as large as a screen.
fn is_covered() -> Option<bool> {
    let screens = screens()?;
    let windows: CFRetained<CFArray> = CGWindowListCopyWindowInfo(
        CGWindowListOption::OptionOnScreenOnly | CGWindowListOption::ExcludeDesktopElements,
        0,
    )?;
    let all = (0..windows.count()).filter_map(|at| {
        // SAFETY: the place is within the array, whose items are dictionaries that live as long as it does.
        unsafe { windows.value_at_index(at).cast::<CFDictionary>().as_ref() }
    });
    // SAFETY: names that the system defines once and for all.
    let (layer, bounds) = unsafe { (kCGWindowLayer, kCGWindowBounds) };
    // Menus, the dock and what floats lie in other layers.
    let frames = all.filter(|window| number(window, layer) == Some(0)).filter_map(|window| {
        let mut frame = CGRect::default();
        // SAFETY: the value of this key is a dictionary of a rectangle's numbers; the pointer is to a rectangle.
        let known = unsafe {
            let described = value(window, bounds).cast::<CFDictionary>().as_ref()?;
            CGRectMakeWithDictionaryRepresentation(Some(described), &mut frame)
        };
        known.then_some(frame)
    });
    let covers = |frame: &CGRect, screen: &CGRect| {
        let below = frame.origin.y - screen.origin.y;
        frame.origin.x <= screen.origin.x
            && frame.size.width >= screen.size.width
            && (below <= 0.0 || STRIP.contains(&below))
            && below + frame.size.height >= screen.size.height
    };
    Some(frames.into_iter().any(|frame| screens.iter().any(|screen| covers(&frame, screen))))
}

fn screens() -> Option<Vec<CGRect>> {
    let (mut ids, mut count) = ([0; SCREENS_MAX], 0);
    // SAFETY: the pointers are to as many numbers as the first argument says, and to one.
    let error = unsafe { CGGetActiveDisplayList(SCREENS_MAX as u32, ids.as_mut_ptr(), &mut count) };
    (error == CGError::Success).then(|| ids.into_iter().take(count as usize).map(|id| CGDisplayBounds(id)).collect())
}

fn value(of: &CFDictionary, key: &CFString) -> *const c_void {
    // SAFETY: the key is an object, as this dictionary's keys are.
    unsafe { of.value(ptr::from_ref(key).cast()) }
}

fn number(of: &CFDictionary, key: &CFString) -> Option<i64> {
    // SAFETY: what lies under these keys are numbers, which live as long as the dictionary does.
    let number = unsafe { value(of, key).cast::<CFNumber>().as_ref() }?;
    number.retain().as_i64()
}
