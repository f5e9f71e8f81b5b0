//! The server around the engine: connections ([`connection`]) bring questions to the event loop ([`shell`], over its
//! [`handle`]), blobs travel beside it ([`transfer`]), and a page shows the run ([`http`]). [`serve`] puts it together.

mod bucket;
mod budget;
mod catalog;
mod clock;
mod connection;
mod context;
pub mod disk_reserve;
pub mod doors;
mod feed;
mod handle;
mod health;
pub mod history;
mod http;
pub mod issue;
mod keeper;
pub mod limits;
mod look;
pub mod machine;
mod members;
pub mod metrics;
mod news;
mod opening;
mod peer;
pub mod public;
mod publisher_thread;
pub mod quic;
mod rates;
#[cfg(test)]
mod recorded;
mod repair;
mod serve;
mod shell;
mod start;
pub mod state;
mod store_watch;
mod strangers;
mod stream;
mod subnet;
mod supervisor;
mod tls;
pub mod token;
mod transfer;
mod trouble;
mod uploads;
mod wish;
pub mod words;

pub use clock::wall_now;
pub use feed::role;
pub use http::HttpError;
pub use look::{addresses, key_of};
pub use serve::{EndError, ServeError, Server, Setup, run_identity};
pub use shell::ShellError;
pub use state::Found;
pub use trouble::Say;
pub use wish::{Wish, Wishes, wishes};
