//! The wall around system calls: seccomp. A list of what is denied, not of what is allowed: GPU drivers use ioctl, map
//! memory that is executable (they compile shaders), start threads, and differ from vendor to vendor and year to year.
//! What none of them needs for computing is on the list, and each line says what it would be good for.

use super::Gap;
use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use std::collections::BTreeMap;

/// Refused as "not permitted".
const DENIED: &[c_long] = &[
    // Speaking with anybody: the network, and other programs on this computer. What is left of sockets, see `filter`,
    // cannot.
    SYS_socketpair,
    SYS_connect,
    SYS_accept,
    SYS_accept4,
    SYS_sendto,
    SYS_sendmsg,
    SYS_sendmmsg,
    SYS_mq_open,
    SYS_shmget,
    SYS_shmat,
    SYS_shmdt,
    SYS_shmctl,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_semctl,
    // What the wall around files does not see: the rights, owners and marks of files that it keeps closed, and who uses
    // them.
    SYS_fchmodat,
    SYS_fchmodat2,
    SYS_fchownat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_SETXATTRAT,
    SYS_REMOVEXATTRAT,
    SYS_inotify_add_watch,
    SYS_fanotify_mark,
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    SYS_chown,
    #[cfg(target_arch = "x86_64")]
    SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    SYS_utime,
    #[cfg(target_arch = "x86_64")]
    SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    SYS_futimesat,
    // Second names for files, and what is no file: whoever reads the worker's folder would be led elsewhere, or kept
    // waiting.
    SYS_linkat,
    SYS_symlinkat,
    SYS_mknodat,
    #[cfg(target_arch = "x86_64")]
    SYS_link,
    #[cfg(target_arch = "x86_64")]
    SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    SYS_mknod,
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

/// Refused as "not known", so that what could use it does without: rings would carry out other calls unseen, and the
/// newer
/// `clone` has its flags where no filter sees them.
const UNKNOWN: &[c_long] = &[SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_clone3];

/// Newer than the crate's list; the same on all architectures.
const SYS_SETXATTRAT: c_long = 463;
const SYS_REMOVEXATTRAT: c_long = 466;

/// Refused where this argument names a process that is neither 0, which is the caller, nor the worker: its limits, its
/// share of the computer.
const OF_ITSELF: &[(c_long, u8)] = &[
    (SYS_prlimit64, 0),
    (SYS_setpriority, 1),
    (SYS_ioprio_set, 1),
    (SYS_sched_setscheduler, 0),
    (SYS_sched_setparam, 0),
    (SYS_sched_setattr, 0),
    (SYS_sched_setaffinity, 0),
];

/// Whose: of `setpriority`, and of `ioprio_set`.
const PRIO_PROCESS: u64 = 0;
const IOPRIO_WHO_PROCESS: u64 = 1;

/// Kinds of sockets, in the low bits of `socket`'s second argument: all but `SOCK_SEQPACKET`. The last is
/// `SOCK_PACKET`, by a name that is going out of use.
const SOCKET_KINDS: &[c_int] = &[0, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_DCCP, 10];
const SOCKET_KIND: u64 = 0xf;

/// Flags of `clone` that make a new world rather than a thread.
const NEW_WORLDS: &[c_int] =
    &[CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET];

/// The other numbers under which a 64-bit Intel kernel may know the same calls.
#[cfg(target_arch = "x86_64")]
mod x32 {
    use libc::c_long;

    /// Marks them.
    pub const BIT: c_long = 0x4000_0000;
    /// Calls that have numbers of their own there: execve, execveat, ptrace, sendmsg, sendmmsg, kexec_load, mq and
    /// signal queueing, and reading and writing other processes.
    pub const OWN: &[c_long] = &[520, 545, 521, 518, 538, 528, 524, 536, 539, 540];
}

/// Raises the wall around this thread and all that it will start.
pub(super) fn confine() -> Result<(), Gap> {
    for (calls, code) in [(DENIED, EPERM), (UNKNOWN, ENOSYS)] {
        apply_filter(&filter(calls, code)?)?;
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
            let judged =
                OF_ITSELF.iter().map(|(call, _)| *call).chain([SYS_socket, SYS_tgkill, SYS_clone, SYS_utimensat]);
            rules.extend(x32::OWN.iter().copied().chain(judged).map(|call| (call | x32::BIT, vec![])));
        }
    }
    if code == EPERM {
        let own = u64::from(std::process::id());
        let is_not =
            |argument, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value);
        // NVIDIA's runtime gives up where it cannot put up a socket by which children of its process would find it. It
        // may have one of a kind by which nothing passes as long as nobody connects or is let in.
        let is_kind = |kind: &c_int| {
            let kind =
                SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(SOCKET_KIND), *kind as u64)?;
            SeccompRule::new(vec![kind])
        };
        let mut sockets = SOCKET_KINDS.iter().map(is_kind).collect::<Result<Vec<_>, _>>()?;
        sockets.push(SeccompRule::new(vec![is_not(0, AF_UNIX as u64)?])?);
        rules.insert(SYS_socket, sockets);
        // A program that aborts signals itself; nobody else is to be signalled.
        rules.insert(SYS_tgkill, vec![SeccompRule::new(vec![is_not(0, own)?])?]);
        for (call, argument) in OF_ITSELF {
            rules.insert(*call, vec![SeccompRule::new(vec![is_not(*argument, own)?, is_not(*argument, 0)?])?]);
        }
        // What is set for a group or a user at once is set for others too.
        for (call, process) in [(SYS_setpriority, PRIO_PROCESS), (SYS_ioprio_set, IOPRIO_WHO_PROCESS)] {
            rules.entry(call).or_default().push(SeccompRule::new(vec![is_not(0, process)?])?);
        }
        let world = |flag: &c_int| {
            let flag = *flag as u32 as u64;
            let has = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
            SeccompRule::new(vec![has])
        };
        rules.insert(SYS_clone, NEW_WORLDS.iter().map(world).collect::<Result<_, _>>()?);
        // By a path; of a file that is open it may set the times.
        let by_path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
        rules.insert(SYS_utimensat, vec![SeccompRule::new(vec![by_path])?]);
    }
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(code as u32), arch)?.try_into()
}
