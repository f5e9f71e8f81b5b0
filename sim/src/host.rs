//! This computer's own time and memory, for the report of what a simulation cost. Nothing simulated depends on it.

use std::time::Instant;

/// CPU seconds that this thread has used.
pub fn thread_cpu_s() -> f64 {
    #[cfg(target_os = "linux")]
    {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
    }
    #[cfg(not(target_os = "linux"))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64()
    }
}

/// Bytes of memory that this process holds; 0 where the system does not tell.
pub fn memory_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse::<u64>().ok());
    4096 * pages.unwrap_or(0)
}

/// Measures from its making on.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    memory_bytes: u64,
}

impl Meter {
    /// Begins.
    pub fn start() -> Self {
        Meter { began: Instant::now(), memory_bytes: memory_bytes() }
    }

    /// Seconds since, and bytes of memory more than then.
    pub fn read(&self) -> (f64, u64) {
        (self.began.elapsed().as_secs_f64(), memory_bytes().saturating_sub(self.memory_bytes))
    }
}
