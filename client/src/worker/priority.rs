//! The lowest priority there is, for the processor and for the disk: training must never be felt.

/// Sets it for this thread and, where the system hands it on (Linux), for those that it will start, but for none
/// before: the thread that hears the end of the pipe must run at any load. A refusal is no reason not to train.
pub(super) fn lower() {
    #[cfg(unix)]
    let _ = rustix::process::nice(19);
    system::lower();
}

/// Makes this process the first that the kernel ends when memory is short.
pub(super) fn offer_memory() {
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

#[cfg(target_os = "linux")]
mod system {
    use libc::{SCHED_IDLE, SYS_ioprio_set, sched_param, sched_setscheduler, syscall};

    /// `ioprio_set(2)`: of a process or thread.
    const WHO_PROCESS: i32 = 1;
    /// Only when nobody else uses the disk: the idle class, in the bits above the level.
    const IDLE: i32 = 3 << 13;

    #[expect(unsafe_code, reason = "no safe crate at hand sets these two")]
    pub(super) fn lower() {
        let parameters = sched_param { sched_priority: 0 };
        // SAFETY: `parameters` lives as long as the call; 0 is the calling thread.
        unsafe { sched_setscheduler(0, SCHED_IDLE, &parameters) };
        // SAFETY: all three arguments are plain numbers; 0 is the calling thread.
        unsafe { syscall(SYS_ioprio_set, WHO_PROCESS, 0, IDLE) };
    }
}

/// Compiled, not run.
#[cfg(target_os = "macos")]
mod system {
    #![expect(unsafe_code, reason = "no safe crate at hand sets this")]

    const PRIO_DARWIN_PROCESS: i32 = 4;
    const PRIO_DARWIN_BG: i32 = 0x1000;

    unsafe extern "C" {
        fn setpriority(which: i32, who: u32, priority: i32) -> i32;
    }

    pub(super) fn lower() {
        // SAFETY: all three arguments are plain numbers; 0 is this process.
        unsafe { setpriority(PRIO_DARWIN_PROCESS, 0, PRIO_DARWIN_BG) };
    }
}

/// Compiled, not run. The idle class and not the "background mode", which
/// lowers the disk's priority as well but also trims a process's memory to a few megabytes.
#[cfg(windows)]
mod system {
    #![expect(unsafe_code, reason = "no safe crate at hand sets this")]

    const IDLE_PRIORITY_CLASS: u32 = 0x40;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetCurrentProcess() -> isize;
        fn SetPriorityClass(process: isize, class: u32) -> i32;
    }

    pub(super) fn lower() {
        // SAFETY: the first returns a constant that stands for this process and needs no closing.
        unsafe { SetPriorityClass(GetCurrentProcess(), IDLE_PRIORITY_CLASS) };
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
mod system {
    pub(super) fn lower() {}
}
