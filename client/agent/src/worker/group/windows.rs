//! Windows: a process is stopped and continued by two functions of its kernel's library, which debuggers have used ever since.
#![expect(unsafe_code, reason = "the system's functions are declared here: no crate that is used elsewhere has them")]

use super::Act;
use std::ffi::c_void;

const PROCESS_TERMINATE: u32 = 0x0001;
const PROCESS_SUSPEND_RESUME: u32 = 0x0800;

#[link(name = "kernel32")]
unsafe extern "system" {
    fn OpenProcess(access: u32, inherit: i32, process: u32) -> *mut c_void;
    fn TerminateProcess(process: *mut c_void, code: u32) -> i32;
    fn CloseHandle(handle: *mut c_void) -> i32;
}

#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtSuspendProcess(process: *mut c_void) -> i32;
    fn NtResumeProcess(process: *mut c_void) -> i32;
}

/// Does this to a process. It fails only if the process is gone, which is fine for all three.
pub fn act(process: u32, act: Act) {
    // SAFETY: no pointer goes in; the handle that comes out is null or this function's own, used here and closed once.
    unsafe {
        let handle = OpenProcess(PROCESS_TERMINATE | PROCESS_SUSPEND_RESUME, 0, process);
        if handle.is_null() {
            return;
        }
        match act {
            Act::Stop => NtSuspendProcess(handle),
            Act::Continue => NtResumeProcess(handle),
            Act::Kill => TerminateProcess(handle, 1),
        };
        CloseHandle(handle);
    }
}
