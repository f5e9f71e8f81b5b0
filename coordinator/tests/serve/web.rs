//! Pages as devices: they take leases and deliver like any other, on the port of all; and who is not who it says gets
//! nowhere.

use crate::{
    bed::Bed,
    command_line::of_run,
    device::{Device, Way, close_code, closed, message, trained},
    page::{self, Trust, request},
};
use nightjar_coordinator::{certificate::CertificateKey, server::wall_now};
use nightjar_shared::{
    web::{self, PATH, PROTOCOL},
    wire::{
        CoordinatorMessage, DeviceMessage, LeaseRequest, Role, StreamOpen, close::CloseCode,
        coordinator_message as answer, device_message as ask, frame, limits::STRANGERS_PER_ADDRESS_MAX,
        stream_open::Kind,
    },
};
use quinn::Endpoint;
use ring::signature::{ED25519, KeyPair, UnparsedPublicKey};
use std::time::Duration;
use tokio::time::timeout;
use web_transport_quinn::Session;

fn endpoint() -> Endpoint {
    Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_trains_beside_a_native_device() {
    let bed = Bed::with_pages();
    let server = bed.serve().await;
    for (seed, way) in (0..).zip([Way::Native, Way::Page, Way::Page, Way::Native]) {
        let device = Device::by(way, &bed);
        let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
        let lease = link.lease(LeaseRequest::default()).await;
        for blob in lease.keyframe.iter().chain(&lease.shard) {
            link.fetch(blob).await;
        }
        let (delta, offer) = trained(&bed.spec.model, &lease, seed);
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer.clone())).await, answer::Body::Upload(_)));
        link.upload(lease.id, &delta).await.unwrap();
        let done = link.ask(ask::Body::DeltaOffer(offer)).await;
        assert!(matches!(&done, answer::Body::Done(done) if done.merged), "{way:?}: {done:?}");
    }
    let status = server.status().await;
    assert_eq!(status["devices"].as_array().unwrap().len(), 4, "each has the name that its key has: {status}");
    server.stop().await;
    assert!(of_run(&bed, &["verify"]).status.success());
}

/// The same key is the same device, whichever way it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_the_device_of_its_key() {
    let bed = Bed::with_pages();
    let server = bed.serve().await;
    let device = Device::by(Way::Page, &bed);
    let older = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let mut newer = device.join(server.address, vec![]).await;
    let why = closed(&older.connection).await;
    assert!(close_code(&why) == Some(CloseCode::Replaced) && why.to_string().contains("connected again"), "{why}");
    newer.lease(LeaseRequest::default()).await;
    let devices = server.status().await["devices"].clone();
    assert_eq!((devices.as_array().unwrap().len(), &devices[0]["online"]), (1, &true.into()), "{devices}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admitted_page_learns_what_to_trust_next() {
    let bed = Bed::with_pages();
    let server = bed.serve().await;
    let (device, trust) = (Device::by(Way::Page, &bed), Trust::of(&bed));
    let (_session, admitted) = page::enter(&trust, &device, &endpoint(), server.address).await.unwrap();
    let claim = web::certificates(&admitted.certificates).unwrap();
    let key = bed.identity().public_key();
    UnparsedPublicKey::new(&ED25519, key).verify(&claim.covered, &claim.signature).unwrap();
    assert_eq!(claim.hashes, CertificateKey::of(&bed.identity()).hashes(wall_now(), claim.hashes.len() as u64));
    assert!(claim.hashes.len() > 1 && claim.hashes[0] == trust.certificate);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_who_it_says_is_not_let_in() {
    let bed = Bed::with_pages();
    let server = bed.serve().await;
    let (device, trust, endpoint) = (Device::by(Way::Page, &bed), Trust::of(&bed), endpoint());
    let to = server.address;
    // Another coordinator in its place is not even spoken to.
    let other = Trust { certificate: [9; 32] };
    assert!(other.connect(&device, &endpoint, to).await.is_err());
    // Another's key, shown without holding it.
    let theirs = Device::by(Way::Page, &bed);
    theirs.join(to, bed.invite(Role::Volunteer)).await;
    let session = trust.session(&device, &endpoint, to).await.unwrap();
    let challenged = page::challenged(&session, theirs.key().public_key().as_ref()).await.unwrap();
    let signature = challenged.signature(&device.key());
    let _receive = challenged.answer(signature).await;
    assert_eq!(close_code(&closed(&session).await), Some(CloseCode::Malformed));
    // A signature is good for one session.
    let (first, second) =
        (trust.session(&device, &endpoint, to).await.unwrap(), trust.session(&device, &endpoint, to).await.unwrap());
    let key = device.key();
    let (first, second) = (
        page::challenged(&first, key.public_key().as_ref()).await.unwrap(),
        page::challenged(&second, key.public_key().as_ref()).await.unwrap(),
    );
    assert_ne!(first.challenge.challenge, second.challenge.challenge);
    // No key at all: what a device says first, without a proof.
    let session = trust.session(&device, &endpoint, to).await.unwrap();
    let (mut send, _receive) = session.open_bi().await.unwrap();
    send.write_all(&frame::encode(&StreamOpen { kind: Some(Kind::Control(Default::default())) })).await.unwrap();
    assert_eq!(close_code(&closed(&session).await), Some(CloseCode::Malformed));
    // Another path, another protocol.
    for asked in
        [request(to, "/other").with_protocol(PROTOCOL), request(to, PATH), request(to, PATH).with_protocol("x/2")]
    {
        let connection = trust.connect(&device, &endpoint, to).await.unwrap();
        assert!(Session::connect(connection, asked).await.is_err());
    }
    server.stop().await;
}

/// As many as come, each proving its key and then silent; a device comes and goes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sessions_keep_nobody_out() {
    let bed = Bed::with_pages();
    let server = bed.serve().await;
    let (device, trust, endpoint) = (Device::by(Way::Page, &bed), Trust::of(&bed), endpoint());
    let mut held = vec![];
    for n in 0..1000 {
        // The oldest strangers make room; which of them is still there is not asked.
        held.extend(trust.session(&device, &endpoint, server.address).await);
        if n % 250 == 249 {
            let mut native = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
            native.lease(LeaseRequest::default()).await;
        }
    }
    assert!(held.len() > STRANGERS_PER_ADDRESS_MAX);
    let page = Device::by(Way::Page, &bed);
    page.join(server.address, bed.invite(Role::Volunteer)).await.lease(LeaseRequest::default()).await;
    let open = held.iter().filter(|session| session.close_reason().is_none()).count();
    assert!(open <= STRANGERS_PER_ADDRESS_MAX, "{open} are open");
    for session in held {
        assert!(timeout(Duration::from_secs(60), session.closed()).await.is_ok(), "a silent one stays for ever");
    }
    server.stop().await;
}

/// What a page may send that is HTTP/3 and no stream of its session, before and after its proof.
#[tokio::test(flavor = "multi_thread")]
async fn other_streams_of_a_page_come_to_nothing() {
    let bed = Bed::with_pages();
    let server = bed.serve().await;
    let (device, trust, endpoint) = (Device::by(Way::Page, &bed), Trust::of(&bed), endpoint());
    // A connection that never becomes a session.
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 2000], &[0xff; 2000], &[0x00, 0x04, 0xbf, 0xff, 0xff, 0xff]]
    {
        let connection = trust.connect(&device, &endpoint, server.address).await.unwrap();
        let mut uni = connection.open_uni().await.unwrap();
        // It may be closed by then.
        let _ = uni.write_all(bytes).await;
        let _ = uni.finish();
        assert!(timeout(Duration::from_secs(20), connection.closed()).await.is_ok(), "{bytes:?}");
    }
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    // Streams of HTTP/3 beside the session's, datagrams: not read, and not minded.
    let mut beside = vec![];
    while let Ok(Ok(mut uni)) = timeout(Duration::from_millis(200), quinn::Connection::open_uni(&link.connection)).await
    {
        uni.write_all(&[0x21; 100]).await.unwrap();
        beside.push(uni);
    }
    assert!(beside.len() <= 4, "{} streams of one way", beside.len());
    for _ in 0..1000 {
        // Where there is no room, it is dropped.
        let _ = quinn::Connection::send_datagram(&link.connection, vec![0; 1000].into());
    }
    link.lease(LeaseRequest::default()).await;
    // A page that is through with its proof does not prove it again.
    let (mut send, mut receive) = link.connection.open_bi().await.unwrap();
    send.write_all(&frame::encode(&StreamOpen { kind: Some(Kind::Page(Default::default())) })).await.unwrap();
    assert_eq!(close_code(&closed(&link.connection).await), Some(CloseCode::Malformed));
    assert!(!matches!(receive.read(&mut [0]).await, Ok(Some(_))), "it is not answered");
    // Nor does a native device.
    let native = Device::new(&bed).connect(server.address).await.unwrap();
    let (mut send, _receive) = native.open_bi().await.unwrap();
    send.write_all(&frame::encode(&StreamOpen { kind: Some(Kind::Page(Default::default())) })).await.unwrap();
    assert_eq!(close_code(&closed(&native).await), Some(CloseCode::Malformed));
    server.stop().await;
}

/// A page that goes on in the words of later versions is told so, as devices are.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_request_of_a_page_is_declined() {
    let bed = Bed::with_pages();
    let server = bed.serve().await;
    let link = Device::by(Way::Page, &bed).join(server.address, bed.invite(Role::Volunteer)).await;
    let (mut send, mut receive) = crate::device::open(&link.connection, Kind::Control(Default::default())).await;
    send.write_all(&frame::encode(&DeviceMessage { request: 5, body: None })).await.unwrap();
    let told: CoordinatorMessage = message(&mut receive).await;
    assert!(told.request == 5 && matches!(told.body, Some(answer::Body::Refusal(_))), "{told:?}");
    server.stop().await;
}
