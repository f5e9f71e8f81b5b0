//! The coordinator from outside: real QUIC on loopback, real files, real kills.

mod abuse;
mod admin;
mod backup;
mod bed;
#[cfg(unix)]
mod blobs;
mod board;
#[cfg(unix)]
#[path = "../../../tests/src/browser.rs"]
#[expect(dead_code, reason = "the whole-system tests use the rest")]
mod browser;
mod command_line;
#[cfg(unix)]
mod database;
mod device;
#[cfg(unix)]
mod device_process;
#[cfg(unix)]
mod doors;
#[cfg(unix)]
mod first_run;
mod hold;
#[cfg(target_os = "linux")]
mod hostile;
#[cfg(unix)]
mod inputs;
#[cfg(unix)]
mod joining;
mod journey;
mod keep;
mod labs;
#[cfg(unix)]
mod leadership;
mod loss;
#[cfg(unix)]
mod many_kills;
#[cfg(unix)]
mod moving;
#[cfg(unix)]
mod object_store;
mod operating;
#[cfg(unix)]
mod orders;
#[cfg(all(unix, feature = "otel"))]
mod otel;
mod page;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
#[path = "../../../tests/src/process.rs"]
#[expect(dead_code, reason = "the whole-system tests use the rest")]
mod process;
#[cfg(unix)]
mod processes;
#[cfg(unix)]
mod restoring;
mod series;
mod siege;
mod web;

#[cfg(unix)]
use std::time::{Duration, Instant};

/// How long a browser's test waits for something that must happen; nothing asserts speed.
#[cfg(unix)]
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
#[cfg(unix)]
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
