//! Refusals: a code for programs, a sentence for the device's owner, and what to do next.

use super::{Refusal, RefusalAction, RefusalCode};
use std::time::Duration;

impl Refusal {
    /// Try again after `delay`.
    pub fn retry(code: RefusalCode, sentence: impl Into<String>, delay: Duration) -> Self {
        Refusal { retry_ms: delay.as_millis() as u64, ..Self::with(code, RefusalAction::Retry, sentence) }
    }

    /// With an action that needs no delay.
    pub fn with(code: RefusalCode, action: RefusalAction, sentence: impl Into<String>) -> Self {
        Refusal { code: code as i32, sentence: sentence.into(), action: action as i32, retry_ms: 0 }
    }

    /// The lease is gone: forget it and what was trained under it.
    pub fn lease_gone(sentence: impl Into<String>) -> Self {
        Self::with(RefusalCode::LeaseGone, RefusalAction::DropLease, sentence)
    }
}
