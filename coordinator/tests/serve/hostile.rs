//! A hostile client that speaks raw UDP and raw QUIC to a coordinator of its own process, again and again: the
//! coordinator's memory stays where it is, and a device that works meanwhile never notices.

use crate::{
    bed::Bed,
    command_line::{Process, of_run},
    device::{Device, Link, Way, close_code, message, open, trained},
    page::{self, Trust},
};
use nightjar_shared::{
    ids::BlobHash,
    rng,
    wire::{
        ALPN, Blob, BlobGet, BlobHead, BlobStored, ControlOpen, CoordinatorMessage, DeltaOffer, Evaluation, Lease,
        LeaseRenew, LeaseRequest, LeaseReturn, RefusalAction, RefusalCode, Role, close::CloseCode,
        coordinator_message as answer, device_message as ask, limits::STREAMS_PER_CONNECTION_MAX, stream_open::Kind,
    },
};
use quinn::{ConnectionError, Endpoint};
use ring::signature::KeyPair;
use std::net::{SocketAddr, UdpSocket};
use web_transport_quinn::{RecvStream, SendStream};

/// Streams that are opened on one connection, over all rounds.
const STREAMS: usize = 10_000;
/// How often all is tried. The first time the coordinator takes the memory that it needs.
const ROUNDS: u64 = 4;
/// What an allocator may keep of the second and later rounds.
const MEMORY_MORE: u64 = 16 << 20;

fn refused(body: &answer::Body) -> RefusalCode {
    match body {
        answer::Body::Refusal(refusal) => refusal.code(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// What a device does all day.
async fn works(bed: &Bed, link: &mut Link, seed: u64) -> DeltaOffer {
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, seed);
    link.upload(lease.id, &delta).await.unwrap();
    let done = link.ask(ask::Body::DeltaOffer(offer.clone())).await;
    assert!(matches!(&done, answer::Body::Done(done) if done.merged), "{done:?}");
    offer
}

/// Packets that are none: noise, and noise behind the heads of Initials, Handshakes, Retries and unknown versions.
fn garbage(to: SocketAddr, seed: u64) {
    let heads: [&[u8]; 6] = [
        &[],
        &[0xc3, 0, 0, 0, 1, 8],
        &[0xe3, 0, 0, 0, 1, 255, 255],
        &[0xf0, 0, 0, 0, 1, 20],
        &[0xc0, 0xfa, 0xce, 0xb0, 0x0c, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0],
        &[0x40],
    ];
    for port in 0..20 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in 0..150u64 {
            let length = rng::draw(seed, port, n) as usize % 1400;
            let noise = (0..length as u64).map(|i| rng::draw(seed ^ n, port, i) as u8);
            let packet: Vec<u8> = heads[n as usize % heads.len()].iter().copied().chain(noise).collect();
            // A socket's buffer may be full: then fewer arrive.
            let _ = socket.send_to(&packet, to);
        }
    }
}

/// Handshakes that are given up, under protocols that nobody speaks, or with keys that are none.
async fn bad_handshakes(bed: &Bed, to: SocketAddr) {
    let device = Device::new(bed);
    let long = b"x".repeat(255);
    for protocols in [&[b"h3".as_slice()][..], &[], &[b"nightjar/0", b"nightjar/2"], &[long.as_slice(); 60]] {
        assert!(device.connect_showing(to, vec![0; 44], protocols).await.is_err());
    }
    let almost = nightjar_shared::invite::spki_of_ed25519(&[9; 32]);
    let keys = [vec![], vec![0x30; 60_000], vec![0xff; 200_000], almost, vec![0; 32]];
    for key in keys {
        // The device believes in a connection until the coordinator has looked at its key.
        let ended = match device.connect_showing(to, key, &[ALPN]).await {
            Ok((_endpoint, connection)) => connection.closed().await,
            Err(error) => error,
        };
        assert!(!matches!(ended, ConnectionError::LocallyClosed), "{ended}");
    }
}

/// From as many ports as files may be open, and each says nothing.
async fn flood(way: Way, bed: &Bed, to: SocketAddr) {
    let mut all = vec![];
    for n in 0..75 {
        let device = Device::by(way, bed);
        if n % 3 == 0 {
            // Given up in the midst of the handshake.
            drop(tokio::time::timeout(std::time::Duration::from_millis(1), device.connect(to)).await);
        } else {
            all.extend(device.connect(to).await);
        }
    }
    assert!(!all.is_empty());
}

/// Pages that show a key which is not theirs, sign what was signed before, or nothing of the kind.
async fn liars(bed: &Bed, to: SocketAddr) {
    let (trust, endpoint) = (Trust::of(bed), Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap());
    let device = Device::by(Way::Page, bed);
    let (key, other) = (device.key(), Device::new(bed).key());
    let first = trust.session(&device, &endpoint, to).await.unwrap();
    let first = page::challenged(&first, key.public_key().as_ref()).await.unwrap();
    let replayed = first.signature(&key);
    for lie in [replayed, vec![], vec![0; 64], vec![7; 4000], first.signature(&other)] {
        let session = trust.session(&device, &endpoint, to).await.unwrap();
        let challenged = page::challenged(&session, key.public_key().as_ref()).await.unwrap();
        let _receive = challenged.answer(lie).await;
        assert_eq!(close_code(&session.closed().await), Some(CloseCode::Malformed));
    }
    // A key that is none.
    for key in [&[][..], &[1; 31], &[0xff; 4000]] {
        let session = trust.session(&device, &endpoint, to).await.unwrap();
        assert!(page::challenged(&session, key).await.is_err());
    }
}

/// Streams without end: empty, half a length, a length without a message, reset, a purpose that nobody knows of.
async fn streams(link: &Link, seed: u64) {
    for n in 0..STREAMS as u64 / ROUNDS {
        let (mut send, mut receive) = link.connection.open_bi().await.unwrap();
        let bytes: &[u8] = match rng::draw(seed, 1, n) % 4 {
            0 => &[],
            1 => &[8, 0],
            2 => &[8, 0, 0, 0],
            _ => &[8, 0, 0, 0, 1, 2, 3],
        };
        send.write_all(bytes).await.unwrap();
        if bytes.is_empty() {
            send.finish().unwrap();
        } else {
            send.reset(7).unwrap();
        }
        receive.stop(7).unwrap();
    }
    assert!(link.connection.close_reason().is_none(), "nothing of it is against the protocol");
}

/// As many streams as there may be, each with the beginning of a message of 200 bytes; more are not to be had.
async fn half_open(link: &Link) -> Vec<(SendStream, RecvStream)> {
    let mut held = vec![];
    // One is the control stream.
    for _ in 1..STREAMS_PER_CONNECTION_MAX {
        let (mut send, receive) = link.connection.open_bi().await.unwrap();
        send.write_all(&[200]).await.unwrap();
        held.push((send, receive));
    }
    let more = tokio::time::timeout(std::time::Duration::from_millis(200), link.connection.open_bi()).await;
    assert!(more.is_err(), "one more than there may be");
    held
}

/// The same hello, offer and invite, again and again.
async fn replays(bed: &Bed, to: SocketAddr, link: &mut Link, merged: &DeltaOffer) {
    let (mut welcomed, mut told) = (0, 0);
    for _ in 0..60 {
        match link.hello(bed.invite(Role::Volunteer), Role::Volunteer).await {
            answer::Body::Welcome(_) => welcomed += 1,
            other => assert!(matches!(refused(&other), RefusalCode::Busy | RefusalCode::Limit)),
        }
        match link.ask_once(ask::Body::DeltaOffer(merged.clone())).await {
            answer::Body::Done(done) => told += u32::from(done.merged),
            other => assert_eq!(refused(&other), RefusalCode::Busy),
        }
    }
    assert!(welcomed > 0 && told > 0, "it is the same answer again");
    // An invite that was changed is nobody's, and one for volunteers makes nobody an anchor.
    let mut changed = bed.invite(Role::Volunteer);
    changed[3] ^= 1;
    let mut stranger = Device::new(bed).link(to).await;
    assert_eq!(refused(&stranger.hello(changed, Role::Volunteer).await), RefusalCode::Invite);
    assert_eq!(refused(&stranger.hello(bed.invite(Role::Volunteer), Role::Anchor).await), RefusalCode::Invite);
}

/// What belongs to a lease of somebody else's: all of it is as if there was no such lease.
async fn others_leases(bed: &Bed, thief: &mut Link, lease: &Lease) {
    let (lease_id, generation) = (lease.id, lease.generation);
    let (delta, offer) = trained(&bed.spec.model, lease, 77);
    let bodies = [
        ask::Body::LeaseRenew(LeaseRenew { lease_id, generation, steps_done: 1 }),
        ask::Body::LeaseReturn(LeaseReturn { lease_id, generation, why: "mine now".into() }),
        ask::Body::DeltaOffer(offer),
        ask::Body::Evaluation(Evaluation { lease_id, generation, nats: 0.0, tokens: 1 }),
        ask::Body::LeaseRenew(LeaseRenew { lease_id, generation: generation + 1, steps_done: 1 }),
    ];
    for body in bodies {
        assert_eq!(refused(&thief.ask(body).await), RefusalCode::LeaseGone);
    }
    assert!(thief.put(lease.id, Blob::new(BlobHash::of(&delta), delta.len() as u64)).await.2.is_err());
}

/// Requests of a later version, or of none, and blobs that nobody has.
async fn unknown(link: &mut Link) {
    // Field 99 of a device's message.
    let later = [&7u32.to_le_bytes()[..], &[0x08, 5, 0x9a, 0x06, 2, 1, 2]].concat();
    let (mut send, mut receive) = open(&link.connection, Kind::Control(ControlOpen {})).await;
    send.write_all(&later).await.unwrap();
    let told: CoordinatorMessage = message(&mut receive).await;
    assert_eq!(told.request, 5);
    match told.body {
        Some(answer::Body::Refusal(refusal)) => {
            assert_eq!((refusal.code(), refusal.action()), (RefusalCode::Unsupported, RefusalAction::Stop))
        }
        other => panic!("{other:?}"),
    }
    drop(send);
    for n in 0..100u8 {
        let (_send, mut receive) =
            open(&link.connection, Kind::Get(BlobGet { hash: vec![n; usize::from(n)], offset: u64::from(n) << 55 }))
                .await;
        let head: BlobHead = message(&mut receive).await;
        assert_eq!(head.refusal.unwrap().code(), RefusalCode::NotFound);
    }
}

/// More bytes than were announced: those that were are taken, and the rest is not read.
async fn too_long(bed: &Bed, link: &mut Link, seed: u64) {
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, seed);
    let (mut send, mut receive, start) = link.put(lease.id, offer.delta.clone().unwrap()).await;
    assert_eq!(start, Ok(0));
    send.write_all(&delta).await.unwrap();
    let more = async { while send.write_all(&[7; 64 << 10]).await.is_ok() {} };
    let (stored, ()) = tokio::join!(message::<BlobStored>(&mut receive), more);
    assert_eq!(stored.refusal, None);
    let done = link.ask(ask::Body::DeltaOffer(offer)).await;
    assert!(matches!(&done, answer::Body::Done(done) if done.merged), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_flat_and_devices_are_served_whatever_comes() {
    let bed = Bed::with_pages();
    let process = Process::start(&bed);
    let to = process.address;
    let join = async |way| Device::by(way, &bed).dawdling().join(to, bed.invite(Role::Volunteer)).await;
    let (mut good, mut thief) = (join(Way::Native).await, join(Way::Page).await);
    let openers = [join(Way::Native).await, join(Way::Page).await];
    let slow = join(Way::Page).await;
    let half = half_open(&slow).await;
    let (mut merged, mut first) = (0, None);
    for round in 0..ROUNDS {
        let seed = 1000 * round;
        works(&bed, &mut good, seed).await;
        garbage(to, seed);
        bad_handshakes(&bed, to).await;
        works(&bed, &mut good, seed + 1).await;
        for way in Way::ALL {
            flood(way, &bed, to).await;
        }
        liars(&bed, to).await;
        let last = works(&bed, &mut good, seed + 2).await;
        for opener in &openers {
            streams(opener, seed).await;
        }
        replays(&bed, to, &mut good, &last).await;
        // New connections, since each has asked for more than a device may; a new device, for the same reason.
        good = join(Way::Native).await;
        let mut open_lease = join(Way::ALL[round as usize % 2]).await;
        let lease = open_lease.lease(LeaseRequest::default()).await;
        others_leases(&bed, &mut thief, &lease).await;
        unknown(&mut thief).await;
        too_long(&bed, &mut if round % 2 == 0 { join(Way::Page).await } else { join(Way::Native).await }, seed + 3)
            .await;
        let renewal = LeaseRenew { lease_id: lease.id, generation: lease.generation, steps_done: 0 };
        let renewed = open_lease.ask(ask::Body::LeaseRenew(renewal)).await;
        assert!(matches!(renewed, answer::Body::Done(_)), "its owner has it still: {renewed:?}");
        merged += 4;
        let memory = process.memory();
        println!("round {round}: {:.1} MiB", memory as f64 / f64::from(1 << 20));
        assert!(memory <= *first.get_or_insert(memory) + MEMORY_MORE, "memory grows");
    }
    // A byte now and then keeps no stream open for ever.
    let mut half = half.into_iter();
    let (mut send, _receive) = half.next().unwrap();
    while send.write_all(&[0]).await.is_ok() && slow.connection.close_reason().is_none() {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(close_code(&slow.connection.closed().await), Some(CloseCode::Slow));
    works(&bed, &mut good, 9999).await;
    drop(process);
    let verified = of_run(&bed, &["verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let stats: serde_json::Value = serde_json::from_slice(&of_run(&bed, &["stats", "--json"]).stdout).unwrap();
    assert_eq!((&stats["merged"], &stats["duplicates"]), (&(merged + 1).into(), &0.into()), "{stats}");
}
