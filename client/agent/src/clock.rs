//! The agent's two clocks. The monotonic one counts on while the computer sleeps, since a lease's deadline does too.

use nightjar_shared::time::{Mono, Wall};
use std::time::{Duration, SystemTime};

/// The system's clock that counts through sleep; `Instant` stops there.
#[cfg(target_os = "linux")]
const THROUGH_SLEEP: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(target_os = "macos")]
const THROUGH_SLEEP: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// Now, since an origin that this process knows.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub fn mono_now() -> Mono {
    let t = rustix::time::clock_gettime(THROUGH_SLEEP);
    Mono::from_origin(Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32))
}

/// Now, since an origin that this process knows. `Instant` counts through sleep on Windows.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub fn mono_now() -> Mono {
    use std::{sync::OnceLock, time::Instant};
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    Mono::from_origin(ORIGIN.get_or_init(Instant::now).elapsed() + Duration::from_secs(1))
}

/// What the calendar's clock says, which somebody may set.
pub fn wall_now() -> Wall {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall { unix_ms: since_epoch.as_millis() as u64 }
}
