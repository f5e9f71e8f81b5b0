//! Windows: a process is stopped and continued by two functions of its kernel's library, which debuggers have used ever
//! since; and it ends with the agent, however that ends, by a job that both are in.
#![expect(unsafe_code, reason = "functions of the system")]

use super::Act;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use windows::{
    Win32::{
        Foundation::HANDLE,
        System::{
            JobObjects::{
                AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
                JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
            },
            Threading::{OpenProcess, PROCESS_SET_QUOTA, PROCESS_SUSPEND_RESUME, PROCESS_TERMINATE, TerminateProcess},
        },
    },
    core::PCWSTR,
};

#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtSuspendProcess(process: *mut std::ffi::c_void) -> i32;
    fn NtResumeProcess(process: *mut std::ffi::c_void) -> i32;
}

fn owned(handle: HANDLE) -> OwnedHandle {
    // SAFETY: whoever calls this was given the handle by the system just now, and keeps no other.
    unsafe { OwnedHandle::from_raw_handle(handle.0) }
}

/// Does this to a process. It fails only if the process is gone, which is fine for all three.
pub fn act(process: u32, act: Act) {
    // SAFETY: no pointer goes in.
    let Ok(handle) = (unsafe { OpenProcess(PROCESS_TERMINATE | PROCESS_SUSPEND_RESUME, false, process) }) else {
        return;
    };
    let handle = owned(handle);
    // SAFETY: the handle is open until the end of this function.
    unsafe {
        match act {
            Act::Stop => drop(NtSuspendProcess(handle.as_raw_handle())),
            Act::Continue => drop(NtResumeProcess(handle.as_raw_handle())),
            Act::Kill => drop(TerminateProcess(HANDLE(handle.as_raw_handle()), 1)),
        }
    }
}

/// What ends a process when the last handle to it is closed: this one, at the latest by the system when the agent ends.
pub struct Tie {
    _job: OwnedHandle,
}

/// Ties a process to this one.
pub fn tie(process: u32) -> windows::core::Result<Tie> {
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    let size = size_of_val(&limits) as u32;
    // SAFETY: the pointer is to a structure of the size that is named, which lives through the call; handles are closed
    // by who owns them, and not before.
    unsafe {
        let job = owned(CreateJobObjectW(None, PCWSTR::null())?);
        let raw = HANDLE(job.as_raw_handle());
        SetInformationJobObject(raw, JobObjectExtendedLimitInformation, (&raw const limits).cast(), size)?;
        let handle = owned(OpenProcess(PROCESS_SET_QUOTA | PROCESS_TERMINATE, false, process)?);
        AssignProcessToJobObject(raw, HANDLE(handle.as_raw_handle()))?;
        Ok(Tie { _job: job })
    }
}
