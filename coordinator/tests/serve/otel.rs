//! Traces as a collector gets them: a real one over HTTP, which reads the bytes by field numbers of its own.

use crate::{
    bed::{Bed, get},
    command_line::{Process, program, serve_command},
    database::Database,
    device::{Device, Link, trained},
    object_store::{KEYS, ObjectStore},
    processes::copy_files,
};
use axum::{Router, body::Bytes, extract::State, routing::post};
use nightjar_shared::{
    ids::BlobHash,
    wire::{Blob, Lease, LeaseRequest, LeaseReturn, Role, coordinator_message as answer, device_message as ask},
};
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, time::sleep};

#[derive(Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    began: u64,
    #[prost(fixed64, tag = "8")]
    ended: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, Message)]
struct Any {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

#[derive(Clone, Message)]
struct Status {
    #[prost(string, tag = "2")]
    words: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

/// What a span that came to nothing has for its status.
const ERROR: i32 = 2;

fn texts(attributes: &[Attribute]) -> BTreeMap<&str, String> {
    let text = |any: &Any| any.text.clone().or(any.number.map(|n| n.to_string()));
    attributes.iter().filter_map(|a| Some((a.key.as_str(), text(a.value.as_ref()?)?))).collect()
}

impl Span {
    fn says(&self, name: &str) -> String {
        texts(&self.attributes).remove(name).unwrap_or_default()
    }

    fn fault(&self) -> Option<&str> {
        self.status.as_ref().filter(|status| status.code == ERROR).map(|status| status.words.as_str())
    }
}

/// A collector, and what it was sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    /// Which service told of a span, by its id.
    services: Arc<Mutex<BTreeMap<Vec<u8>, String>>>,
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let (collector, listener) = (Collector::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/traces", post(Self::take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (collector, address)
    }

    async fn take(State(collector): State<Collector>, body: Bytes) {
        for OfResource { resource, scopes } in Export::decode(body).unwrap().resources {
            let about = resource.unwrap_or_default().attributes;
            let service = texts(&about).remove("service.name").unwrap();
            for span in scopes.into_iter().flat_map(|scope| scope.spans) {
                collector.services.lock().unwrap().insert(span.id.clone(), service.clone());
                collector.spans.lock().unwrap().push(span);
            }
        }
    }

    /// Waits until some process has told of such a span.
    async fn hears_of(&self, name: &str) {
        while !self.spans.lock().unwrap().iter().any(|span| span.name == name) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The spans of a lease's trace once its whole is there, in the order in which they began.
    async fn trace(&self, lease: u64) -> Vec<Span> {
        loop {
            let of_lease = |span: &&Span| span.says("nightjar.lease") == lease.to_string();
            let mut spans: Vec<Span> = self.spans.lock().unwrap().iter().filter(of_lease).cloned().collect();
            if spans.iter().any(|span| span.name == "lease") {
                spans.sort_by_key(|span| span.began);
                return spans;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A coordinator that sends its traces there.
fn start(bed: &Bed, collector: SocketAddr) -> Process {
    start_as(serve_command(bed), collector)
}

fn start_as(mut command: Command, collector: SocketAddr) -> Process {
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")).env("OTEL_BSP_SCHEDULE_DELAY", "50");
    Process::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Ends in order; gives what the log says.
fn end(mut process: Process) -> String {
    kill_process(Pid::from_child(&process.child), Signal::TERM).unwrap();
    assert!(process.child.wait().unwrap().success());
    let mut log = String::new();
    process.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    log
}

async fn deliver(bed: &Bed, link: &mut Link, lease: &Lease, seed: u64) {
    let (delta, offer) = trained(&bed.spec.model, lease, seed);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
}

/// The whole of a trace, which all others are parts of.
fn whole(spans: &[Span]) -> &Span {
    let whole = spans.iter().find(|span| span.name == "lease").unwrap();
    assert!(whole.parent.is_empty() && whole.trace.len() == 16 && whole.id.len() == 8, "{whole:?}");
    for span in spans {
        assert_eq!(span.trace, whole.trace, "{span:?}");
        assert!(span.began <= span.ended && span.ended <= whole.ended, "{span:?}");
        assert!(span.name == "lease" || span.parent == whole.id, "{span:?}");
    }
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| &span.id[..]).collect();
    assert_eq!(ids.len(), spans.len(), "each is told once, under an id of its own");
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn otel_one_lease_is_one_trace_from_grant_to_published_version() {
    let bed = Bed::new();
    let (collector, address) = Collector::start().await;
    let process = tokio::task::block_in_place(|| start(&bed, address));
    let mut link = Device::new(&bed).join(process.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    // In two goes: the first is broken off.
    link.fetch(lease.keyframe.as_ref().unwrap()).await;
    link.fetch(lease.shard.as_ref().unwrap()).await;
    deliver(&bed, &mut link, &lease, 1).await;

    let spans = collector.trace(lease.id).await;
    let whole = whole(&spans);
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let mut steps = names.clone();
    steps.dedup();
    assert_eq!(steps[2..], ["fetch version", "fetch shard", "upload", "screen", "merge", "publish"], "{names:?}");
    assert_eq!(BTreeSet::from([names[0], names[1]]), BTreeSet::from(["lease", "grant"]), "both begin with the request");
    let devices = tokio::task::block_in_place(|| get(process.http, "/api/devices"));
    for span in &spans {
        let device = span.says("nightjar.device");
        assert!(device.len() == 8 && devices.contains(&format!("\"id\":\"{device}")), "{span:?}");
    }
    let said = ["outcome", "version", "base_version", "kind"].map(|name| whole.says(&format!("nightjar.{name}")));
    assert_eq!(said, ["merged", "1", "0", "train"]);
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let ends: Vec<_> = named("fetch version").iter().map(|span| (span.says("nightjar.offset"), span.fault())).collect();
    let bytes = lease.keyframe.as_ref().unwrap().bytes;
    assert_eq!(ends[1], ((bytes / 3).to_string(), None));
    assert_eq!((named("upload")[0].fault(), named("publish")[0].says("nightjar.version")), (None, "1".into()));

    // What comes to nothing says so. A lease of somebody else is not this device's to tell of.
    let second = link.lease(LeaseRequest::default()).await;
    let stranger = Device::new(&bed).join(process.address, bed.invite(Role::Volunteer)).await;
    stranger.upload(second.id, b"not its lease").await.unwrap_err();
    let bad = Blob::new(BlobHash::of(b"short"), 5);
    link.put(second.id, bad).await.2.unwrap_err();
    let back = LeaseReturn { lease_id: second.id, generation: second.generation, why: String::new() };
    link.ask(ask::Body::LeaseReturn(back)).await;
    let spans = collector.trace(second.id).await;
    let uploads: Vec<_> = spans.iter().filter(|span| span.name == "upload").map(Span::fault).collect();
    assert!(matches!(uploads[..], [Some(why)] if why.contains("no delta of this model")), "{uploads:?}");
    assert_eq!(self::whole(&spans).says("nightjar.outcome"), "returned");

    let log = tokio::task::block_in_place(|| end(process));
    assert!(!log.contains("traces"), "{log}");
    let services: BTreeSet<String> = collector.services.lock().unwrap().values().cloned().collect();
    assert_eq!(services, BTreeSet::from(["nightjar-coordinator".to_owned()]));
}

/// A trace goes on in whichever process has the lease next: neither is told of it by the other.
#[tokio::test(flavor = "multi_thread")]
async fn otel_a_restart_goes_on_with_the_same_trace() {
    let bed = Bed::new();
    let (collector, address) = Collector::start().await;
    let process = tokio::task::block_in_place(|| start(&bed, address));
    let device = Device::new(&bed);
    let mut link = device.join(process.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    collector.hears_of("grant").await;
    drop(process);
    let process = tokio::task::block_in_place(|| start(&bed, address));
    let mut link = device.join(process.address, vec![]).await;
    deliver(&bed, &mut link, &lease, 1).await;
    let spans = collector.trace(lease.id).await;
    let whole = whole(&spans);
    assert_eq!(whole.says("nightjar.version"), "1");
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["lease", "grant", "upload", "screen", "merge", "publish"]));
    tokio::task::block_in_place(|| end(process));
}

#[tokio::test(flavor = "multi_thread")]
async fn otel_a_door_and_its_leader_add_to_one_trace() {
    let (Some(database), Some(store)) = (Database::start(), ObjectStore::start()) else { return };
    let (bed, (collector, address)) = (Bed::new(), Collector::start().await);
    let mut lead = serve_command(&bed);
    lead.args(["--ledger", &database.url(), "--blobs", &store.url("runs/traces")]);
    lead.envs(KEYS).env("OTEL_SERVICE_NAME", "leader");
    let leader = tokio::task::block_in_place(|| start_as(lead, address));
    let folder = bed.path("state-of-door");
    copy_files(&bed.state(), &folder);
    let mut hold = program();
    hold.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--run"]).arg(bed.run_file());
    hold.arg("--data").arg(bed.data()).arg("--state").arg(folder).envs(KEYS).env("OTEL_SERVICE_NAME", "door");
    let door = tokio::task::block_in_place(|| start_as(hold, address));

    let mut link = Device::new(&bed).join(door.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    // A door may hear of a lease a moment after the device that it was granted to.
    let fetching = async {
        loop {
            link.fetch(lease.shard.as_ref().unwrap()).await;
        }
    };
    tokio::select! {
        never = fetching => never,
        () = collector.hears_of("fetch shard") => {}
    }
    deliver(&bed, &mut link, &lease, 1).await;
    collector.hears_of("upload").await;
    let spans = collector.trace(lease.id).await;
    whole(&spans);
    let services = collector.services.lock().unwrap().clone();
    let told_by = |service: &str| {
        let by = spans.iter().filter(|span| services[&span.id] == service);
        by.map(|span| span.name.as_str()).collect::<BTreeSet<_>>()
    };
    assert_eq!(told_by("leader"), BTreeSet::from(["lease", "grant", "screen", "merge", "publish"]));
    assert_eq!(told_by("door"), BTreeSet::from(["fetch shard", "upload"]));
    drop((door, leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn otel_a_collector_that_is_away_holds_nothing_up() {
    let bed = Bed::new();
    // Nobody answers there any more.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let process = tokio::task::block_in_place(|| start(&bed, nobody));
    let mut link = Device::new(&bed).join(process.address, bed.invite(Role::Volunteer)).await;
    for seed in 0..20 {
        let lease = link.lease(LeaseRequest::default()).await;
        deliver(&bed, &mut link, &lease, seed).await;
    }
    let log = tokio::task::block_in_place(|| end(process));
    assert_eq!(log.matches("traces cannot be delivered").count(), 1, "{log}");
}
