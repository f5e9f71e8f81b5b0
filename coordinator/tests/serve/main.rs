//! The coordinator from outside: real QUIC on loopback, real files, real kills.

mod abuse;
mod backup;
mod bed;
#[cfg(unix)]
mod blobs;
mod command_line;
#[cfg(unix)]
mod database;
mod device;
mod hold;
mod journey;
#[cfg(unix)]
mod leadership;
mod loss;
#[cfg(unix)]
mod object_store;
mod operating;
#[cfg(unix)]
mod postgres;
mod siege;
