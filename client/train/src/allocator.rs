//! What the C library keeps of the memory that is freed. Every training step frees vectors of megabytes and takes them
//! again; by default glibc hands each back to the system at once, and the next comes page by page from the kernel,
//! zeroed. Kept, a step of 0.8 million parameters on the processor is about a third faster (`nightjar bench`, with and
//! without).
//!
//! The process holds what it once needed until it ends, which is when its owner wants the memory: a worker that holds
//! is ended.

/// Keeps freed memory for the next step. Where there is another C library, nothing is done.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe crate sets this")]
pub(crate) fn keep_freed() {
    /// The most that glibc takes; what is larger comes from the system each time.
    const MMAP_FROM_BYTES: i32 = 32 << 20;
    // SAFETY: both calls set a number of the allocator, under its own lock. Refused, they change nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed() {}
