//! Three processes serve one run, on a real PostgreSQL and a real S3 server. They are killed, stopped and woken, and so
//! is the database: no lease, upload or acknowledgement is lost.

use crate::{
    bed::Bed,
    command_line::program,
    database::Database,
    device::{Device, trained},
    object_store::{KEYS, ObjectStore},
    processes::Processes,
};
use nightjar_shared::{
    model_spec::ModelSpec,
    wire::{
        DeltaOffer, Lease, LeaseRequest, RefusalAction, Role, coordinator_message as answer, device_message as ask,
    },
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// What a device has at hand, which outlasts its connections.
type AtHand = Arc<Mutex<Option<(Lease, Vec<u8>, DeltaOffer)>>>;

/// A device that goes to whichever address answers, and gives up none of its work.
struct Roamer {
    device: Arc<Device>,
    addresses: Vec<SocketAddr>,
    invite: Vec<u8>,
    model: ModelSpec,
    seed: u64,
}

impl Roamer {
    /// Trains so many leases, and gives how many were acknowledged as merged.
    async fn train(self, leases: u64) -> u64 {
        let (at_hand, mut merged, mut way) = (AtHand::default(), 0, self.seed as usize);
        while merged < leases {
            let address = self.addresses[way % self.addresses.len()];
            let (device, invite, model) = (self.device.clone(), self.invite.clone(), self.model.clone());
            let (seed, at_hand) = (1000 * self.seed + merged, at_hand.clone());
            // A connection that breaks is a panic of this task.
            let once = tokio::spawn(async move { once(&device, address, invite, &model, &at_hand, seed).await });
            match timeout(Duration::from_secs(20), once).await {
                Ok(Ok(is_merged)) => merged += u64::from(is_merged),
                Ok(Err(_)) | Err(_) => {
                    way += 1;
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
        merged
    }
}

/// One lease over one connection, or what is left of it; `false` where the lease has ended otherwise.
async fn once(
    device: &Device,
    address: SocketAddr,
    invite: Vec<u8>,
    model: &ModelSpec,
    at_hand: &AtHand,
    seed: u64,
) -> bool {
    let patience = Duration::from_millis(100);
    let mut link = device.join(address, invite.clone()).await;
    let known = at_hand.lock().unwrap().clone();
    let (lease, delta, offer) = match known {
        Some(known) => known,
        None => loop {
            match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
                answer::Body::Lease(lease) => {
                    let (delta, offer) = trained(model, &lease, seed);
                    let work = (lease, delta, offer);
                    *at_hand.lock().unwrap() = Some(work.clone());
                    break work;
                }
                answer::Body::Refusal(r) if r.action() == RefusalAction::HelloAgain => {
                    link.hello(invite.clone(), Role::Volunteer).await;
                }
                answer::Body::Refusal(r) if r.action() == RefusalAction::Retry => sleep(patience).await,
                other => panic!("{other:?}"),
            }
        },
    };
    loop {
        match link.ask(ask::Body::DeltaOffer(offer.clone())).await {
            answer::Body::Done(done) => {
                *at_hand.lock().unwrap() = None;
                return done.merged;
            }
            answer::Body::Upload(_) => match link.upload(lease.id, &delta).await {
                Ok(()) => {}
                Err(refusal) if refusal.action() == RefusalAction::Retry => sleep(patience).await,
                Err(refusal) => panic!("{refusal:?}"),
            },
            answer::Body::Refusal(r) => match r.action() {
                RefusalAction::Retry => sleep(patience).await,
                RefusalAction::HelloAgain => drop(link.hello(invite.clone(), Role::Volunteer).await),
                RefusalAction::DropLease => {
                    *at_hand.lock().unwrap() = None;
                    return false;
                }
                action => panic!("{action:?}: {}", r.sentence),
            },
            other => panic!("{other:?}"),
        }
    }
}

/// Which process leads, once one does.
async fn leader(processes: &Processes<'_>, database: &Database) -> usize {
    loop {
        if let Some(n) = processes.leader(database) {
            return n;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until so many deltas are merged, however late.
async fn merged(database: &Database, many: u64) {
    while database.psql("SELECT count(*) FROM deltas").parse::<u64>().unwrap() < many {
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_process_dies_or_hangs_nothing_acknowledged_is_lost() {
    let (Some(mut database), Some(store)) = (Database::start(), ObjectStore::start()) else { return };
    let bed = Bed::new();
    let (ledger, bucket) = (database.url(), store.url("runs/doors"));
    let mut processes = tokio::task::block_in_place(|| Processes::start(&bed, 3, &ledger, &bucket));
    assert_eq!(leader(&processes, &database).await, 0);

    let (devices, leases) = (6, 10);
    let mut training = tokio::task::JoinSet::new();
    for seed in 1..=devices {
        let (device, addresses) = (Arc::new(Device::new(&bed)), processes.addresses.clone());
        let (invite, model) = (bed.invite(Role::Volunteer), bed.spec.model.clone());
        training.spawn(Roamer { device, addresses, invite, model, seed }.train(leases));
    }
    // A door dies, and comes back.
    merged(&database, 6).await;
    processes.kill(1);
    merged(&database, 12).await;
    processes.start_again(1);
    // The leader dies: another one leads. What died comes back as a door.
    processes.kill(0);
    let second = leader(&processes, &database).await;
    assert_ne!(second, 0);
    merged(&database, 24).await;
    processes.start_again(0);
    // The leader hangs, is followed, and wakes up in the belief that it leads.
    processes.signal(second, rustix::process::Signal::STOP);
    let third = loop {
        let leader = leader(&processes, &database).await;
        if leader != second {
            break leader;
        }
        sleep(Duration::from_millis(200)).await;
    };
    merged(&database, 36).await;
    processes.signal(second, rustix::process::Signal::CONT);
    merged(&database, 42).await;
    assert_eq!(leader(&processes, &database).await, third, "who woke up holds the door");
    // The database is killed under all of them.
    tokio::task::block_in_place(|| {
        database.kill();
        database.go_on();
    });
    let mut acknowledged = 0;
    while let Some(merged) = training.join_next().await {
        acknowledged += merged.unwrap();
    }
    assert_eq!(acknowledged, devices * leases);
    let counted = database.psql("SELECT count(*), count(DISTINCT lease), count(DISTINCT blob) FROM deltas");
    assert_eq!(counted, format!("{acknowledged}|{acknowledged}|{acknowledged}"), "each once");

    processes.end();
    let mut verify = program();
    verify.args(["verify", "--state"]).arg(bed.state()).arg("--data").arg(bed.data()).envs(KEYS);
    let verified = verify.output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
