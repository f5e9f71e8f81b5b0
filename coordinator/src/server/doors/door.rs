//! A door: it serves connections as the leader does, and asks the leader for what must be decided. Its devices stay
//! connected when another process begins to lead: they are told to come again in a moment, and to say hello to it.

use super::link::{Link, LinkError, damaged};
use crate::{
    engine::{self, record::Record},
    identity::Identity,
    replay,
    server::{
        budget::Budget,
        catalog::{self, Catalog, Damaged},
        connection,
        context::{Context, Present},
        disk_reserve::{DiskReserve, FolderSpace},
        doors::Doors,
        handle::{self, Question},
        health::Health,
        http::{self, Names},
        limits::Limits,
        members::Members,
        news::{Knowledge, News},
        opening::run_identity,
        quic,
        rates::Rates,
        setup::{ServeError, Setup},
        state::{Found, StateFolder, StateLock},
        strangers::{self, Strangers},
        stream::Traffic,
        traces::Traces,
        transfer,
        trouble::Say,
        uploads::{Rubbish, Uploads},
        web::Web,
    },
    store::{
        Ledger, LedgerError, LedgerPlace, Shards,
        postgres::leadership::{Leadership, Standing},
    },
};
use nightjar_shared::{
    delta,
    ids::{LeaseId, RunId},
    run_spec::RunSpec,
    shard::Manifest,
    wire::limits::FILES_AT_ONCE_MAX,
};
use quinn::Endpoint;
use std::{
    collections::HashSet,
    future::Future,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

/// How often the leader is told what travelled, and who is here.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How long to wait before a leader is looked for again.
const AGAIN: Duration = Duration::from_millis(500);
/// News that wait to be taken in.
const NEWS_MAX: usize = 1024;

/// Why a door is one no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// This process leads now.
    Leads,
}

/// A process that holds connections for another one.
pub struct Door {
    run: String,
    endpoint: Endpoint,
    http: TcpListener,
    http_names: Names,
    context: Arc<Context>,
    knowledge: Knowledge,
    questions: mpsc::Receiver<Question>,
    damaged: mpsc::Receiver<Damaged>,
    ledger: LedgerPlace,
    shards: Shards,
    is_linked: Arc<AtomicBool>,
    say: Say,
    _lock: StateLock,
}

impl Door {
    /// Opens what a door needs. Nothing is written to the ledger.
    pub async fn open(setup: Setup, http_names: Names) -> Result<Door, ServeError> {
        let Setup { dataset, state, ledger: given, blobs, listen, web, http, say, limits, spans, .. } = setup;
        let (state, lock, found) = StateFolder::take(&state)?;
        if found == Found::New {
            return Err(ServeError::NoKeyYet);
        }
        let identity = Identity::open(&*state.disk)?;
        let place = state.ledger(given.as_ref())?;
        let web = web.then(|| Arc::new(Web::new(&identity)));
        let endpoint = quic::endpoint(listen, &identity, web.as_ref())?;
        let http = http::listen(http)?;
        let (spec, run_id, to_look_into) = spec_of(&place, dataset.manifest()).await?;
        let bucket = state.bucket(blobs.as_ref())?;
        let blobs = state.blobs_to_serve(bucket.as_ref())?;
        let (report, damaged) = mpsc::channel(catalog::DAMAGED_MAX);
        let delta_bytes_max = *delta::bytes_allowed(&spec.model, &spec.delta).end();
        let knowledge = Knowledge {
            members: Arc::new(Members::default()),
            catalog: Arc::new(Catalog::new(&dataset, blobs.clone(), report).map_err(ServeError::Dataset)?),
            uploads: Arc::new(Uploads::new([].iter(), delta_bytes_max)),
            present: Arc::new(Present::new(Arc::default())),
        };
        let space = Box::new(FolderSpace(state.disk.clone()));
        let (handle, questions) = handle::open();
        // Until a leader is found.
        handle.stall(true);
        let reserve = Arc::new(DiskReserve::open(state.disk.clone(), space, &spec));
        let health = Arc::new(Health::new(reserve.clone(), Arc::default(), Instant::now()));
        let spec = Arc::new(spec);
        let context = Arc::new(Context {
            spec: spec.clone(),
            identity,
            web,
            catalog: knowledge.catalog.clone(),
            blobs,
            handle,
            traffic: Arc::new(Traffic::default()),
            members: knowledge.members.clone(),
            present: knowledge.present.clone(),
            doors: Arc::new(Doors::new(Arc::default())),
            strangers: Strangers::new(strangers::Bounds::default()),
            budget: Budget::default(),
            rates: Rates::new(Limits::of(&spec).with(&limits)),
            uploads: knowledge.uploads.clone(),
            files: Arc::new(Semaphore::new(FILES_AT_ONCE_MAX)),
            reserve,
            metrics: Arc::default(),
            traces: Traces::new(spans, run_id),
            health,
            ledger: to_look_into,
        });
        Ok(Door {
            run: spec.name.clone(),
            endpoint,
            http,
            http_names,
            context,
            knowledge,
            questions,
            damaged,
            ledger: place,
            shards: Shards::of(dataset.manifest(), spec.inner.batch_samples),
            is_linked: Arc::default(),
            say,
            _lock: lock,
        })
    }

    /// Where devices connect.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Where its page is.
    pub fn http_address(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Serves until `stop` is done, or until this process leads. `ready` is said once a leader answers.
    pub async fn run(
        mut self,
        leadership: &mut Leadership,
        ready: String,
        stop: impl Future<Output = ()>,
    ) -> Result<Ended, ServeError> {
        let listener = self.http.try_clone().map_err(ServeError::Socket)?;
        let page = http::door::serve(listener, self.run.clone(), self.is_linked.clone(), self.http_names.clone());
        let page = tokio::spawn(page);
        let accepting = tokio::spawn(connection::accept(self.endpoint.clone(), self.context.clone()));
        let ended = tokio::select! {
            () = stop => Ended::Stopped,
            () = self.until_it_leads(leadership, ready) => Ended::Leads,
        };
        page.abort();
        accepting.abort();
        // Their addresses may be wanted again at once.
        let _ = tokio::join!(page, accepting);
        quic::end(self.endpoint).await;
        Ok(ended)
    }

    async fn until_it_leads(&mut self, leadership: &mut Leadership, ready: String) {
        let mut ready = Some(ready);
        loop {
            let leader = match leadership.stand().await {
                Ok(Standing::Leads) => return,
                Ok(Standing::Follows(leader)) => leader,
                Err(error) => {
                    tracing::warn!(%error, "it cannot be seen who leads");
                    None
                }
            };
            if let Some(leader) = leader {
                let followed = self.follow(leader, leadership, &mut ready).await;
                self.context.handle.stall(true);
                self.is_linked.store(false, Ordering::Relaxed);
                match followed {
                    Ok(Standing::Leads) => return,
                    Ok(Standing::Follows(_)) => {}
                    Err(error) => tracing::warn!(%error, "the leader cannot be followed"),
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Serves by what a leader says, as long as it leads and answers.
    async fn follow(
        &mut self,
        leader: SocketAddr,
        leadership: &mut Leadership,
        ready: &mut Option<String>,
    ) -> Result<Standing, FollowError> {
        let link = Link::dial(leader, &self.context.identity).await?;
        let mut newest = link.follow().await?;
        // Whatever is written from here on is told; what was before is in the ledger.
        self.catch_up().await?;
        let (tell, mut told) = mpsc::channel::<Result<News, LinkError>>(NEWS_MAX);
        let _reading = tokio::spawn(async move {
            loop {
                let news = newest.next().await;
                let is_over = news.is_err();
                if tell.send(news).await.is_err() || is_over {
                    return;
                }
            }
        });
        (self.say)(&format!("leader    {leader}"));
        if let Some(ready) = ready.take() {
            (self.say)(&ready);
        }
        self.is_linked.store(true, Ordering::Relaxed);
        self.context.handle.stall(false);
        let mut report_due = interval(REPORT_EVERY);
        report_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asks = JoinSet::new();
        let mut other = pin!(leadership.until_other_than(leader));
        let ended = loop {
            tokio::select! {
                Some(question) = self.questions.recv() => {
                    drop(asks.spawn(link.clone().forward(question, self.context.blobs.clone())));
                }
                Some(_) = asks.join_next() => {}
                news = told.recv() => match news {
                    Some(Ok(news)) => {
                        self.context.traces.heard(&news);
                        for rubbish in self.knowledge.take(&news) {
                            self.clear_away(rubbish);
                        }
                    }
                    Some(Err(error)) => break Err(error.into()),
                    None => break Ok(Standing::Follows(None)),
                },
                Some(Damaged { hash, .. }) = self.damaged.recv() => {
                    let link = link.clone();
                    asks.spawn(async move { link.tell(damaged(hash)).await });
                }
                _ = report_due.tick() => {
                    let (link, context) = (link.clone(), self.context.clone());
                    asks.spawn(async move {
                        let ((up, down), refused) = (context.traffic.take(), context.rates.take());
                        if link.report((up, down), &refused, &context.present.devices()).await.is_err() {
                            context.traffic.put_back(up, down);
                            context.rates.put_back(&refused);
                        }
                    });
                }
                standing = &mut other => break Ok(standing),
            }
        };
        self.context.handle.stall(true);
        link.close();
        // Each is answered, if only with a word to come again.
        while asks.join_next().await.is_some() {}
        ended
    }

    /// Takes in all that the ledger has.
    async fn catch_up(&self) -> Result<(), FollowError> {
        let ledger = self.ledger.open_to_read().await?.ledger;
        let snapshot = ledger.snapshot(&self.shards).await?;
        let lineage = ledger.lineage(replay::since(&self.context.blobs).map_err(ServeError::Blob)?).await?;
        ledger.close().await;
        snapshot.devices.iter().for_each(|device| self.knowledge.members.note(&(&device.record).into()));
        self.knowledge.catalog.add(lineage.versions.iter().flat_map(|version| version.published()));
        let open: HashSet<LeaseId> = snapshot.open_leases.iter().map(|lease| lease.id).collect();
        self.knowledge.uploads.end_all_but(|id| open.contains(&id));
        for lease in snapshot.open_leases {
            if let Some(news) = News::of(&Record::LeaseIssued(lease)) {
                self.context.traces.heard(&news);
                self.knowledge.take(&news);
            }
        }
        Ok(())
    }

    fn clear_away(&self, rubbish: Rubbish) {
        let (blobs, files, uploads) =
            (self.context.blobs.clone(), self.context.files.clone(), self.context.uploads.clone());
        tokio::spawn(async move {
            let cleared = transfer::blocking(&files, move || transfer::clear(&uploads, &blobs, rubbish)).await;
            if let Ok(Err(error)) = cleared {
                tracing::warn!(%error, "what a lease left behind could not be removed");
            }
        });
    }
}

/// A leader that cannot be followed now.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// The run's spec, by its ledger: the leader's word counts, not this process's file. And the ledger, to look into.
async fn spec_of(place: &LedgerPlace, manifest: &Manifest) -> Result<(RunSpec, RunId, Arc<dyn Ledger>), ServeError> {
    let opened = place.open_to_read().await?;
    let damaged = |_| LedgerError::Damaged("its run spec cannot be read");
    let spec: RunSpec = serde_json::from_str(&opened.identity.spec_json).map_err(damaged)?;
    engine::check(&spec, manifest)?;
    if opened.identity.manifest_hash != run_identity(&spec, manifest).manifest_hash {
        return Err(LedgerError::OtherData.into());
    }
    Ok((spec, opened.identity.run_id, opened.ledger))
}
