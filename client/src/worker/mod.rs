//! The worker: the child process that holds Burn and trains. It talks to the agent over its pipes, and touches nothing
//! but files of the home folder that the agent names.

mod base;
mod files;
mod process;
mod run;

pub(crate) use process::serve;
