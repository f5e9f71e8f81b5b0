//! Sleep: the system calls back before it, and waits two seconds for that call to end.

use super::super::set_sleep;
use crate::sensor::{SleepDelay, readings::Readings};
use std::{
    ffi::c_void,
    ptr,
    sync::{Arc, mpsc},
    time::Duration,
};

/// `DEVICE_NOTIFY_CALLBACK`.
const BY_CALL: u32 = 2;
/// `PBT_APMSUSPEND`.
const IT_WILL: u32 = 4;
/// `PBT_APMRESUMEAUTOMATIC`: told after every sleep.
const AWAKE: u32 = 0x12;
/// A little less than the system waits.
const DELAY_MAX: Duration = Duration::from_millis(1800);

type Callback = unsafe extern "system" fn(*mut c_void, u32, *mut c_void) -> u32;

#[repr(C)]
struct Subscription {
    callback: Callback,
    context: *const c_void,
}

#[link(name = "powrprof")]
unsafe extern "system" {
    fn PowerRegisterSuspendResumeNotification(
        flags: u32,
        recipient: *const Subscription,
        handle: *mut *mut c_void,
    ) -> u32;
}

/// Listens for ever.
pub fn listen(readings: Arc<Readings>) {
    // Both are kept for as long as the process lives.
    let subscription = Box::leak(Box::new(Subscription { callback: heard, context: Arc::into_raw(readings).cast() }));
    let mut handle = ptr::null_mut();
    // SAFETY: the subscription is of the system's layout and never freed; the other pointer is to a place for one.
    let error = unsafe { PowerRegisterSuspendResumeNotification(BY_CALL, subscription, &mut handle) };
    if error != 0 {
        tracing::debug!("Windows does not tell of sleep (error {error})");
    }
}

/// # Safety
/// `context` is a [`Readings`] that lives.
unsafe extern "system" fn heard(context: *mut c_void, message: u32, _: *mut c_void) -> u32 {
    // SAFETY: the one that was registered, which is never freed.
    let readings = unsafe { &*context.cast::<Readings>() };
    match message {
        IT_WILL => {
            let (held, released) = mpsc::channel::<()>();
            set_sleep(readings, true, Some(SleepDelay { _inhibitor: Box::new(held) }));
            // Nothing is ever sent: it ends when the other side is dropped, or in time.
            let _ = released.recv_timeout(DELAY_MAX);
        }
        AWAKE => set_sleep(readings, false, None),
        _ => {}
    }
    0
}
