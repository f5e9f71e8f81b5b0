//! Fail points: names for the places between two effects. A test ends a process there, to prove that whatever was
//! acknowledged survives. Off unless `NIGHTJAR_FAIL_POINT` is set to `name` or `name@n` (the n-th time it is passed).

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// The variable that arms a fail point.
pub const VARIABLE: &str = "NIGHTJAR_FAIL_POINT";

/// Passes a fail point: ends the process at once, as SIGKILL would, if this is the one armed.
pub fn point(name: &str) {
    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| parse(&text)));
    if let Some((at, left)) = armed
        && at == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

fn parse(text: &str) -> (String, AtomicU64) {
    let (name, times) = text.split_once('@').unwrap_or((text, "1"));
    (name.to_owned(), AtomicU64::new(times.parse().unwrap_or(1)))
}
