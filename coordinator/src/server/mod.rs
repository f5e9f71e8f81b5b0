//! The server around the engine: connections ([`connection`]) bring questions to a [`desk`], the event loop ([`shell`])
//! answers them, blobs travel beside it ([`transfer`]), and a page shows the run ([`http`]).

mod catalog;
mod connection;
mod desk;
pub mod history;
mod http;
mod members;
mod mender;
mod press_thread;
pub mod quic;
mod shell;
pub mod state;
mod stream;
mod tls;
mod transfer;

pub use http::{HttpError, role};
pub use shell::{Say, ShellError};

use crate::{
    dataset::Dataset,
    engine::{self, Engine, Mismatch, event::Action},
    identity::{Identity, IdentityError},
    replay::{self, ReplayError, Resumed},
    store::{BlobError, LedgerError, Press, RunIdentity, SqliteLedger, look},
};
use catalog::{Catalog, Damaged};
use connection::{Porch, Present};
use desk::Question;
use history::History;
use members::Members;
use mender::Mender;
use nightjar_shared::{
    ids::{BlobHash, DeviceId, RunId},
    run_spec::RunSpec,
    shard::Manifest,
    time::{Mono, Wall},
    wire::close::CloseCode,
};
use quic::EndpointError;
use quinn::Endpoint;
use shell::Parts;
use state::{Found, StateError, StateFolder, StateLock};
use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use stream::Traffic;
use tokio::{sync::mpsc, time::Instant};

/// Longest wait, when stopping, for devices to hear of it.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// What to serve.
pub struct Setup {
    /// The run.
    pub spec: RunSpec,
    /// What it trains on.
    pub dataset: Dataset,
    /// Where its state is.
    pub state: PathBuf,
    /// Where devices connect (UDP).
    pub listen: SocketAddr,
    /// Where the status page is (TCP, loopback).
    pub http: SocketAddr,
    /// Version 0's weights as one flat vector; `None` draws them from the run spec. Not used once the run has begun.
    pub start: Option<Vec<f32>>,
    /// Where lines for the person at the terminal go.
    pub say: Say,
}

/// A run that cannot be served. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The dataset is not for this run.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The UDP socket.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The TCP socket.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The way back to the ledger's tip.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The dataset's folder.
    #[error("the dataset cannot be read: {0}")]
    Dataset(#[source] io::Error),
    /// A thread died.
    #[error("the start failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// A run that is ready to be served.
pub struct Server {
    parts: Parts,
    press: Press,
    first: Vec<Action>,
    questions: mpsc::Receiver<Question>,
    endpoint: Endpoint,
    http: TcpListener,
    porch: Arc<Porch>,
    mender: Mender,
    damaged: mpsc::Receiver<Damaged>,
    is_new: bool,
    _lock: StateLock,
}

/// What a ledger belongs to: the run's name is the hash of its spec and of its data.
pub fn run_identity(spec: &RunSpec, manifest: &Manifest) -> RunIdentity {
    // Neither can fail: both are plain data.
    let spec_json = serde_json::to_string(spec).unwrap_or_default();
    let manifest_hash = BlobHash::of(serde_json::to_string(manifest).unwrap_or_default().as_bytes());
    let run_id = RunId(BlobHash::of(&[spec_json.as_bytes(), &manifest_hash.0].concat()).0);
    RunIdentity { run_id, spec_json, manifest_hash }
}

impl Server {
    /// Opens everything that a run needs and comes back to its ledger's tip. Sockets come first: a port that is taken
    /// leaves the state folder as it was, or empty.
    pub async fn open(setup: Setup) -> Result<Server, ServeError> {
        let Setup { spec, dataset, state, listen, http, start, say } = setup;
        engine::check(&spec, dataset.manifest())?;
        let (state, lock, found) = StateFolder::take(&state)?;
        let identity = match found {
            Found::New => Identity::open_or_draw(&*state.disk)?,
            Found::Run => Identity::open(&*state.disk)?,
        };
        let endpoint = quic::endpoint(listen, &identity)?;
        let http = http::listen(http)?;

        let run = run_identity(&spec, dataset.manifest());
        match found {
            Found::New => {
                state.begin()?;
                identity.store(&*state.disk)?;
            }
            Found::Run => {
                look::check(&state.ledger(), look::Depth::Quick).await?;
                let looked = look::look(&state.ledger()).await?;
                state.check_ledger(&looked)?;
                if let Some(known) = looked.key.map(DeviceId).filter(|known| *known != identity.id()) {
                    return Err(LedgerError::OtherKey(known.short()).into());
                }
            }
        }
        let ledger = SqliteLedger::create_or_open(&state.ledger(), &run, wall_now().unix_ms / 1000).await?;
        ledger.adopt_key(identity.id()).await?;
        match state.finish() {
            // A run of an earlier version, on a full disk: it is known without the mark, too.
            Err(error) if found == Found::Run => tracing::warn!("{error}"),
            finished => finished?,
        }
        let facts = ledger.facts().await?;
        let (history, is_new) = (History::of(&facts), facts.versions.is_empty());
        let blobs = state.blobs();
        let (report, damaged) = mpsc::channel(catalog::DAMAGED_MAX);
        let catalog = Arc::new(Catalog::new(&dataset, blobs.clone(), report).map_err(ServeError::Dataset)?);
        let members = Arc::new(Members::default());
        facts.devices.iter().for_each(|device| members.note(device));
        catalog.add(facts.versions.iter().flat_map(|v| v.blobs()));
        let (of_spec, of_blobs) = (spec.clone(), blobs.clone());
        let recovered = tokio::task::spawn_blocking(move || -> Result<_, ServeError> {
            let removed = state::clear_away(&facts, &of_blobs)?;
            tracing::debug!(removed, "cleared away what nothing names");
            let draw = || start.unwrap_or_else(|| of_spec.model.draw_all(of_spec.seed));
            Ok((replay::resume(&of_spec, &facts, &of_blobs, draw)?, facts.versions))
        });
        let (Resumed { merger, restart, lost_deltas, losses }, versions) = recovered.await??;
        for loss in &losses {
            tracing::warn!("{loss}");
            say(&format!("lost      {loss}"));
        }
        if !losses.is_empty() {
            ledger.note_losses(restart.as_ref().map(|(version, _)| *version), &lost_deltas).await?;
        }
        if let Some((version, checkpoint)) = restart
            && let Err(error) = blobs.put_checkpoint(version.0, &checkpoint)
        {
            tracing::warn!("{error}; the next start begins at version {version} anew, which takes longer");
        }
        let press = Press::new(merger, blobs.clone()).remembering(&versions);
        let snapshot = ledger.snapshot(engine::epoch_samples(dataset.manifest(), spec.inner.batch_samples)).await?;
        let counters = ledger.counters().await?;

        let origin = Instant::now();
        let (engine, first) =
            Engine::restore(spec.clone(), dataset.manifest().clone(), run.run_id, ledger.generation(), snapshot, Mono::default());
        let (desk, questions) = desk::open();
        let traffic = Arc::new(Traffic::default());
        let spec = Arc::new(spec);
        let mender = Mender {
            ledger: ledger.clone(),
            spec: spec.clone(),
            blobs: blobs.clone(),
            data: dataset.folder().to_owned(),
            catalog: catalog.clone(),
            desk: desk.clone(),
        };
        let parts = Parts {
            engine,
            ledger,
            blobs: blobs.clone(),
            catalog: catalog.clone(),
            members: members.clone(),
            traffic: traffic.clone(),
            spec,
            history,
            counters,
            origin,
            say,
        };
        let porch = Arc::new(Porch { identity, catalog, blobs, desk, traffic, members, present: Present::default() });
        Ok(Server { parts, press, first, questions, endpoint, http, porch, mender, damaged, is_new, _lock: lock })
    }

    /// Where devices connect.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Where the status page is.
    pub fn http_address(&self) -> io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// A short name of the coordinator's key.
    pub fn fingerprint(&self) -> String {
        self.porch.identity.fingerprint()
    }

    /// Whether the run begins with this start.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Serves until `stop` is done, or until nothing can go on. `ready` is said once the first version stands.
    pub async fn run(self, ready: String, stop: impl Future<Output = ()>) -> Result<(), ShellError> {
        let Server { parts, press, first, questions, endpoint, http, porch, mender, damaged, .. } = self;
        let mending = tokio::spawn(mender::run(mender, damaged));
        let accepting = tokio::spawn(connection::accept(endpoint.clone(), porch.clone()));
        let page = tokio::spawn(http::serve(http, parts.spec.name.clone(), porch));
        let ended = shell::run(parts, press, first, questions, ready, stop).await;
        page.abort();
        mending.abort();
        endpoint.close((CloseCode::Stopping as u32).into(), b"the coordinator is stopping");
        accepting.abort();
        // Whoever does not hear of it finds out by silence.
        let _ = tokio::time::timeout(GOODBYE_MAX, endpoint.wait_idle()).await;
        ended
    }
}

/// What the calendar says.
pub fn wall_now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall { unix_ms: since.as_millis() as u64 }
}
