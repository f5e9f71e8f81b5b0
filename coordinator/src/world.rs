//! For tests: a shell around the engine without a network. A ledger in memory, a clock that is moved by hand, and
//! versions that are only names, or, with [`World::with_weights`], real ones.

use crate::{
    engine::{
        Engine, epoch_samples,
        event::{self, Action, Event, Measured, MergeOrder, ReplyTo},
        merge::Merger,
        orders::{Giver, NotDone, Obeyed, Order},
        record::{Record, VersionRecord},
    },
    replay,
    store::{Blobs, Measure, MemoryLedger, Publisher, Shards},
};
use nightjar_shared::{
    blob::BlobRef,
    delta,
    disk::{Disk, FolderDisk},
    ids::{BlobHash, DeviceId, LeaseId, RunId, Version},
    lease::{LeaseKind, Trained},
    model_spec::ModelSpec,
    rng,
    run_spec::{Pacing, RunSpec},
    shard::{Manifest, ShardInfo},
    time::{Mono, Wall},
    version::Weights,
    wire::{
        DeltaOffer, Done, Hello, Invite, Lease, LeaseRenew, LeaseRequest, LeaseReturn, Refusal, RefusalCode, Role,
        coordinator_message::Body, device_message as ask,
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub struct World {
    pub spec: RunSpec,
    pub manifest: Manifest,
    pub ledger: MemoryLedger,
    pub engine: Engine,
    pub now: Mono,
    /// By how much the calendar is ahead of the clock: a suspended machine's clock stands still.
    pub calendar_ahead_s: u64,
    /// What every lease costs a device besides training, in seconds.
    pub overhead_s: f64,
    /// When leases were granted, and their steps.
    granted: BTreeMap<u64, (Mono, u32)>,
    /// What a measurement of the next delta says; `None`: what an honest one is like.
    pub measured: Option<Result<Measured, String>>,
    /// Whether the publisher takes its time: versions are made, and [`World::deliver`] tells the engine so.
    pub publisher_is_slow: bool,
    /// How far the deltas of the next versions agree.
    pub agreement: Option<f64>,
    made: Option<event::Published>,
    /// Orders to the merger, since the world began.
    pub merged: Vec<MergeOrder>,
    /// All commits, since the world began.
    pub commits: Vec<Vec<Record>>,
    /// Where there are real weights: what merges them, and their blobs.
    pub weights: Option<(Publisher, Blobs)>,
    /// Actions that are still performed; then the process is dead, until it is started anew.
    pub actions_left: usize,
    /// What came of the last order.
    obeyed: Option<Result<Obeyed, NotDone>>,
    answers: BTreeMap<ReplyTo, Body>,
    /// Who asked what was not answered at once.
    unanswered: BTreeMap<ReplyTo, DeviceId>,
    asked: u64,
}

/// A run on samples of 4 tokens, 2 a step, so 8 tokens a step; 10 seconds a lease.
pub fn spec() -> RunSpec {
    let mut spec: RunSpec = serde_json::from_str(r#"{"name": "test", "token_budget": 1000000}"#).unwrap();
    spec.model.max_position_embeddings = 4;
    spec.inner.batch_samples = 2;
    (spec.inner.warmup, spec.inner.floor) = (0.0, 1.0);
    (spec.lease.pacing, spec.lease.wall_s, spec.lease.ahead) = (Pacing::Free, 10.0, false);
    spec.lease.wall_s_min = None;
    (spec.merge.quorum, spec.merge.grace_s) = (Some(2), Some(0.0));
    spec.publish.keyframe_every = 4;
    spec
}

/// Two shards of 100 samples, the second with one that makes no batch; 10 held-out samples.
pub fn manifest() -> Manifest {
    let shard = |name: u8, samples: u32| ShardInfo {
        hash: BlobHash([name; 32]),
        bytes: 99,
        samples,
        text_bytes: 4 * u64::from(samples),
    };
    Manifest {
        format: 1,
        context: 4,
        vocab_size: 256,
        tokenizer: None,
        end_of_text: None,
        train: vec![shard(1, 100), shard(2, 101)],
        heldout: vec![shard(3, 10)],
    }
}

pub fn device(number: u8) -> DeviceId {
    DeviceId([number; 32])
}

pub fn invite(role: Role) -> Invite {
    Invite { role: role as i32, nonce: vec![role as u8], ..Invite::default() }
}

pub fn hello(role: Role, kinds: &[LeaseKind]) -> Hello {
    let kinds = kinds.iter().map(|kind| kind.to_wire()).collect();
    Hello {
        role: role as i32,
        codecs: vec![1, 2, 3, 4, 5],
        kinds,
        name: "night owl".into(),
        device: "flex".into(),
        ..Hello::default()
    }
}

impl World {
    pub fn new(spec: RunSpec, manifest: Manifest) -> Self {
        let mut world = Self::prepare(spec, manifest);
        world.restart();
        world
    }

    /// With a small model, whose blobs are on this disk.
    pub fn with_weights(mut spec: RunSpec, manifest: Manifest, disk: Arc<dyn Disk>) -> Self {
        spec.model = ModelSpec { hidden_size: 8, intermediate_size: 5, num_hidden_layers: 1, ..spec.model };
        let blobs = Blobs::new(disk);
        let merger = Merger::start(spec.clone(), &spec.model.draw_all(1));
        let mut world = Self::prepare(spec, manifest);
        world.weights = Some((Publisher::new(merger, blobs.clone()), blobs));
        world.restart();
        world
    }

    fn prepare(spec: RunSpec, manifest: Manifest) -> Self {
        let (ledger, engine, _) = start(&spec, &manifest, &MemoryLedger::new(), Mono::default());
        World {
            spec,
            manifest,
            ledger,
            engine,
            now: Mono::default(),
            calendar_ahead_s: 0,
            overhead_s: 0.0,
            granted: BTreeMap::new(),
            measured: None,
            publisher_is_slow: false,
            agreement: None,
            made: None,
            merged: vec![],
            commits: vec![],
            weights: None,
            actions_left: usize::MAX,
            obeyed: None,
            answers: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            asked: 0,
        }
    }

    /// Kills the process and starts another on the same ledger.
    pub fn restart(&mut self) {
        self.actions_left = usize::MAX;
        self.made = None;
        if let Some((publisher, blobs)) = &mut self.weights {
            let merger =
                replay::recover(&self.spec, &self.ledger.facts().lineage, blobs, || self.spec.model.draw_all(1))
                    .unwrap();
            *publisher = Publisher::new(merger, blobs.clone()).remembering(&self.ledger.facts().lineage.versions);
        }
        let (ledger, engine, actions) = start(&self.spec, &self.manifest, &self.ledger, self.now);
        (self.ledger, self.engine) = (ledger, engine);
        self.perform(actions);
    }

    pub fn wait(&mut self, seconds: f64) {
        self.now = self.now + Duration::from_secs_f64(seconds);
    }

    pub fn handle(&mut self, event: Event) {
        if self.actions_left > 0 {
            let actions = self.engine.handle(
                event,
                self.now,
                Wall { unix_ms: 1_000_000 + self.now.ms + 1000 * self.calendar_ahead_s },
            );
            self.perform(actions);
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            if self.actions_left == 0 {
                return;
            }
            self.actions_left -= 1;
            match action {
                Action::Commit(records) => {
                    self.ledger.commit(&records).unwrap();
                    self.commits.push(records);
                }
                Action::Reply { to, body } => drop(self.answers.insert(to, body)),
                Action::Obeyed { done, .. } => self.obeyed = Some(done),
                Action::MeasureDelta { to, device, offer } => {
                    let measured = self.measure(&offer.trained);
                    self.handle(Event::DeltaMeasured { reply_to: to, device, offer, measured });
                }
                Action::Merge(order) => {
                    if let Some((publisher, _)) = &mut self.weights {
                        publisher.merge(&order).unwrap();
                    }
                    self.merged.push(order);
                }
                Action::Publish { version, keyframe, through_seq, given } => {
                    self.made = Some(self.publish(version, keyframe, through_seq, given));
                    if !self.publisher_is_slow {
                        self.deliver();
                    }
                }
            }
        }
    }

    /// The engine hears of the version that was made.
    pub fn deliver(&mut self) {
        if let Some(published) = self.made.take() {
            self.handle(Event::Published(published));
        }
    }

    fn measure(&self, trained: &Trained) -> Result<Measured, String> {
        match &self.weights {
            None => self
                .measured
                .clone()
                .unwrap_or_else(|| Ok(Measured { norm: self.honest_norm(trained.steps), largest: 0.0 })),
            Some((_, blobs)) => match blobs.measure(&self.spec, trained.delta).unwrap() {
                Measure::Done(measured) => measured,
                Measure::Missing { .. } => panic!("the delta is to be stored before it is offered"),
            },
        }
    }

    /// A third of the way that so many steps can lead.
    pub fn honest_norm(&self, steps: u32) -> f64 {
        let progress = self.engine.status().tokens as f64 / self.spec.token_budget as f64;
        0.3 * self.spec.inner.learning_rate_at(progress)
            * f64::from(steps)
            * (self.spec.model.parameters() as f64).sqrt()
    }

    fn publish(
        &mut self,
        version: Version,
        keyframe: bool,
        through_seq: u64,
        given: Option<BlobRef>,
    ) -> event::Published {
        if let Some((publisher, _)) = &mut self.weights {
            return publisher.publish(version, keyframe, given).unwrap();
        }
        let name = |kind: u8| BlobRef { hash: BlobHash([kind.wrapping_add(version.0 as u8); 32]), bytes: 50 };
        event::Published {
            version,
            update: (version.0 > 0 && given.is_none()).then(|| name(0)),
            keyframe: keyframe.then(|| name(100)),
            digest: [version.0 as u8; 32],
            through_seq,
            agreement: self.agreement,
            squashes: vec![],
            given,
        }
    }

    /// Asks; `None` if the process died before it answered.
    pub fn try_ask(&mut self, device: DeviceId, body: ask::Body, invite: Option<Invite>) -> Option<Body> {
        self.asked += 1;
        let reply_to = ReplyTo(self.asked);
        self.handle(Event::Asked { device, reply_to, body, invite });
        let answer = self.answers.remove(&reply_to);
        if answer.is_none() {
            self.unanswered.insert(reply_to, device);
        }
        answer
    }

    /// Leases granted in answers that had been held back.
    pub fn held_answers(&self) -> Vec<(DeviceId, Lease)> {
        let lease = |to: &ReplyTo| match self.answers.get(to) {
            Some(Body::Lease(lease)) => Some(lease.clone()),
            _ => None,
        };
        self.unanswered.iter().filter_map(|(to, device)| Some((*device, lease(to)?))).collect()
    }

    /// Requests that nobody has answered yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered.keys().filter(|to| !self.answers.contains_key(to)).count()
    }

    /// An operator orders something.
    pub fn order(&mut self, order: Order) -> Result<Obeyed, NotDone> {
        let giver = Giver { name: "ann".into(), from: "192.0.2.1".into() };
        self.handle(Event::Ordered { reply_to: ReplyTo(0), order, giver });
        self.obeyed.take().expect("an answer")
    }

    pub fn tick(&mut self) {
        self.handle(Event::Tick);
    }

    pub fn ask(&mut self, device: DeviceId, body: ask::Body) -> Body {
        self.try_ask(device, body, None).expect("an answer")
    }

    pub fn join(&mut self, device: DeviceId, role: Role, kinds: &[LeaseKind]) -> Body {
        self.try_ask(device, ask::Body::Hello(hello(role, kinds)), Some(invite(role))).expect("an answer")
    }

    /// Enrols a volunteer that trains.
    pub fn volunteer(&mut self, number: u8) -> DeviceId {
        let id = device(number);
        assert!(matches!(self.join(id, Role::Volunteer, &[LeaseKind::Train]), Body::Welcome(_)));
        id
    }

    pub fn request(&mut self, device: DeviceId) -> Body {
        self.ask(device, ask::Body::LeaseRequest(LeaseRequest::default()))
    }

    pub fn lease(&mut self, device: DeviceId) -> Lease {
        match self.request(device) {
            Body::Lease(lease) => {
                self.granted.insert(lease.id, (self.now, lease.steps));
                lease
            }
            other => panic!("expected a lease, got {other:?}"),
        }
    }

    pub fn renew(&mut self, device: DeviceId, lease: &Lease) {
        let renew = LeaseRenew { lease_id: lease.id, generation: lease.generation, steps_done: 0 };
        assert!(matches!(self.ask(device, ask::Body::LeaseRenew(renew)), Body::Done(_)));
    }

    pub fn give_back(&mut self, device: DeviceId, lease: &Lease) {
        let back = LeaseReturn { lease_id: lease.id, generation: lease.generation, why: String::new() };
        assert!(matches!(self.ask(device, ask::Body::LeaseReturn(back)), Body::Done(_)));
    }

    /// As an honest device does: after a fortieth of a second a step at least.
    pub fn offer(&mut self, device: DeviceId, offer: DeltaOffer) -> Body {
        if let Some((granted, steps)) = self.granted.get(&offer.lease_id) {
            let least = Duration::from_millis(25 * u64::from(offer.steps.min(*steps)));
            self.now = self.now.max(*granted + least);
        }
        self.offer_at_once(device, offer)
    }

    pub fn offer_at_once(&mut self, device: DeviceId, offer: DeltaOffer) -> Body {
        self.ask(device, ask::Body::DeltaOffer(offer))
    }

    /// The honest offer for the whole of a lease; its delta, where weights are real, is stored.
    pub fn offer_for(&self, lease: &Lease) -> DeltaOffer {
        let least = *delta::bytes_allowed(&self.spec.model, &self.spec.delta).start();
        let hash = match &self.weights {
            None => named(lease.id),
            Some((_, blobs)) => {
                let n = self.spec.model.parameters();
                let step = 0.3 * self.spec.inner.learning_rate * f64::from(lease.steps);
                let change = |i| (step * rng::normal(lease.id, 0, i as u64)) as f32;
                let change: Vec<f32> = (0..n).map(change).collect();
                blobs.put(&delta::encode(&self.spec.model, &self.spec.delta, &change, &mut vec![0.0; n])).unwrap()
            }
        };
        let stored = self.weights.as_ref().and_then(|(_, blobs)| blobs.length(hash).unwrap());
        let bytes = stored.unwrap_or(least);
        let taken_s = self.granted.get(&lease.id).map_or(0.0, |(at, _)| self.now.since(*at).as_secs_f64());
        DeltaOffer {
            lease_id: lease.id,
            generation: lease.generation,
            delta: Some(BlobRef { hash, bytes }.to_wire()),
            steps: lease.steps,
            samples: lease.samples,
            train_ms: ((taken_s - self.overhead_s).max(0.0) * 1000.0) as u64,
            loss_first: 5.5,
            loss_last: 5.4,
        }
    }

    /// Trains a lease at `tokens_per_s` and offers the delta.
    pub fn train(&mut self, device: DeviceId, lease: &Lease, tokens_per_s: f64) -> Done {
        self.wait(self.overhead_s + f64::from(lease.samples) * 4.0 / tokens_per_s);
        match self.offer(device, self.offer_for(lease)) {
            Body::Done(done) => done,
            other => panic!("expected an acknowledgement, got {other:?}"),
        }
    }

    pub fn shards(&self) -> Shards {
        Shards::of(&self.manifest, self.spec.inner.batch_samples)
    }

    pub fn epoch_samples(&self) -> u64 {
        epoch_samples(&self.manifest, self.spec.inner.batch_samples)
    }

    /// The ledger holds together, and the engine is nothing but a cache of it.
    pub fn check(&self) {
        let report = replay::verify_facts(&self.spec, &self.manifest, &self.ledger.facts());
        assert!(report.passed(), "{report:#?}");
        assert_eq!(self.engine.agrees_with(&self.ledger.snapshot(&self.shards())), Ok(()));
    }

    pub fn is_merged(&self, lease: &Lease) -> bool {
        self.ledger.facts().lineage.deltas.iter().any(|d| d.lease == LeaseId(lease.id))
    }
}

/// Versions with real weights, with keyframes now and then, as the publisher makes them.
pub struct Published {
    pub model: ModelSpec,
    pub blobs: Blobs,
    pub records: Vec<VersionRecord>,
    pub weights: Vec<Weights>,
    _folder: tempfile::TempDir,
}

/// Versions 0 to `newest`, each of one delta.
pub fn published(seed: u64, newest: u64) -> Published {
    let mut spec = spec();
    spec.model = ModelSpec { vocab_size: 40, hidden_size: 8, intermediate_size: 5, num_hidden_layers: 1, ..spec.model };
    spec.publish.codec = [delta::CodecId::Blocks8, delta::CodecId::Blocks4, delta::CodecId::Blocks2][seed as usize % 3];
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(Arc::new(FolderDisk::open(folder.path()).unwrap()));
    let n = spec.model.parameters();
    let mut publisher = Publisher::new(Merger::start(spec.clone(), &spec.model.draw_all(seed)), blobs.clone());
    let (mut records, mut weights) = (vec![], vec![]);
    for version in 0..=newest {
        if version > 0 {
            let change: Vec<f32> = (0..n).map(|i| (1e-3 * rng::normal(seed, version, i as u64)) as f32).collect();
            let delta = blobs.put(&delta::encode(&spec.model, &spec.delta, &change, &mut vec![0.0; n])).unwrap();
            publisher
                .merge(&MergeOrder { seq: version, lease: LeaseId(version), delta, tokens: 8, weight: 1.0 })
                .unwrap();
        }
        let is_keyframe = version == 0 || rng::draw(seed, 9, version).is_multiple_of(1 << (2 + seed % 5));
        let event::Published { version, update, keyframe, digest, through_seq, squashes, given, .. } =
            publisher.publish(Version(version), is_keyframe, None).unwrap();
        let published_at = Wall::default();
        records.push(VersionRecord { version, update, keyframe, given, digest, through_seq, published_at, squashes });
        weights.push(publisher.weights().clone());
    }
    Published { model: spec.model, blobs, records, weights, _folder: folder }
}

/// A coordinator starts on a ledger that may have been open before.
fn start(spec: &RunSpec, manifest: &Manifest, ledger: &MemoryLedger, now: Mono) -> (MemoryLedger, Engine, Vec<Action>) {
    let ledger = ledger.open(1);
    let snapshot = ledger.snapshot(&Shards::of(manifest, spec.inner.batch_samples));
    let (run_id, generation) = (RunId([7; 32]), ledger.generation());
    let (engine, actions) = Engine::restore(spec.clone(), manifest.clone(), run_id, generation, snapshot, now);
    (ledger, engine, actions)
}

/// A blob of the name that a lease's delta has here.
pub fn named(lease: u64) -> BlobHash {
    let mut name = [7; 32];
    name[..8].copy_from_slice(&lease.to_le_bytes());
    BlobHash(name)
}

/// The code of a refusal.
pub fn code(body: &Body) -> Option<RefusalCode> {
    match body {
        Body::Refusal(Refusal { code, .. }) => RefusalCode::try_from(*code).ok(),
        _ => None,
    }
}
