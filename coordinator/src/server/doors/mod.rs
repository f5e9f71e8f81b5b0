//! Several processes, one coordinator. With the ledger in PostgreSQL and the blobs in an object store, any number of
//! processes serve a run. One of them is the **leader**: it runs the engine. Every other one is a **door**: it holds
//! connections, moves blobs to and from the store, and asks the leader for what must be decided ([`door`]). The leader
//! answers its doors over QUIC, on the port that devices come to ([`links`]), and tells them what is new in the ledger.
//!
//! Who leads is decided in the database ([`crate::store::postgres::leadership`]). A leader that dies, hangs or loses the
//! database is followed by one of its doors ([`processes`]).

mod door;
mod link;
pub mod links;
pub mod processes;

pub use door::Door;
pub use links::Doors;
pub use processes::{Began, Pages, ProcessError};
