//! The agent: the always-on half of the client. Sensors feed the policy, the policy allows or holds the session, the
//! session asks for leases, has a worker train them and delivers the deltas.
//!
//! [`policy`] and [`session`] decide and are pure, in a crate of their own; [`event_loop`] performs. Never here: Burn
//! or a GPU.

pub mod clock;
pub mod control;
pub mod event_loop;
pub mod history;
pub mod home;
pub mod identity;
pub mod join;
pub mod length;
pub mod link;
pub mod membership;
pub mod page;
pub mod pause;
pub mod quota;
pub mod sensor;
pub mod service;
pub mod transfer;
pub mod tray;
pub mod worker;

/// Civil time in this crate is of this version of it.
pub use jiff;
pub use nightjar_session::{disk_words, journal, lease, policy, preferences, session};
