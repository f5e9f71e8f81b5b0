//! What the whole-system tests share: places to run in, processes that end with the test, and waiting for a condition.

pub mod browser;
pub mod files;
pub mod place;
pub mod process;
pub mod small_disk;

pub use browser::{Browser, View};
pub use files::Files;
pub use place::{Place, Size};
pub use process::{Ended, Running};
pub use small_disk::SmallDisk;

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen. Generous: the machine may be busy, and nothing asserts speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none in [`PATIENCE`].
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, ask)
}

/// The same with another patience.
///
/// # Panics
/// If there is no answer in it.
pub fn until_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < patience, "{what}: not within {} s", patience.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
