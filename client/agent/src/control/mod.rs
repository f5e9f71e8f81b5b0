//! The control API: how the owner's commands reach a running agent. HTTP on a loopback port that the system chooses; the
//! port and a token are in `control.json`, which only this user can read.

mod auth;

use crate::{home::Home, journal::Totals, session};
use auth::Gate;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

/// The file that says where the control API listens and how to be let in.
pub const CONTROL_FILE: &str = "control.json";

/// What [`CONTROL_FILE`] holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlFile {
    /// Where it listens.
    pub address: SocketAddr,
    /// What a request must bear.
    pub token: String,
}

/// What the owner commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell how it stands.
    Status,
    /// Pause for so long, or until resumed.
    Pause(Option<Duration>),
    /// End the pause.
    Resume,
    /// Leave the run.
    Leave,
    /// End the process.
    Shutdown,
}

/// How the agent stands: the answer to every command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The agent's process.
    pub pid: u32,
    /// The device's id.
    pub device: String,
    /// How its owner calls it.
    pub name: String,
    /// The run's name.
    pub run: String,
    /// Whether it holds or may train, and why.
    pub why: Why,
    /// What the session does.
    pub session: session::Status,
}

/// Whether it may train, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    /// Whether the owner's preferences let it train now.
    pub allowed: bool,
    /// One true sentence: why not, or what it does.
    pub reason: String,
    /// When a hold ends by itself, if that is known.
    pub until: Option<String>,
}

impl AgentStatus {
    /// What was delivered so far.
    pub fn totals(&self) -> &Totals {
        &self.session.totals
    }
}

/// A command, and where its answer goes.
pub type Asked = (Command, oneshot::Sender<AgentStatus>);

/// A running control API; dropping it stops it.
pub struct Server {
    task: tokio::task::AbortHandle,
    home: Home,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // One that stays misleads nobody for long: nothing answers at its address.
        let _ = std::fs::remove_file(self.home.path(CONTROL_FILE));
    }
}

/// Opens the control API and writes where it is.
pub async fn serve(home: &Home, queue: mpsc::Sender<Asked>) -> io::Result<Server> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let file = ControlFile { address, token: HEXLOWER.encode(&secret) };
    home.write_private(CONTROL_FILE, &serde_json::to_vec_pretty(&file)?)?;
    let routes = routes(queue, Gate::new(&file));
    let task = tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, routes).await {
            tracing::warn!("the control API ended: {e}");
        }
    });
    Ok(Server { task: task.abort_handle(), home: home.clone() })
}

fn routes(queue: mpsc::Sender<Asked>, gate: Gate) -> Router {
    Router::new()
        .route("/status", get(|State(queue): State<_>| ask(queue, Command::Status)))
        .route("/why", get(why))
        .route("/pause", post(pause))
        .route("/resume", post(|State(queue): State<_>| ask(queue, Command::Resume)))
        .route("/leave", post(|State(queue): State<_>| ask(queue, Command::Leave)))
        .route("/shutdown", post(|State(queue): State<_>| ask(queue, Command::Shutdown)))
        .layer(axum::middleware::from_fn_with_state(gate, auth::check))
        .with_state(queue)
}

#[derive(Deserialize)]
struct PauseQuery {
    seconds: Option<u64>,
}

async fn pause(State(queue): State<mpsc::Sender<Asked>>, Query(query): Query<PauseQuery>) -> Response {
    ask(queue, Command::Pause(query.seconds.map(Duration::from_secs))).await
}

async fn why(State(queue): State<mpsc::Sender<Asked>>) -> Response {
    match answer(queue, Command::Status).await {
        Ok(status) => Json(status.why).into_response(),
        Err(refused) => refused,
    }
}

async fn ask(queue: mpsc::Sender<Asked>, command: Command) -> Response {
    match answer(queue, command).await {
        Ok(status) => Json(status).into_response(),
        Err(refused) => refused,
    }
}

async fn answer(queue: mpsc::Sender<Asked>, command: Command) -> Result<AgentStatus, Response> {
    let busy = || (StatusCode::SERVICE_UNAVAILABLE, "the agent is busy; try again").into_response();
    let (reply, answered) = oneshot::channel();
    queue.try_send((command, reply)).map_err(|_| busy())?;
    answered.await.map_err(|_| busy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A served control API whose agent answers every command with the same status.
    async fn served(folder: &std::path::Path) -> (Server, ControlFile) {
        let home = Home::open(Some(folder.into())).unwrap();
        let (queue, mut asked) = mpsc::channel::<Asked>(4);
        tokio::spawn(async move {
            while let Some((command, reply)) = asked.recv().await {
                let why = Why { allowed: true, reason: format!("{command:?}"), until: None };
                let session = session::Session::new(session::Profile::for_tests(), Default::default()).status();
                let status = AgentStatus { pid: 1, device: "d".into(), name: "n".into(), run: "r".into(), why, session };
                let _ = reply.send(status);
            }
        });
        let server = serve(&home, queue).await.unwrap();
        let file = serde_json::from_slice(&std::fs::read(home.path(CONTROL_FILE)).unwrap()).unwrap();
        (server, file)
    }

    /// Sends a request by hand; gives back the status line and the body.
    async fn send(address: SocketAddr, line: &str, headers: &str) -> (String, String) {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn only_who_bears_the_token_and_comes_from_here_is_let_in() {
        let folder = tempfile::tempdir().unwrap();
        let (_server, file) = served(folder.path()).await;
        let (address, token) = (file.address, &file.token);
        let host = format!("Host: {address}\r\n");
        let bearer = format!("Authorization: Bearer {token}\r\n");

        let (status, body) = send(address, "GET /why", &format!("{host}{bearer}")).await;
        assert!(status.contains("200") && body.contains("Status"), "{status} {body}");
        let (_, body) = send(address, "POST /pause?seconds=60", &format!("{host}{bearer}")).await;
        assert!(body.contains("Pause(Some(60s))"), "{body}");
        let own = format!("Origin: http://{address}\r\n");
        assert!(send(address, "POST /resume", &format!("{host}{bearer}{own}")).await.0.contains("200"));

        let strangers = [
            ("no token", host.clone()),
            ("a wrong token", format!("{host}Authorization: Bearer {}\r\n", "0".repeat(64))),
            ("a page elsewhere", format!("{host}{bearer}Origin: https://example.com\r\n")),
            ("a name that was rebound to loopback", format!("Host: example.com:{}\r\n{bearer}", address.port())),
            ("no host", bearer.clone()),
        ];
        for (who, headers) in strangers {
            let (status, _) = send(address, "POST /shutdown", &headers).await;
            assert!(status.contains("403") || status.contains("400"), "{who}: {status}");
        }
    }

    #[tokio::test]
    async fn its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (server, _) = served(folder.path()).await;
        drop(server);
        assert!(!folder.path().join(CONTROL_FILE).exists());
    }
}
