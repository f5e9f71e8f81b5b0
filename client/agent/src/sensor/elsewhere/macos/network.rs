//! What the network costs: the system's monitor tells of the path that data takes, first within milliseconds, then
//! whenever it changes.

use crate::policy::Reading;
use block2::{DynBlock, RcBlock};
use std::{
    ffi::c_void,
    sync::{
        Once,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

/// `nw_path_status_unsatisfied`: no network, so nothing to pay for.
const UNSATISFIED: i32 = 2;
/// The first answer is waited for so long, once.
const FIRST_MAX: Duration = Duration::from_millis(100);

const UNTOLD: u8 = 0;
const FREE: u8 = 1;
const METERED: u8 = 2;
static PATH: AtomicU8 = AtomicU8::new(UNTOLD);

#[link(name = "Network", kind = "framework")]
unsafe extern "C" {
    safe fn nw_path_monitor_create() -> *mut c_void;
    fn nw_path_monitor_set_queue(monitor: *mut c_void, queue: *mut c_void);
    fn nw_path_monitor_set_update_handler(monitor: *mut c_void, handler: &DynBlock<dyn Fn(*mut c_void)>);
    fn nw_path_monitor_start(monitor: *mut c_void);
    fn nw_path_get_status(path: *mut c_void) -> i32;
    fn nw_path_is_expensive(path: *mut c_void) -> bool;
    fn nw_path_is_constrained(path: *mut c_void) -> bool;
}

unsafe extern "C" {
    safe fn dispatch_get_global_queue(identifier: isize, flags: usize) -> *mut c_void;
}

/// Whether data costs its owner something: a phone's hotspot, or a network in "low data mode".
pub fn metered() -> Reading<bool> {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        start();
        let mut waited = Duration::ZERO;
        while PATH.load(Ordering::Relaxed) == UNTOLD && waited < FIRST_MAX {
            thread::sleep(Duration::from_millis(5));
            waited += Duration::from_millis(5);
        }
    });
    match PATH.load(Ordering::Relaxed) {
        UNTOLD => Reading::Unknown("macOS does not tell what the network costs".into()),
        path => Reading::Known(path == METERED),
    }
}

fn start() {
    let told = RcBlock::new(|path: *mut c_void| {
        // SAFETY: the system hands over a path that lives through the call.
        let costs = unsafe {
            nw_path_get_status(path) != UNSATISFIED && (nw_path_is_expensive(path) || nw_path_is_constrained(path))
        };
        PATH.store(if costs { METERED } else { FREE }, Ordering::Relaxed);
    });
    let (monitor, queue) = (nw_path_monitor_create(), dispatch_get_global_queue(0, 0));
    if monitor.is_null() {
        return;
    }
    // SAFETY: a monitor that was just made, a queue that lives for ever, a block that the monitor copies. It is never
    // cancelled: it ends with the process.
    unsafe {
        nw_path_monitor_set_queue(monitor, queue);
        nw_path_monitor_set_update_handler(monitor, &told);
        nw_path_monitor_start(monitor);
    }
}
