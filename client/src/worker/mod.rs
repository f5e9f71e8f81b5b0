//! The worker: the child process that holds Burn and trains. It talks to the agent over its pipes, and touches nothing
//! but files of the home folder that the agent names. What it does with a job is `nightjar_train::work`.

mod device;
mod faults;
mod priority;
mod process;
mod sandbox;
mod written;

pub(crate) use device::list as list_devices;
pub(crate) use process::serve;
