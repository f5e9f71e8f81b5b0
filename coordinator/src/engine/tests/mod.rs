//! The engine from outside: scenarios to read, then random events against the invariants.

mod ahead;
mod random;
mod rounds;
mod scenarios;
pub mod world;
