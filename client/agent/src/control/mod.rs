//! The control API: how the owner's commands reach a running agent. HTTP on a loopback port that an installation keeps;
//! the port and a token are in `control.json`, in the user's runtime folder, which only this user can read.
//!
//! Whatever bears the token may do what the owner may: the page, the tray and the command line are equals here.

mod asked;
mod auth;
mod browser;
mod listener;
mod port;
mod routes;
mod status;
mod summary;
mod ticket;

#[cfg(test)]
mod tests;

pub use asked::{Asked, Command};
pub use browser::open_page;
#[cfg(test)]
pub(crate) use port::PORT_FILE;
pub use status::{
    AgentStatus, LeftAlone, LimitsStatus, RunStatus, SensorStatus, Why, Word, WordKind, WorkerStatus, timestamp,
};
pub use summary::{Deed, Notice, Offer, State, Summary};
pub(crate) use summary::{Ends, Facts};
pub use ticket::Tickets;

use crate::{
    disk_words,
    home::{Home, HomeError},
};
use auth::Gate;
use data_encoding::HEXLOWER;
use listener::{Caller, LocalListener};
use ring::rand::{SecureRandom, SystemRandom};
use routes::ApiState;
use serde::{Deserialize, Serialize};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::{mpsc, watch};

/// The file that says where the control API listens and how to be let in.
pub const CONTROL_FILE: &str = "control.json";
/// The file that a browser opens to come to the page with the token.
const OPEN_FILE: &str = "open.html";

/// The file that is written to see whether the runtime folder takes one.
pub(crate) const PROBE_FILE: &str = "control.probe";

/// Why an agent of this home cannot say where it listens, in the disk's words; `None`: it could.
pub fn unwritable(home: &Home) -> Option<String> {
    match home.write_runtime(PROBE_FILE, &[b' '; 4096]) {
        Ok(probe) => {
            // Whatever removes it next: it is only in the way of nothing.
            let _ = std::fs::remove_file(probe);
            None
        }
        Err(HomeError::Runtime { source, .. }) => {
            Some(format!("{}: {}", home.runtime_path(CONTROL_FILE).display(), disk_words::refusal(&source)))
        }
        Err(other) => Some(other.to_string()),
    }
}

/// What [`CONTROL_FILE`] holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlFile {
    /// Where it listens.
    pub address: SocketAddr,
    /// What a request must bear.
    pub token: String,
}

impl ControlFile {
    /// That of the agent that uses this home folder, if one does, or did when it was killed.
    pub fn load(home: &Home) -> Option<Self> {
        serde_json::from_slice(&nightjar_shared::plain::read(&home.runtime_path(CONTROL_FILE)).ok()?).ok()
    }

    /// The page's address. The token travels in the fragment, which browsers send to nobody.
    pub fn link(&self) -> String {
        format!("http://{}/#{}", self.address, self.token)
    }

    /// The page's address with a ticket, which may stand on a command line.
    pub fn link_with(&self, ticket: &str) -> String {
        format!("http://{}/#once-{ticket}", self.address)
    }

    /// Writes a file for a browser to open, which leads to [`link`](Self::link): on a command line every user of the
    /// computer could read the token.
    pub fn write_open_file(&self, home: &Home) -> Result<PathBuf, HomeError> {
        let html = format!(
            "<!doctype html><meta charset=\"utf-8\"><title>Nightjar</title>\
             <meta http-equiv=\"refresh\" content=\"0;url={0}\"><p><a href=\"{0}\">Open Nightjar</a></p>\n",
            self.link()
        );
        home.write_runtime(OPEN_FILE, html.as_bytes())
    }
}

/// A control API that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// What tells others where it is cannot be written.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No socket, or no random numbers for the token.
    #[error("cannot listen for `nightjar` commands on this computer: {0}")]
    Listen(#[from] io::Error),
}

/// A running control API; dropping it stops it.
pub struct Server {
    task: tokio::task::AbortHandle,
    home: Home,
    news: Arc<watch::Sender<Option<Arc<AgentStatus>>>>,
    moved: Option<String>,
}

impl Server {
    /// Why the page is not where it was the last time.
    pub fn moved(&self) -> Option<&str> {
        self.moved.as_deref()
    }

    /// Whether anybody listens for news.
    pub fn has_listeners(&self) -> bool {
        self.news.receiver_count() > 0
    }

    /// Tells who listens how the agent stands, if that has changed.
    pub fn tell(&self, status: AgentStatus) {
        self.news.send_if_modified(|last| {
            let is_new = last.as_deref() != Some(&status);
            if is_new {
                *last = Some(Arc::new(status));
            }
            is_new
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        for file in [CONTROL_FILE, OPEN_FILE] {
            // One that stays misleads nobody for long: nothing answers at its address.
            let _ = std::fs::remove_file(self.home.runtime_path(file));
        }
    }
}

/// Opens the control API and writes where it is.
pub async fn serve(home: &Home, queue: mpsc::Sender<Asked>, tickets: Tickets) -> Result<Server, ControlError> {
    let (mut secret, mut seed) = ([0; 32], [0; 8]);
    let random = SystemRandom::new();
    let drawn = random.fill(&mut secret).and_then(|()| random.fill(&mut seed));
    drawn.map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let port::Opened { listener, moved } = port::open(&*home.disk(), u64::from_le_bytes(seed)).await?;
    let file = ControlFile { address: listener.local_addr()?, token: HEXLOWER.encode(&secret) };
    home.write_runtime(CONTROL_FILE, &serde_json::to_vec_pretty(&file).map_err(io::Error::from)?)?;
    let news = Arc::new(watch::Sender::new(None));
    let state = ApiState { queue, news: news.clone(), disk: home.disk(), tickets, file: file.clone() };
    let routes = routes::routes(state, Gate::new(&file)).into_make_service_with_connect_info::<Caller>();
    let task = tokio::spawn(async move {
        if let Err(e) = axum::serve(LocalListener::new(listener), routes).await {
            tracing::warn!("the control API ended: {e}");
        }
    });
    Ok(Server { task: task.abort_handle(), home: home.clone(), news, moved })
}
