//! Why a connection is closed, or a stream given up: the application error codes of QUIC.

/// The code; the reason that may come with it is for logs only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// All is said.
    Done = 0,
    /// The other side stops or restarts: connect again, later.
    Stopping = 1,
    /// A message was malformed, over a limit, or out of turn.
    Malformed = 2,
    /// The same device has connected again.
    Replaced = 3,
    /// The other side was silent, or too slow.
    Slow = 4,
    /// More connections than can be served: connect again, later.
    Full = 5,
    /// Something went wrong on this side: try again.
    Internal = 6,
    /// The run's operator has taken the device out of it: do not come back.
    Revoked = 7,
}

impl CloseCode {
    /// All codes.
    pub const ALL: [CloseCode; 8] = [
        Self::Done,
        Self::Stopping,
        Self::Malformed,
        Self::Replaced,
        Self::Slow,
        Self::Full,
        Self::Internal,
        Self::Revoked,
    ];

    /// The code of a number; `None` if this build does not know it.
    pub fn from_number(n: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|c| *c as u64 == n)
    }
}
