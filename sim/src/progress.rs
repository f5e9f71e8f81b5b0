//! How far a simulated run is, for whoever watches it.

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Virtual seconds so far.
    pub virtual_s: f64,
    /// Virtual seconds at which it ends at the latest.
    pub virtual_s_end: f64,
    /// Tokens merged.
    pub tokens: u64,
    /// Tokens at which it ends.
    pub token_budget: u64,
    /// Versions published after version 0.
    pub versions: u64,
    /// The newest measured loss.
    pub loss: Option<f64>,
    /// Events simulated.
    pub events: u64,
}

impl Progress {
    /// The share that is done: by tokens or by virtual time, whichever is further.
    pub fn done(&self) -> f64 {
        let by_tokens = self.tokens as f64 / self.token_budget.max(1) as f64;
        by_tokens.max(self.virtual_s / self.virtual_s_end.max(1e-9)).min(1.0)
    }
}
