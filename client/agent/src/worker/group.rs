//! A process and all that it may have started, as one: its process group, which is stopped, continued and killed
//! together. Windows has no such groups; there it is the process alone, and a worker starts no other.

#[cfg(windows)]
mod windows;

use std::sync::atomic::{AtomicU32, Ordering};

/// A child's process group, by the child's number. Once the child has been waited for its number may be another's, so
/// whoever waits says so first.
pub(super) struct Group {
    /// 0 once it is gone.
    leader: AtomicU32,
    /// Ends it with this process, which Linux does for the worker by itself.
    #[cfg(windows)]
    _tie: Option<windows::Tie>,
}

/// What is done to a group.
#[derive(Clone, Copy)]
pub(super) enum Act {
    /// No thread of it runs from here on.
    Stop,
    /// They run again.
    Continue,
    /// It ends.
    Kill,
}

impl Group {
    /// The group that the child `leader` was started as the first of.
    pub fn of(leader: u32) -> Self {
        #[cfg(windows)]
        let _tie = windows::tie(leader).inspect_err(|e| tracing::warn!("the worker may outlive the agent: {e}")).ok();
        Group {
            leader: AtomicU32::new(leader),
            #[cfg(windows)]
            _tie,
        }
    }

    /// Its number, while it is there.
    pub fn leader(&self) -> Option<u32> {
        Some(self.leader.load(Ordering::Acquire)).filter(|leader| *leader != 0)
    }

    /// Says that the child will be waited for, so that its number means nothing from here on.
    pub fn gone(&self) {
        self.leader.store(0, Ordering::Release);
    }

    /// Does this to all of it; nothing if it is gone.
    #[cfg(unix)]
    pub fn act(&self, act: Act) {
        use rustix::process::{Pid, Signal, kill_process_group};
        let signal = match act {
            Act::Stop => Signal::STOP,
            Act::Continue => Signal::CONT,
            Act::Kill => Signal::KILL,
        };
        if let Some(leader) = self.leader().and_then(|leader| Pid::from_raw(leader as i32)) {
            // Fails only if nothing of it is left, which is fine for all three.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Does this to it; nothing if it is gone.
    #[cfg(windows)]
    pub fn act(&self, act: Act) {
        self.leader().into_iter().for_each(|leader| windows::act(leader, act));
    }
}
