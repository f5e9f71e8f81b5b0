//! The coordinator: a pure engine that decides, a ledger that remembers, a publisher that merges, and a server around
//! them.

/// A run copied while it is served, and put back.
pub mod backup;
/// What counting alone achieves.
pub mod baseline;
/// How pages know the coordinator.
pub mod certificate;
/// Curves as pictures.
pub mod chart;
/// What a run will cost, before it starts.
pub mod cost;
/// Text in, shards out.
pub mod dataset;
/// What decides: a pure state machine.
pub mod engine;
/// Models as folders that other tools load.
pub mod export;
/// Who the coordinator is.
pub mod identity;
/// Going through the ledger again, to recover or to verify.
pub mod replay;
/// What a lab writes to say what is to be trained.
pub mod run_file;
/// Devices in, versions out: sockets, streams, the event loop, the page.
pub mod server;
/// What lasts.
pub mod store;
#[cfg(test)]
mod world;
