//! What a device decides, whatever it runs in: which leases it asks for and how each is carried out ([`session`]), when
//! it may train ([`policy`], by the owner's [`preferences`]), and what outlives a crash ([`journal`]). Events and times
//! go in, actions and sentences come out; what must last goes through a `Disk`.
//!
//! Never here: an async runtime, a socket, a GPU, a clock, or a random source of its own.

pub mod disk_words;
pub mod journal;
pub mod lease;
pub mod policy;
pub mod preferences;
pub mod session;

/// Civil time in this crate is of this version of it.
pub use jiff;
