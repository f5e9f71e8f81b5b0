//! Serving a run: opens all that it needs, comes back to where it was, and ends in order.

use super::{
    budget::Budget,
    catalog::{self, Catalog, Damaged},
    clock::wall_now,
    connection,
    context::{Context, Present},
    disk_reserve::{DiskReserve, FolderSpace, Space},
    doors::Doors,
    feed::{Begun, Devices, Feed},
    handle::{self, Question},
    health::Health,
    history::History,
    http,
    keeper::{self, Keeper},
    limits::Limits,
    members::Members,
    metrics::Metrics,
    news::Knowledge,
    opening::{LOCKED_AGAIN, LOCKED_MAX, LedgerOfRun, claim, ordered, run_identity},
    public::{self, Join},
    quic,
    rates::Rates,
    repair::{self, Repairer},
    setup::{ServeError, Setup},
    shell::{self, Parts, ShellError},
    start::{self, Progress},
    state::{self, Found, Known, StateFolder, StateLock},
    store_watch,
    strangers::{self, Strangers},
    stream::Traffic,
    traces::Traces,
    track::{Points, Tracker},
    trouble::Troubles,
    uploads::Uploads,
    web::Web,
    wish::Wishes,
};
use crate::{
    engine::{self, Engine, event::Action},
    identity::Identity,
    replay::{self, Resumed},
    store::{Kept, Lineage, OpenLedger, Publisher, RunIdentity, Shards},
};
use nightjar_shared::{delta, disk::FolderDisk, ids::Version, time::Mono, wire::limits::FILES_AT_ONCE_MAX};
use quinn::Endpoint;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

/// A run that lost a delta is taken up without it, if it was served for so long before: what comes at once comes again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Why a run is served no longer. Nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The event loop cannot go on.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// Nor could the run be taken up without what was lost.
    #[error("a merged delta was lost, and the run cannot be taken up without it: {0}")]
    Again(#[source] Box<ServeError>),
}

/// A run that is ready to be served.
pub struct Server {
    parts: Parts,
    publisher: Publisher,
    first: Vec<Action>,
    questions: mpsc::Receiver<Question>,
    endpoint: Endpoint,
    http: TcpListener,
    http_names: http::Names,
    /// Where the public page is, if there is one.
    public: Option<Arc<TcpListener>>,
    context: Arc<Context>,
    repairer: Repairer,
    damaged: mpsc::Receiver<Damaged>,
    keeper: Keeper,
    is_new: bool,
    /// What the run file has otherwise than before this start, in words.
    changes: Vec<String>,
    /// What it was opened with, on the addresses that it has.
    setup: Setup,
    _lock: StateLock,
}

impl Server {
    /// Opens everything that a run needs and comes back to its ledger's tip. Sockets come first: a port that is taken
    /// leaves the state folder as it was, or empty.
    pub async fn open(setup: Setup) -> Result<Server, ServeError> {
        Self::open_on(setup, |disk| Box::new(FolderSpace(disk))).await
    }

    /// The same, with another word on how much room the disk has.
    pub async fn open_on(
        setup: Setup,
        space: impl FnOnce(Arc<FolderDisk>) -> Box<dyn Space>,
    ) -> Result<Server, ServeError> {
        let again = Setup { start: None, ..setup.clone() };
        let Setup {
            spec,
            dataset,
            state,
            ledger: given,
            blobs,
            listen,
            web,
            http,
            start,
            say,
            limits,
            spans,
            track,
            page: _,
        } = setup;
        let limits = Limits::of(&spec).with(&limits);
        engine::check(&spec, dataset.manifest())?;
        let (state, lock, found) = StateFolder::take(&state)?;
        let identity = match found {
            Found::New => Identity::open_or_draw(&*state.disk)?,
            Found::Run => Identity::open(&*state.disk)?,
        };
        let (place, bucket) = (state.ledger(given.as_ref())?, state.bucket(blobs.as_ref())?);
        let blobs = state.blobs_to_serve(bucket.as_ref())?;
        let web = web.then(|| Arc::new(Web::new(&identity)));
        let endpoint = quic::endpoint(listen, &identity, web.as_ref())?;
        let http = http::listen(http)?;
        store_watch::reached(&blobs, &say).await?;

        let run = run_identity(&spec, dataset.manifest());
        if found == Found::New {
            state.begin()?;
            identity.store(&*state.disk)?;
        }
        let identity = identity.with_spare(&*state.disk)?;
        let reserve = Arc::new(DiskReserve::open(state.disk.clone(), space(state.disk.clone()), &spec));
        let ledger = LedgerOfRun { state: &state, blobs: &blobs, place: &place, run: &run, found, key: identity.id() };
        let opened = ledger.open(&reserve, &say).await?;
        let OpenLedger { ledger, identity: RunIdentity { run_id, .. }, mut changes } = opened;
        claim(&blobs, run_id, identity.id()).await?;
        state.note_ledger(&place)?;
        state.note_bucket(bucket.as_ref())?;
        match state.finish() {
            // A run of an earlier version, on a full disk: it is known without the mark, too.
            Err(error) if found == Found::Run => tracing::warn!("{error}"),
            finished => finished?,
        }
        let shards = Shards::of(dataset.manifest(), spec.inner.batch_samples);
        start::add_up(&*ledger, &shards, &say).await?;
        for unfit in ledger.end_unfit_leases(&shards, wall_now()).await? {
            say(&format!("note      a lease that makes no sense is ended: {unfit}"));
        }
        let (mut snapshot, counters) = (ledger.snapshot(&shards).await?, ledger.counters().await?);
        changes.extend(ordered(&snapshot.standing, &spec));
        let lineage = ledger.lineage(replay::since(&blobs)?).await?;
        let history = History::taken_up(&lineage, &ledger.curves().await?);
        let tracker = Tracker::open(&track, &run_id.short(), Points::taken_up(&history, &lineage))?;
        let newest = lineage.versions.last().map(|v| v.version);
        let traces = Traces::new(spans, run_id);
        traces.take_up(&snapshot.open_leases, &lineage);
        let is_new = newest.is_none();
        if let Some(start) = start.as_ref().filter(|_| is_new) {
            start.companions.keep(&*state.disk).map_err(ServeError::Companions)?;
        }
        let (report, damaged) = mpsc::channel(catalog::DAMAGED_MAX);
        let catalog = Arc::new(Catalog::new(&dataset, blobs.clone(), report).map_err(ServeError::Dataset)?);
        let members = Arc::new(Members::default());
        snapshot.devices.iter().for_each(|device| members.note(&(&device.record).into()));
        let Kept { first_version, removed_versions, .. } = lineage.kept;
        snapshot.versions.retain(|v| v.version >= first_version);
        // Devices on their way over versions that were given up still find them.
        catalog.add(lineage.versions.iter().filter(|v| v.version >= removed_versions).flat_map(|v| v.published()));
        let known = Known::of(&*ledger, &blobs, newest, snapshot.open_leases.len(), wall_now()).await?;
        let (of_spec, of_blobs, of_ledger) = (spec.clone(), blobs.clone(), ledger.clone());
        let (drawn, to_replay) = (Progress::default(), start::deltas_to_replay(&lineage, &blobs));
        let (of_drawing, parameters) = (drawn.clone(), spec.model.parameters() as u64);
        let recovered = tokio::task::spawn_blocking(move || -> Result<_, ServeError> {
            let cleared = known.map(|known| state::clear_away(known, &of_blobs, &of_spec.model)).transpose()?;
            let cleared = cleared.unwrap_or_default();
            tracing::debug!(cleared.removed, "cleared away what nothing names");
            let mut start = start.map(|start| start.weights);
            let mut draw = || start.take().unwrap_or_else(|| start::draw(&of_spec.model, of_spec.seed, &of_drawing));
            let whole = || Handle::current().block_on(of_ledger.lineage(Version(0)));
            let resume = |lineage: &Lineage| replay::resume(&of_spec, lineage, &of_blobs, &mut draw);
            Ok((replay::reaching_back(&lineage, whole, resume)?, lineage.versions, cleared.note))
        });
        let recovered = tokio::select! {
            recovered = recovered => recovered,
            never = start::tell("drawing the first weights", parameters, || drawn.get(), &say), if is_new => match never {},
            never = start::tell("merging the newest deltas again", to_replay, || blobs.reads(), &say), if !is_new => match never {},
        };
        let (Resumed { merger, restart, lost_deltas, losses }, versions, kept) = recovered??;
        for note in kept.into_iter().chain(state.note_to_tell()) {
            say(&format!("note      {note}"));
        }
        for loss in &losses {
            tracing::warn!("{loss}");
            say(&format!("lost      {loss}"));
        }
        if !losses.is_empty() {
            ledger.note_losses(restart.as_ref().map(|(version, _)| *version), &lost_deltas).await?;
        }
        if let Some((version, checkpoint)) = restart
            && let Err(error) = blobs.add_checkpoint(version.0, &checkpoint)
        {
            tracing::warn!("{error}; the next start begins at version {version} anew, which takes longer");
        }
        let publisher = Publisher::new(merger, blobs.clone()).remembering(&versions).keeping_checkpoints();
        let delta_bytes_max = *delta::bytes_allowed(&spec.model, &spec.delta).end();
        let uploads = Arc::new(Uploads::new(snapshot.open_leases.iter(), delta_bytes_max));

        let devices = Arc::new(Devices::restored(&snapshot));
        let origin = Instant::now();
        let (engine, first) = Engine::restore(
            spec.clone(),
            dataset.manifest().clone(),
            run_id,
            ledger.generation(),
            snapshot,
            Mono::default(),
        );
        let (handle, questions) = handle::open();
        let (traffic, doors) = (Arc::new(Traffic::default()), Arc::new(Doors::new(devices.clone())));
        let spec = Arc::new(spec);
        let troubles = Arc::new(Troubles::default());
        let metrics = Arc::new(Metrics::default());
        let health = Arc::new(Health::new(reserve.clone(), troubles.clone(), origin.into_std()));
        let feed = Arc::new(Feed::begin(Begun {
            spec: spec.clone(),
            ledger: ledger.clone(),
            devices: devices.clone(),
            history,
            status: engine.status(),
            counters,
            traffic: traffic.clone(),
            reserve: reserve.clone(),
            troubles: troubles.clone(),
        }));
        let repairer = Repairer {
            ledger: ledger.clone(),
            spec: spec.clone(),
            blobs: blobs.clone(),
            data: dataset.folder().to_owned(),
            catalog: catalog.clone(),
            handle: handle.clone(),
            troubles: troubles.clone(),
        };
        let (keep, rule) = watch::channel(spec.keep.clone());
        let keeper = Keeper {
            ledger: ledger.clone(),
            blobs: blobs.clone(),
            catalog: catalog.clone(),
            handle: handle.clone(),
            rule,
        };
        let files = Arc::new(Semaphore::new(FILES_AT_ONCE_MAX));
        let (present, of_connections, of_operators) = (Arc::new(Present::new(devices)), ledger.clone(), spec.clone());
        let parts = Parts {
            engine,
            ledger,
            blobs: blobs.clone(),
            knowledge: Knowledge {
                members: members.clone(),
                catalog: catalog.clone(),
                uploads: uploads.clone(),
                present: present.clone(),
            },
            doors: doors.clone(),
            traffic: traffic.clone(),
            spec,
            feed: feed.clone(),
            tracker,
            origin,
            say,
            handle: handle.clone(),
            reserve: reserve.clone(),
            files: files.clone(),
            troubles,
            metrics: metrics.clone(),
            traces: traces.clone(),
            health: health.clone(),
            keep,
        };
        let context = Arc::new(Context {
            spec: of_operators,
            identity,
            web,
            catalog,
            blobs,
            handle,
            traffic,
            members,
            present,
            doors,
            strangers: Strangers::new(strangers::Bounds::default()),
            budget: Budget::default(),
            rates: Rates::new(limits),
            uploads,
            files,
            reserve,
            metrics,
            traces,
            health,
            ledger: of_connections,
        });
        let http_names = http::Names::default();
        let (listen, at) =
            (endpoint.local_addr().map_err(ServeError::Socket)?, http.local_addr().map_err(ServeError::Socket)?);
        let setup = Setup { listen, http: at, ..again };
        Ok(Server {
            parts,
            publisher,
            first,
            questions,
            endpoint,
            http,
            http_names,
            public: None,
            context,
            repairer,
            damaged,
            keeper,
            is_new,
            changes,
            setup,
            _lock: lock,
        })
    }

    /// Has the status page answer to these names too, besides `localhost` and addresses.
    pub fn with_http_names(mut self, names: Vec<String>) -> Self {
        self.http_names = http::Names::new(names);
        self
    }

    /// Has a public page besides, on a socket that [`public::listen`] opened.
    pub fn with_public_page(mut self, listener: TcpListener) -> Self {
        self.public = Some(Arc::new(listener));
        self
    }

    /// Where devices connect.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Where the status page is.
    pub fn http_address(&self) -> io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// What answers on the status page's address, for connections that come another way.
    pub fn pages(&self) -> http::Pages {
        let Parts { spec, feed, .. } = &self.parts;
        http::Pages::new(spec.name.clone(), self.context.clone(), feed.clone(), self.http_names.clone())
    }

    /// A short name of the coordinator's key.
    pub fn fingerprint(&self) -> String {
        self.context.identity.fingerprint()
    }

    /// Whether the run begins with this start.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What the run file has otherwise than before this start, in words.
    pub fn changes(&self) -> &[String] {
        &self.changes
    }

    /// Serves until an end is wanted, or until nothing can go on. `ready` is said once the first version stands.
    pub async fn run(self, ready: String, wishes: &mut Wishes) -> Result<(), EndError> {
        let (mut setup, http_names, public) = (self.setup.clone(), self.http_names.clone(), self.public.clone());
        let mut server = self;
        loop {
            let begun = Instant::now();
            let error = match server.until_ended(ready.clone(), wishes).await {
                Err(error) if error.is_of_lost_delta() && begun.elapsed() > AGAIN_AFTER => error,
                ended => return Ok(ended?),
            };
            if let Some(spec) = wishes.taken_over() {
                setup.spec = spec;
            }
            // What a start does for lost deltas is what is right here too.
            (setup.say)(&format!("lost      {error}; the run is taken up without it"));
            server = tokio::select! {
                opened = open_again(&setup) => opened.map_err(|e| EndError::Again(Box::new(e)))?,
                () = wishes.end() => return Ok(()),
            };
            (server.http_names, server.public) = (http_names.clone(), public.clone());
        }
    }

    async fn until_ended(self, ready: String, wishes: &mut Wishes) -> Result<(), ShellError> {
        let pages = self.pages();
        let page_files = self.setup.page.clone();
        let Server {
            parts,
            publisher,
            first,
            questions,
            endpoint,
            http,
            public,
            context,
            repairer,
            damaged,
            keeper,
            ..
        } = self;
        let repairing = tokio::spawn(repair::run(repairer, damaged));
        let keeping = tokio::spawn(keeper::run(keeper));
        let watching = tokio::spawn(store_watch::run(parts.blobs.clone(), parts.troubles.clone()));
        let join = page_files.map(|files| Join { files, context: context.clone() });
        let accepting = tokio::spawn(connection::accept(endpoint.clone(), context));
        let public = public.and_then(|listener| listener.try_clone().ok());
        let public = public.map(|listener| tokio::spawn(public::serve(listener, parts.feed.clone(), join)));
        let page = tokio::spawn(http::serve(http, pages));
        let ended = shell::run(parts, publisher, first, questions, ready, wishes).await;
        page.abort();
        public.iter().for_each(JoinHandle::abort);
        repairing.abort();
        watching.abort();
        keeping.abort();
        // Their addresses may be wanted again at once.
        let _ = tokio::join!(page, repairing, keeping);
        accepting.abort();
        let _ = accepting.await;
        quic::end(endpoint).await;
        ended
    }
}

/// Opens a run that was served until now. Connections that end keep its addresses for a moment.
async fn open_again(setup: &Setup) -> Result<Server, ServeError> {
    let begun = Instant::now();
    loop {
        match Server::open(setup.clone()).await {
            Err(error) if error.is_in_use() && begun.elapsed() < LOCKED_MAX => tokio::time::sleep(LOCKED_AGAIN).await,
            opened => return opened,
        }
    }
}
