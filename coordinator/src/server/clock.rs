//! The calendar.

use nightjar_shared::time::Wall;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the calendar says.
pub fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall { unix_ms: since.as_millis() as u64 }
}
