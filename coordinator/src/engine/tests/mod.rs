//! The engine from outside: scenarios to read, then random events against the invariants.

mod ahead;
mod attacks;
mod drain;
mod lost;
mod mismatch;
mod orders;
mod random;
mod rounds;
mod scenarios;
mod series;
