//! The wall around system calls: seccomp. A list of what is denied, not of what is allowed: GPU drivers use ioctl, map
//! memory that is executable (they compile shaders), start threads, and differ from vendor to vendor and year to year.
//! What none of them needs for computing is on the list, and each line says what it would be good for.

use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};
use std::collections::BTreeMap;

/// Refused as "not permitted".
const DENIED: &[c_long] = &[
    // Speaking with anybody: the network, and other programs on this computer.
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_sendto,
    SYS_sendmsg,
    SYS_sendmmsg,
    SYS_mq_open,
    SYS_shmget,
    SYS_msgget,
    SYS_semget,
    // Becoming another program.
    SYS_execve,
    SYS_execveat,
    // Leaving the process group, which the agent freezes and ends as one.
    SYS_setsid,
    SYS_setpgid,
    // Looking into, or ending, other processes of the owner.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_kill,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    // Another view of the file system, which the wall around files would have to follow.
    SYS_mount,
    SYS_umount2,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_fanotify_init,
    SYS_quotactl,
    // Parts of the kernel that have been ways around walls before.
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_syslog,
    SYS_personality,
];

/// Refused as "not known", so that what could use it does without: it would carry out other calls unseen.
const UNKNOWN: &[c_long] = &[SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register];

/// The other numbers under which a 64-bit Intel kernel may know the same calls.
#[cfg(target_arch = "x86_64")]
mod x32 {
    use libc::c_long;

    /// Marks them.
    pub const BIT: c_long = 0x4000_0000;
    /// Calls that have numbers of their own there: execve, execveat, ptrace, sendmsg, sendmmsg, kexec_load, mq and signal
    /// queueing, and reading and writing other processes.
    pub const OWN: &[c_long] = &[520, 545, 521, 518, 538, 528, 524, 536, 539, 540];
}

/// Raises the wall around this thread and all that it will start. The error says what is missing, in a sentence.
pub(super) fn confine() -> Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("seccomp failed ({e}), so the worker may use all system calls");
    for (calls, code) in [(DENIED, EPERM), (UNKNOWN, ENOSYS)] {
        let filter = filter(calls, code).map_err(|e| failed(&e))?;
        apply_filter(&filter).map_err(|e| failed(&e))?;
    }
    Ok(())
}

fn filter(calls: &[c_long], code: c_int) -> Result<BpfProgram, seccompiler::BackendError> {
    // No condition: always.
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.iter().map(|call| (*call, vec![])).collect();
    #[cfg(target_arch = "x86_64")]
    {
        rules.extend(calls.iter().map(|call| (call | x32::BIT, vec![])));
        if code == EPERM {
            rules.extend(x32::OWN.iter().chain(&[SYS_tgkill]).map(|call| (call | x32::BIT, vec![])));
        }
    }
    if code == EPERM {
        // A program that aborts signals itself; nobody else is to be signalled.
        let own = u64::from(std::process::id());
        let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?;
        rules.insert(SYS_tgkill, vec![SeccompRule::new(vec![other])?]);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(code as u32), arch)?.try_into()
}
