//! How far each of the session's parts is: the link, what was asked, the worker, the upload.

/// The link, as far as the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Down,
    Connecting,
    Up { greeted: bool },
}

/// What a request was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Hello,
    Lease,
    Offer,
    Return,
    Evaluation,
    Renew,
    Leave,
}

/// The worker, as far as the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worker {
    Off,
    Idle,
    Busy,
    Stopping,
}

/// Where the pending delta's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// The coordinator may have them: the offer will tell.
    Unasked,
    Wanted,
    Underway,
}
