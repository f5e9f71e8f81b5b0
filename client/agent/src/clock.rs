//! The agent's monotonic clock: it counts on while the computer sleeps, since a lease's deadline does too.

use nightjar_shared::time::Mono;
use std::time::Duration;

/// Now, since an origin that this process knows.
#[cfg(target_os = "linux")]
pub fn mono_now() -> Mono {
    // `Instant` is CLOCK_MONOTONIC on Linux, which stops in suspend.
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Mono::from_origin(Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32))
}

/// Now, since an origin that this process knows. `Instant` counts through sleep on Windows; on macOS it does not yet.
#[cfg(not(target_os = "linux"))]
pub fn mono_now() -> Mono {
    use std::{sync::OnceLock, time::Instant};
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    Mono::from_origin(ORIGIN.get_or_init(Instant::now).elapsed() + Duration::from_secs(1))
}
