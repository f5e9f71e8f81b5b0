//! What is written into a connection to a coordinator's page: the dashboard's addresses, the operators' API and its
//! bodies, by strangers and by holders of a token. A whole coordinator runs behind it.

use super::temporary;
use nightjar_coordinator::{
    dataset::{self, Dataset, Notes, PrepareOptions},
    server::{EndError, Pages, Server, Setup, Wish, state::StateFolder, token, track, wishes},
    store::{Access, Note, TokenRecord},
};
use nightjar_shared::{model_spec::ModelSpec, run_spec::RunSpec, time::Wall};
use std::{
    cell::RefCell,
    fs,
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinHandle,
};

/// Longer than any input, so that it is written at once.
const ROOM: usize = 16 << 10;
/// Of an answer that is longer, the beginning tells.
const ANSWER_MAX: usize = 256 << 10;
/// Connections to one coordinator: its audit log grows with each.
const CONNECTIONS: u32 = 20_000;
/// The digits of an operator's token, and of a viewer's.
const TOKENS: [(&str, Access); 2] = [("5", Access::Operator), ("6", Access::Viewer)];

fn secret(digit: &str) -> String {
    format!("nightjar_{}", digit.repeat(64))
}

/// A coordinator at work.
struct World {
    pages: Pages,
    connections: u32,
    served: JoinHandle<Result<(), EndError>>,
    /// Dropped, it stops.
    _wish: mpsc::Sender<Wish>,
    /// What is spawned on it ends with it.
    runtime: Runtime,
    /// The last to go.
    _folder: tempfile::TempDir,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// A connection.
pub fn connection(bytes: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_some_and(|world| world.connections >= CONNECTIONS) {
            *world = None;
        }
        let world = world.get_or_insert_with(World::new);
        let answer = world.answer(bytes);
        let status = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "));
        assert!(answer.is_empty() || status.is_some(), "{}", String::from_utf8_lossy(&answer));
        assert!(!status.is_some_and(|s| s.starts_with(b"500")), "{}", String::from_utf8_lossy(&answer));
        assert!(!world.served.is_finished(), "the coordinator has ended");
    });
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let text: String =
            (0..400).map(|n| format!("text {n}: the quick brown fox jumps over {}.\n\n", n * n)).collect();
        let folder = temporary();
        let [input, data, state] = ["a.txt", "data", "state"].map(|name| folder.path().join(name));
        fs::write(&input, text).expect("a file");
        let options = PrepareOptions {
            context: 8,
            heldout: 0.3,
            seed: 1,
            quiet: true,
            ..PrepareOptions::new(vec![input], data.clone())
        };
        let prepared = dataset::prepare(&options, &mut Notes::default()).expect("a dataset");
        let mut spec = RunSpec::new("fuzzed", 1 << 40);
        spec.model = ModelSpec {
            vocab_size: prepared.manifest.vocab_size,
            hidden_size: 8,
            intermediate_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            max_position_embeddings: 8,
            ..ModelSpec::tiny()
        };
        let loopback: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let setup = Setup {
            spec,
            dataset: Dataset::open(&data).expect("a dataset"),
            state: state.clone(),
            ledger: None,
            blobs: None,
            listen: loopback,
            web: false,
            page: None,
            http: loopback,
            start: None,
            say: Arc::new(|_| {}),
            limits: vec![],
            spans: None,
            track: track::Places::default(),
        };
        let (wish, mut wishes) = wishes();
        let (pages, served) = runtime.block_on(async {
            let server = Server::open(setup).await.expect("a coordinator");
            let place = StateFolder::open(&state).expect("its state").ledger(None).expect("its ledger");
            let desk = place.open_desk().await.expect("its ledger");
            desk.note(&TOKENS.map(|(digit, role)| Note::Token(a_token(digit, role)))).await.expect("tokens");
            desk.close().await;
            let pages = server.pages();
            (pages, tokio::spawn(async move { server.run(String::new(), &mut wishes).await }))
        });
        World { pages, connections: 0, served, _wish: wish, runtime, _folder: folder }
    }

    /// All that comes back for these bytes.
    fn answer(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.connections += 1;
        // Each comes from elsewhere: too many wrong tokens shut out an address.
        let from = SocketAddr::from((Ipv4Addr::from((10 << 24) + self.connections), 1));
        self.runtime.block_on(async {
            let (mut client, server) = duplex(ROOM);
            client.write_all(bytes).await.expect("there is room");
            client.shutdown().await.expect("it is open");
            let mut answer = vec![];
            let read = async {
                while answer.len() < ANSWER_MAX && client.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {
                    // A page that is told of news is told for ever.
                    if answer.windows(17).any(|words| words == b"text/event-stream") {
                        break;
                    }
                }
            };
            let serve = async {
                self.pages.answer(server, from).await;
                pending::<()>().await;
            };
            tokio::select! {
                () = serve => {}
                () = read => {}
            }
            answer
        })
    }
}

fn a_token(digit: &str, role: Access) -> TokenRecord {
    TokenRecord {
        name: role.name().into(),
        role,
        hash: token::hash(&secret(digit)),
        created_at: Wall::default(),
        expires_at: None,
        used_at: None,
        revoked_at: None,
    }
}

pub fn connections() -> Vec<Vec<u8>> {
    let ask = |what: &str, more: &str, body: &str| {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        format!("{what} HTTP/1.1\r\nHost: localhost\r\n{more}{length}\r\n{body}").into_bytes()
    };
    let id = "7".repeat(64);
    let plain = [
        "/",
        "/?sort=speed&dir=up&state=away&search=a%26b%C3%BC&offset=9&limit=3",
        "/devices?sort=name",
        &format!("/devices/{id}?before=7"),
        "/api/status",
        "/api/devices?search=x",
        "/api/v1/openapi.json",
        "/events",
        "/metrics",
        "/assets/board.js",
    ];
    let shown = |digit| format!("Authorization: Bearer {}\r\n", secret(digit));
    let read = [
        "/api/v1/devices?limit=2&state=training&role=anchor",
        &format!("/api/v1/devices?from={id}"),
        &format!("/api/v1/devices/{id}"),
        &format!("/api/v1/devices/{id}/leases?limit=1&from=9"),
        "/api/v1/invites?from=0102",
        "/api/v1/audit?from=3",
        "/api/v1/run",
        "/api/v1/session",
    ];
    let invite = r#"{"role":"anchor","addresses":["run.example.org:4433","[2001:db8::1]:443"],"expires_days":3,"devices_max":9}"#;
    let login = format!(r#"{{"token":"{}"}}"#, secret("6"));
    let sent = [
        ("/api/v1/invites/create", invite),
        ("/api/v1/invites/0102/revoke", r#"{"with_devices":true}"#),
        ("/api/v1/run/extend", r#"{"token_budget":1099511627777}"#),
        ("/api/v1/run/pause", ""),
        ("/api/v1/run/resume", ""),
        ("/api/v1/login", &login),
        ("/api/v1/logout", ""),
        (&format!("/api/v1/devices/{id}/revoke"), ""),
        (&format!("/api/v1/devices/{id}/hide-name"), ""),
    ];
    let json = format!("Content-Type: application/json\r\n{}", shown("5"));
    let proxied = "X-Forwarded-For: 198.51.100.9, 192.0.2.9\r\nX-Forwarded-Proto: https\r\n";
    let cookie = "Cookie: nightjar_session=abc; theme=dark\r\nX-CSRF-Token: abc\r\n";
    let mut all: Vec<Vec<u8>> = plain.iter().map(|path| ask(&format!("GET {path}"), "", "")).collect();
    all.extend(read.iter().map(|path| ask(&format!("GET {path}"), &shown("6"), "")));
    all.extend(sent.iter().map(|(path, body)| ask(&format!("POST {path}"), &json, body)));
    all.push(ask("POST /api/v1/login", proxied, &login));
    all.push(ask("POST /qr", "", "nightjar://join/abc"));
    all.push(ask("POST /api/v1/run/pause", cookie, ""));
    all.push([ask("HEAD /healthz", "", ""), ask("GET /readyz", "", "")].concat());
    all
}
