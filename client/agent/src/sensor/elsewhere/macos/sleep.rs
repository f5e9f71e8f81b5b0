//! Sleep: the system announces it to whoever listens on a thread of its own, and waits for each one's word, half a
//! minute at most.

use super::super::set_sleep;
use crate::sensor::{SleepDelay, readings::Readings};
use objc2_core_foundation::{CFRunLoop, CFRunLoopSource, kCFRunLoopCommonModes};
use std::{ffi::c_void, ptr, sync::Arc, thread};

/// `kIOMessageCanSystemSleep`: may it sleep for want of use?
const MAY_IT: u32 = 0xe000_0270;
/// `kIOMessageSystemWillSleep`.
const IT_WILL: u32 = 0xe000_0280;
/// `kIOMessageSystemHasPoweredOn`.
const AWAKE: u32 = 0xe000_0300;

type Callback = unsafe extern "C" fn(*mut c_void, u32, u32, *mut c_void);

#[link(name = "IOKit", kind = "framework")]
unsafe extern "C" {
    fn IORegisterForSystemPower(
        context: *mut c_void,
        port: *mut *mut c_void,
        callback: Callback,
        notifier: *mut u32,
    ) -> u32;
    fn IONotificationPortGetRunLoopSource(port: *mut c_void) -> *mut CFRunLoopSource;
    safe fn IOAllowPowerChange(kernel: u32, id: isize) -> i32;
}

/// Who listens, for as long as the process lives.
struct Listener {
    readings: Arc<Readings>,
    /// The connection to the system's root of power.
    kernel: u32,
}

/// Lets the system sleep when it is dropped.
struct Word {
    kernel: u32,
    id: isize,
}

impl Drop for Word {
    fn drop(&mut self) {
        IOAllowPowerChange(self.kernel, self.id);
    }
}

/// Listens for ever.
pub fn listen(readings: Arc<Readings>) {
    if let Err(e) = thread::Builder::new().name("sleep".into()).spawn(move || run(readings)) {
        tracing::warn!("no thread for sleep: {e}");
    }
}

fn run(readings: Arc<Readings>) {
    let listener = Box::into_raw(Box::new(Listener { readings, kernel: 0 }));
    let (mut port, mut notifier) = (ptr::null_mut(), 0);
    // SAFETY: the listener is never freed; the pointers are to places for what is made, which live through the call.
    // Nothing calls back before this thread runs its loop.
    let source = unsafe {
        (*listener).kernel = IORegisterForSystemPower(listener.cast(), &mut port, heard, &mut notifier);
        if (*listener).kernel == 0 || port.is_null() {
            tracing::debug!("macOS does not tell of sleep");
            return;
        }
        IONotificationPortGetRunLoopSource(port).as_ref()
    };
    let Some(here) = CFRunLoop::current() else { return };
    // SAFETY: a name that the system defines once and for all.
    here.add_source(source, unsafe { kCFRunLoopCommonModes });
    CFRunLoop::run();
}

/// # Safety
/// `context` is a [`Listener`] that lives.
unsafe extern "C" fn heard(context: *mut c_void, _: u32, message: u32, argument: *mut c_void) {
    // SAFETY: the one that was registered, which is never freed and which nobody changes any more.
    let listener = unsafe { &*context.cast::<Listener>() };
    let word = || Word { kernel: listener.kernel, id: argument as isize };
    match message {
        MAY_IT => drop(word()),
        IT_WILL => set_sleep(&listener.readings, true, Some(SleepDelay { _inhibitor: Box::new(word()) })),
        AWAKE => set_sleep(&listener.readings, false, None),
        _ => {}
    }
}
