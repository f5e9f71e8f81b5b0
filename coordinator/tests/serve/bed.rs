//! What a test needs to serve a run: a model of a few hundred parameters, a dataset made by hand, a state folder.

use nightjar_coordinator::{
    dataset::Dataset,
    identity::Identity,
    server::{EndError, Server, Setup, Wish, disk_reserve::Space, public, state::StateFolder, track, wishes},
    store::{BucketUrl, DatabaseUrl},
};
use nightjar_shared::{
    disk::FolderDisk,
    ids::BlobHash,
    model_spec::ModelSpec,
    rng,
    run_spec::{Pacing, RunSpec},
    shard::{Manifest, ShardInfo},
    wire::{Invite, Role},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};

pub const CONTEXT: u32 = 8;
const SAMPLES: u32 = 2000;

/// Folders of a run.
pub struct Bed {
    root: tempfile::TempDir,
    pub spec: RunSpec,
    ledger: Option<DatabaseUrl>,
    blobs: Option<BucketUrl>,
    /// Whether pages may connect.
    pub web: bool,
    /// The page that makes a browser a device, where it is served.
    pub page: Option<PathBuf>,
    /// As `serve --limit` takes them.
    pub limits: Vec<&'static str>,
}

impl Bed {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let model = ModelSpec {
            vocab_size: 256,
            hidden_size: 8,
            intermediate_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            max_position_embeddings: CONTEXT,
            ..ModelSpec::tiny()
        };
        let mut spec: RunSpec = serde_json::from_str(r#"{"name": "bed", "token_budget": 100000000}"#).unwrap();
        spec.model = model;
        // Few steps: a delta is not taken before anybody can have trained it.
        (spec.lease.pacing, spec.lease.steps_max) = (Pacing::Free, 8);
        (spec.merge.quorum, spec.merge.grace_s) = (Some(1), Some(0.0));
        let bed = Bed { root, spec, ledger: None, blobs: None, web: false, page: None, limits: vec![] };
        bed.write_dataset();
        fs::write(bed.run_file(), bed.run_toml()).unwrap();
        bed
    }

    /// The same, where pages may connect, too.
    pub fn with_pages() -> Self {
        Bed { web: true, ..Self::new() }
    }

    /// The same, with its ledger in a database.
    pub fn with_ledger(self, url: &str) -> Self {
        Bed { ledger: Some(url.parse().unwrap()), ..self }
    }

    /// The same, started without a word of where its ledger is.
    pub fn without_ledger(self) -> Self {
        Bed { ledger: None, ..self }
    }

    /// The same, with its blobs in a bucket.
    pub fn with_blobs(self, bucket: BucketUrl) -> Self {
        Bed { blobs: Some(bucket), ..self }
    }

    /// The same, started without a word of where its blobs are.
    pub fn without_blobs(self) -> Self {
        Bed { blobs: None, ..self }
    }

    fn write_dataset(&self) {
        fs::create_dir_all(self.data().join("blobs")).unwrap();
        let shard = |seed: u64, samples: u32| {
            let tokens = u64::from(samples) * u64::from(CONTEXT + 1);
            let bytes: Vec<u8> =
                (0..tokens).flat_map(|i| ((rng::draw(seed, 0, i) % 16) as u16).to_le_bytes()).collect();
            let frame = zstd::bulk::compress(&bytes, 1).unwrap();
            let hash = BlobHash::of(&frame);
            fs::write(self.data().join("blobs").join(hash.to_string()), &frame).unwrap();
            ShardInfo { hash, bytes: frame.len() as u64, samples, text_bytes: u64::from(samples * CONTEXT) }
        };
        let manifest = Manifest {
            format: 1,
            context: CONTEXT,
            vocab_size: 256,
            tokenizer: None,
            end_of_text: None,
            train: vec![shard(1, SAMPLES), shard(2, SAMPLES)],
            heldout: vec![shard(3, 300)],
        };
        fs::write(self.data().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    pub fn run_toml(&self) -> String {
        toml::to_string(&self.spec).unwrap()
    }

    pub fn run_file(&self) -> PathBuf {
        self.root.path().join("run.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The coordinator's key; made here if no server was there yet, as a first start that is cut short would.
    pub fn identity(&self) -> Identity {
        if !self.state().exists() {
            let (state, _lock, _) = StateFolder::take(&self.state()).unwrap();
            state.begin().unwrap();
            Identity::open_or_draw(&*state.disk).unwrap().store(&*state.disk).unwrap();
        }
        Identity::open(&FolderDisk::open(self.state()).unwrap()).unwrap()
    }

    pub fn invite(&self, role: Role) -> Vec<u8> {
        self.identity().sign_invite(Invite {
            addresses: vec!["127.0.0.1:1".into()],
            role: role as i32,
            run_name: "bed".into(),
            nonce: vec![1],
            ..Invite::default()
        })
    }

    /// Starts a server within this process.
    pub async fn serve(&self) -> Serving {
        self.up(Server::open(self.setup()).await.unwrap())
    }

    /// The same, where devices find it again.
    pub async fn serve_at(&self, address: SocketAddr) -> Serving {
        self.up(Server::open(Setup { listen: address, ..self.setup() }).await.unwrap())
    }

    /// The same, on a disk of which the test says how much room it has.
    pub async fn serve_on(&self, space: Box<dyn Space>) -> Serving {
        self.up(Server::open_on(self.setup(), |_| space).await.unwrap())
    }

    /// The same, and what it tells the person at the terminal.
    pub async fn serve_telling(&self) -> (Serving, Arc<Mutex<String>>) {
        let told = Arc::new(Mutex::new(String::new()));
        let of_server = told.clone();
        let say = move |line: &str| *of_server.lock().unwrap() += &format!("{line}\n");
        (self.up(Server::open(Setup { say: Arc::new(say), ..self.setup() }).await.unwrap()), told)
    }

    /// The same, and it is written down how the run goes.
    pub async fn serve_tracked(&self, track: track::Places) -> Serving {
        self.up(Server::open(Setup { track, ..self.setup() }).await.unwrap())
    }

    pub fn setup(&self) -> Setup {
        let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
        Setup {
            spec: self.spec.clone(),
            dataset: Dataset::open(self.data()).unwrap(),
            state: self.state(),
            ledger: self.ledger.clone(),
            blobs: self.blobs.clone(),
            listen: loopback,
            web: self.web,
            page: self.page.as_deref().map(|folder| Arc::new(public::PageFiles::open(folder).unwrap())),
            http: loopback,
            start: None,
            say: Arc::new(|_| {}),
            limits: self.limits.iter().map(|text| text.parse().unwrap()).collect(),
            spans: None,
            track: track::Places::default(),
        }
    }

    fn up(&self, server: Server) -> Serving {
        let (address, http) = (server.address().unwrap(), server.http_address().unwrap());
        let strangers = public::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let public = strangers.local_addr().unwrap();
        let server = server.with_public_page(strangers);
        let (wish, mut wishes) = wishes();
        let task = tokio::spawn(async move { server.run("ready".into(), &mut wishes).await });
        Serving { address, http, public, wish, task }
    }
}

/// A server at work.
pub struct Serving {
    pub address: SocketAddr,
    pub http: SocketAddr,
    pub public: SocketAddr,
    /// Dropped, the server stops at once.
    pub wish: mpsc::Sender<Wish>,
    task: JoinHandle<Result<(), EndError>>,
}

impl Serving {
    pub async fn stop(self) {
        drop(self.wish);
        self.task.await.unwrap().unwrap();
    }

    /// `/api/status`.
    pub async fn status(&self) -> serde_json::Value {
        self.try_status().await.unwrap()
    }

    /// The same, of a server that may not be there at the moment.
    pub async fn try_status(&self) -> io::Result<serde_json::Value> {
        let http = self.http;
        let body = tokio::task::spawn_blocking(move || try_get(http, "/api/status")).await.unwrap()?;
        serde_json::from_str(&body).map_err(io::Error::other)
    }

    /// Waits until the status is so, however late.
    pub async fn until(&self, is_so: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        for _ in 0..600 {
            match self.try_status().await {
                Ok(status) if is_so(&status) => return status,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        panic!("it never was so: {:?}", self.try_status().await)
    }
}

/// The body of a page.
pub fn get(address: SocketAddr, path: &str) -> String {
    try_get(address, path).unwrap()
}

fn try_get(address: SocketAddr, path: &str) -> io::Result<String> {
    let answer = get_as("localhost", address, path)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(body.to_owned())
}

/// What comes for a page under this name of its server, head and body.
pub fn get_as(host: &str, address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
