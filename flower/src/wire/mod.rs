//! Flower's wire: all that this program knows of a SuperLink. Tested with flwr 1.41 and 1.42.
//!
//! A SuperNode asks by protobuf over HTTP POST, at `/v1/fleet/…` ([`link`]). Each request is signed. What a message
//! holds are objects, named by the SHA-256 of their bytes ([`object`]); arrays are `.npy` files in pieces ([`npy`]).
//! [`incoming`] reads a message, an array at a time, and [`reply`] makes an answer.
//!
//! Everything that comes from a SuperLink has a bound, before memory is taken for it.

pub mod incoming;
pub mod link;
pub mod npy;
pub mod object;
pub mod proto;
pub mod reply;

/// The newest version that this module was tested with: what a SuperLink is told.
pub const FLWR_VERSION: &str = "1.42.0";
/// Bytes of an object at most. Flower cuts arrays into pieces of 5 MiB.
pub const OBJECT_BYTES_MAX: usize = 64 << 20;
/// Bytes of an array's piece, as Flower itself cuts them.
pub const PIECE_BYTES: usize = 5 << 20;
