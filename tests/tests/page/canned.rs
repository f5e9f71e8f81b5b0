//! An agent that says what it is told to say, so that each state can be looked at, also those that take a broken GPU.
//! It serves the page's own files and `canned.json`; the token in the link names the state.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

const POLICY: &str =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'";

macro_rules! files {
    ($($name:literal: $kind:literal),* $(,)?) => {
        &[$((concat!("/assets/", $name), $kind, include_str!(concat!("../../../client/agent/src/page/", $name)))),*]
    };
}

const FILES: &[(&str, &str, &str)] = files![
    "app.js": "text/javascript", "api.js": "text/javascript", "cards.js": "text/javascript", "day.js": "text/javascript",
    "hours.js": "text/javascript", "join.js": "text/javascript", "preferences.js": "text/javascript", "words.js": "text/javascript",
    "style.css": "text/css", "preferences.css": "text/css", "icon.svg": "image/svg+xml",
];

/// What it says.
pub fn sayings() -> Value {
    serde_json::from_str(include_str!("canned.json")).expect("canned.json is JSON")
}

/// A server on a port of its own; dropping it ends it.
pub struct CannedAgent {
    /// Where it listens.
    pub address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CannedAgent {
    pub fn start() -> CannedAgent {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = ended.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                // A browser that hangs up has what it wanted.
                std::thread::spawn(move || serve(stream).ok());
            }
        });
        CannedAgent { address, ended, thread: Some(thread) }
    }

    /// The page's link in a state.
    pub fn link(&self, state: &str) -> String {
        format!("http://{}/#{state}_{}", self.address, "0".repeat(32))
    }
}

impl Drop for CannedAgent {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut token = String::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            token = value.trim_start_matches("Bearer ").to_owned();
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let said = sayings();
    let json = |value: &Value| ("200 OK", "application/json", value.to_string());
    let (code, kind, body) = match path.split('?').next().unwrap_or_default() {
        "/" => {
            ("200 OK", "text/html; charset=utf-8", include_str!("../../../client/agent/src/page/index.html").to_owned())
        }
        "/status" => json(&status(&said, token.split('_').next().unwrap_or_default())),
        "/history" => json(&said["history"]),
        "/preferences" => json(&said["preferences"]),
        "/log" => ("200 OK", "text/plain", said["log"].as_str().unwrap_or_default().to_owned()),
        other => match FILES.iter().find(|(name, ..)| *name == other) {
            Some((_, kind, text)) => ("200 OK", *kind, (*text).to_owned()),
            // It has no events: the page must ask again and again by itself.
            None => ("404 Not Found", "text/plain", "there is nothing here".to_owned()),
        },
    };
    write!(
        stream,
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nContent-Security-Policy: \
        {POLICY}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The first status with a state's own words laid over it.
fn status(said: &Value, state: &str) -> Value {
    let mut status = said["status"].clone();
    lay_over(&mut status, &said["states"][state]);
    status
}

fn lay_over(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above.clone(),
    }
}
