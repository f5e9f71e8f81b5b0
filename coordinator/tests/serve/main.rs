//! The coordinator from outside: real QUIC on loopback, real files, real kills.

mod abuse;
mod bed;
mod command_line;
mod device;
mod hold;
mod journey;
mod loss;
mod siege;
