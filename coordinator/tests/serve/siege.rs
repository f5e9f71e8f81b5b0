//! Those who come to take memory, places, disk or time: what each may hold is bounded, and the others never notice.

use crate::{
    bed::{Bed, get},
    device::{Device, Link, Way, close_code, closed, message, open, trained},
};
use nightjar_shared::{
    ids::BlobHash,
    wire::{
        Blob, BlobGet, BlobHead, ControlOpen, Hello, LeaseRequest, LeaseReturn, RefusalAction, RefusalCode, Role,
        close::CloseCode,
        coordinator_message as answer, device_message as ask,
        limits::{
            CONTROL_WINDOW_BYTES, HELLO_BYTES_MAX, RENAMES_BURST, REQUEST_BYTES_MAX, SHARDS_NAMED_MAX,
            STRANGER_WINDOW_BYTES, STRANGERS_PER_ADDRESS_MAX, UPLOADS_DAMAGED_MAX,
        },
        stream_open::Kind,
    },
};
use std::{fs, time::Duration};
use web_transport_quinn::{SendStream, Session};

/// Waits for a close, however late.
async fn end_of(connection: &Session) -> Option<CloseCode> {
    let error = tokio::time::timeout(Duration::from_secs(60), connection.closed()).await.expect("it was to be closed");
    close_code(&error)
}

fn refusal(body: answer::Body) -> nightjar_shared::wire::Refusal {
    match body {
        answer::Body::Refusal(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

/// Bytes that a stream takes before the other side reads any.
async fn bytes_taken(send: &mut SendStream) -> usize {
    let mut taken = 0;
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(500), send.write(&[0; 16 << 10])).await {
        taken += n;
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_hold_a_place_for_moments_and_next_to_nothing_else() {
    for way in Way::ALL {
        let bed = Bed::with_pages();
        let server = bed.serve().await;
        let mut strangers = vec![];
        for _ in 0..STRANGERS_PER_ADDRESS_MAX + 44 {
            strangers.push(Device::by(way, &bed).connect(server.address).await.unwrap());
        }
        // Whoever says hello gets in, though the strangers have all places of this address.
        let device = Device::new(&bed);
        let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
        link.lease(LeaseRequest::default()).await;
        // The one that waited longest has made room, or its time is over.
        assert!(matches!(close_code(&closed(&strangers[0]).await), Some(CloseCode::Full | CloseCode::Slow)));

        strangers.push(Device::by(way, &bed).connect(server.address).await.unwrap());
        let last = strangers.last().unwrap();
        let (mut send, _receive) = last.open_bi().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(500), last.open_bi()).await.is_err(), "one stream");
        send.write_all(&(HELLO_BYTES_MAX as u32).to_le_bytes()).await.unwrap();
        let taken = bytes_taken(&mut send).await;
        assert!(taken <= 2 * STRANGER_WINDOW_BYTES as usize, "{taken} bytes");

        for stranger in &strangers {
            assert!(matches!(end_of(stranger).await, Some(CloseCode::Full | CloseCode::Slow | CloseCode::Malformed)));
        }
        // The device is served through all of it.
        assert!(link.connection.close_reason().is_none());
        link.lease(LeaseRequest::default()).await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_hello_widens_a_connection() {
    for way in Way::ALL {
        let bed = Bed::with_pages();
        let server = bed.serve().await;
        let mut link = Device::by(way, &bed).link(server.address).await;
        assert_eq!(refusal(link.hello(b"junk".repeat(40), Role::Volunteer).await).code(), RefusalCode::Invite);
        assert!(tokio::time::timeout(Duration::from_millis(500), link.connection.open_bi()).await.is_err());
        assert!(matches!(link.hello(bed.invite(Role::Volunteer), Role::Volunteer).await, answer::Body::Welcome(_)));
        let (mut send, _receive) = open(&link.connection, Kind::Control(ControlOpen {})).await;
        // A request that never ends is kept as far as a request may go, no further.
        send.write_all(&(REQUEST_BYTES_MAX as u32).to_le_bytes()).await.unwrap();
        let taken = bytes_taken(&mut send).await;
        assert!(taken <= 2 * CONTROL_WINDOW_BYTES as usize, "{taken} bytes");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_short_and_so_are_their_lists() {
    for way in Way::ALL {
        let bed = Bed::with_pages();
        let server = bed.serve().await;
        let device = Device::by(way, &bed);
        let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
        let long = LeaseRequest { shards: vec![vec![]; SHARDS_NAMED_MAX + 1], ..LeaseRequest::default() };
        assert_eq!(refusal(link.ask(ask::Body::LeaseRequest(long)).await).code(), RefusalCode::Limit);
        let many = Hello { codecs: vec![1; 4000], ..Hello::default() };
        assert_eq!(refusal(link.ask(ask::Body::Hello(many)).await).code(), RefusalCode::Limit);
        // As many as are allowed are no matter.
        let full = LeaseRequest { shards: vec![vec![7; 32]; SHARDS_NAMED_MAX], ..LeaseRequest::default() };
        link.lease(full).await;
        let (mut send, _receive) = open(&link.connection, Kind::Control(ControlOpen {})).await;
        send.write_all(&(REQUEST_BYTES_MAX as u32 + 1).to_le_bytes()).await.unwrap();
        assert_eq!(end_of(&link.connection).await, Some(CloseCode::Malformed));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_hello_messages_are_shorter_still() {
    for way in Way::ALL {
        let bed = Bed::with_pages();
        let server = bed.serve().await;
        let too_long = (HELLO_BYTES_MAX as u32 + 1).to_le_bytes();
        let first = Device::by(way, &bed).connect(server.address).await.unwrap();
        let (mut send, _receive) = first.open_bi().await.unwrap();
        send.write_all(&too_long).await.unwrap();
        let second = Device::by(way, &bed).connect(server.address).await.unwrap();
        let (mut send, _receive) = open(&second, Kind::Control(ControlOpen {})).await;
        send.write_all(&too_long).await.unwrap();
        for stranger in [first, second] {
            assert_eq!(end_of(&stranger).await, Some(CloseCode::Malformed));
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_nobody_reads_ends() {
    let mut bed = Bed::new();
    // A keyframe of a few megabytes, more than a device's own window takes.
    bed.spec.model.hidden_size = 512;
    bed.spec.model.intermediate_size = 2048;
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    while server.status().await["version"].is_null() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let keyframe = link.lease(LeaseRequest::default()).await.keyframe.unwrap();
    let mut deaf = vec![];
    for _ in 0..7 {
        let get = BlobGet { hash: keyframe.hash.clone(), offset: 0 };
        let (send, mut receive) = open(&link.connection, Kind::Get(get)).await;
        let head: BlobHead = message(&mut receive).await;
        assert_eq!((head.refusal, head.bytes), (None, keyframe.bytes));
        deaf.push((send, receive));
    }
    assert_eq!(end_of(&link.connection).await, Some(CloseCode::Slow));
    // The same device, reading, gets it.
    let link = device.join(server.address, vec![]).await;
    let get = BlobGet { hash: keyframe.hash.clone(), offset: 0 };
    let (_send, mut receive) = open(&link.connection, Kind::Get(get)).await;
    let _: BlobHead = message(&mut receive).await;
    let bytes = receive.read_to_end(1 << 26).await.unwrap();
    assert_eq!(BlobHash::of(&bytes), keyframe.name().unwrap());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stalls_ends_and_goes_on_where_it_was() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed).dawdling();
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    let (mut send, _receive, start) = link.put(lease.id, offer.delta.clone().unwrap()).await;
    assert_eq!(start, Ok(0));
    send.write_all(&delta[..100]).await.unwrap();
    assert_eq!(end_of(&link.connection).await, Some(CloseCode::Slow));
    let link = device.join(server.address, vec![]).await;
    let (_send, _receive, start) = link.put(lease.id, offer.delta.unwrap()).await;
    assert_eq!(start, Ok(100));
    server.stop().await;
}

fn files(bed: &Bed, folder: &str) -> usize {
    fs::read_dir(bed.state().join(folder)).map_or(0, |entries| entries.count())
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it never came: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_one_delta_and_takes_it_along() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let before = files(&bed, "blobs");
    // Uploads that are begun and given up, each under another name.
    for seed in 0..20 {
        let (delta, offer) = trained(&bed.spec.model, &lease, seed);
        let blob = offer.delta.unwrap();
        let start = loop {
            let (mut send, _receive, start) = link.put(lease.id, blob.clone()).await;
            if start.as_ref().is_err_and(|refusal| refusal.code() == RefusalCode::Busy) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            send.write_all(&delta[..100]).await.unwrap();
            let _ = send.reset(0);
            break start;
        };
        assert_eq!(start, Ok(0));
    }
    until("one unfinished upload", || files(&bed, "incoming") <= 1).await;
    // One is whole; no other is taken after it, and the same again is no matter.
    let (delta, _) = trained(&bed.spec.model, &lease, 100);
    let taken = loop {
        match link.upload(lease.id, &delta).await {
            Err(refusal) if refusal.code() == RefusalCode::Busy => tokio::time::sleep(Duration::from_millis(20)).await,
            other => break other,
        }
    };
    assert_eq!(taken, Ok(()));
    for seed in 101..400 {
        let blob = Blob::new(BlobHash([seed as u8; 32]), delta.len() as u64);
        let (_send, _receive, start) = link.put(lease.id, blob).await;
        let refusal = start.unwrap_err();
        assert_eq!((refusal.code(), refusal.action()), (RefusalCode::Limit, RefusalAction::DropLease));
    }
    assert_eq!(link.upload(lease.id, &delta).await, Ok(()));
    assert_eq!(files(&bed, "blobs"), before + 1);
    let returned = LeaseReturn { lease_id: lease.id, generation: lease.generation, why: String::new() };
    assert!(matches!(link.ask(ask::Body::LeaseReturn(returned)).await, answer::Body::Done(_)));
    until("the lease's files to be gone", || files(&bed, "blobs") == before && files(&bed, "incoming") == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_uploads_are_damaged_again_and_again_ends() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offer) = trained(&bed.spec.model, &lease, 1);
    let wrong: Vec<u8> = delta.iter().map(|b| b ^ 1).collect();
    for _ in 0..UPLOADS_DAMAGED_MAX {
        let (mut send, mut receive, start) = link.put(lease.id, offer.delta.clone().unwrap()).await;
        assert_eq!(start, Ok(0));
        send.write_all(&wrong).await.unwrap();
        let stored: nightjar_shared::wire::BlobStored = message(&mut receive).await;
        assert_eq!(stored.refusal.unwrap().code(), RefusalCode::BadDelta);
    }
    assert_eq!(refusal(link.ask(ask::Body::DeltaOffer(offer)).await).code(), RefusalCode::LeaseGone);
    assert_ne!(link.lease(LeaseRequest::default()).await.id, lease.id, "not the same again");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_again_and_again_is_given_no_work_for_a_while() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let (device, other) = (Device::new(&bed), Device::new(&bed));
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    // Anybody may be unlucky twice.
    for n in 1..=3 {
        let lease = link.lease(LeaseRequest::default()).await;
        let (_, mut offer) = trained(&bed.spec.model, &lease, 1);
        offer.steps += 1;
        let refusal = refusal(link.ask(ask::Body::DeltaOffer(offer)).await);
        assert_eq!((refusal.code(), refusal.action()), (RefusalCode::BadDelta, RefusalAction::DropLease));
        assert_eq!(refusal.retry_ms > 0, n == 3);
    }
    let held = refusal(link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await);
    assert_eq!((held.code(), held.action()), (RefusalCode::BadDelta, RefusalAction::Retry));
    assert!(held.sentence.contains("steps on") && held.retry_ms > 0, "with the reason: {}", held.sentence);
    let mut other = other.join(server.address, bed.invite(Role::Volunteer)).await;
    other.lease(LeaseRequest::default()).await;
    server.stop().await;
}

async fn renamed(link: &mut Link, name: String) -> answer::Body {
    let hello =
        Hello { role: Role::Volunteer as i32, codecs: (1..6).collect(), kinds: vec![1], name, ..Hello::default() };
    link.ask(ask::Body::Hello(hello)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_not_renamed_without_end() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let mut link = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
    let mut taken = 0;
    let refused = loop {
        match renamed(&mut link, format!("name {taken}")).await {
            answer::Body::Welcome(_) => taken += 1,
            answer::Body::Refusal(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
        assert!(taken < 2 * RENAMES_BURST, "{taken} times");
    };
    assert_eq!((refused.code(), refused.action()), (RefusalCode::Limit, RefusalAction::Retry));
    assert!(refused.retry_ms > 0);
    // By the name that it has, it is as welcome as ever.
    assert!(matches!(renamed(&mut link, format!("name {}", taken - 1)).await, answer::Body::Welcome(_)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_end_is_answered_with_when_to_come_again() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let mut link = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
    let renewal = nightjar_shared::wire::LeaseRenew { lease_id: 99, generation: 0, steps_done: 0 };
    // Many at once, over the streams that a device has.
    let mut last = refusal(link.ask(ask::Body::LeaseRenew(renewal)).await);
    for _ in 0..2000 {
        if last.code() == RefusalCode::Busy {
            break;
        }
        last = refusal(link.ask(ask::Body::LeaseRenew(renewal)).await);
    }
    assert_eq!((last.code(), last.action()), (RefusalCode::Busy, RefusalAction::Retry));
    assert!(last.retry_ms > 0);
    server.stop().await;
}

/// A limit that bites says so to the device, and to whoever looks after the run.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_invite_may_take_is_bounded_and_its_refusals_are_counted() {
    let mut bed = Bed::new();
    bed.limits = vec!["enrolments-per-invite=3/1", "connections-per-invite=2", "bytes-per-device=1K/1K"];
    let server = bed.serve().await;
    let devices = [(); 4].map(|()| Device::new(&bed));
    let invite = || bed.invite(Role::Volunteer);
    let first = devices[0].join(server.address, invite()).await;
    let mut second = devices[1].join(server.address, invite()).await;

    // Enrolled or not, a third is not connected beside them.
    let mut third = devices[2].link(server.address).await;
    let stranger = refusal(third.hello(invite(), Role::Volunteer).await);
    assert!(stranger.action() == RefusalAction::Retry && stranger.retry_ms > 0, "{stranger:?}");
    first.connection.close(0, b"");
    server
        .until(|status| status["devices"].as_array().unwrap().iter().filter(|d| d["online"] == true).count() == 1)
        .await;
    assert!(matches!(third.hello(invite(), Role::Volunteer).await, answer::Body::Welcome(_)));
    second.connection.close(0, b"");
    server
        .until(|status| status["devices"].as_array().unwrap().iter().filter(|d| d["online"] == true).count() == 1)
        .await;
    let mut fourth = devices[3].link(server.address).await;
    let told = refusal(fourth.hello(invite(), Role::Volunteer).await);
    assert!(told.sentence.contains("with this invite") && told.retry_ms > 1_000_000, "{told:?}");
    // Who has enrolled before comes back as ever.
    second = devices[1].join(server.address, vec![]).await;

    let lease = second.lease(LeaseRequest::default()).await;
    let shard = lease.shard.unwrap();
    assert!(shard.bytes > 1024);
    for is_served in [true, false] {
        let get = Kind::Get(BlobGet { hash: shard.hash.clone(), offset: 0 });
        let (_send, mut receive) = open(&second.connection, get).await;
        let head: BlobHead = message(&mut receive).await;
        assert_eq!(head.refusal.is_none(), is_served, "{head:?}");
        match head.refusal {
            None => drop(receive.read_to_end(1 << 20).await.unwrap()),
            Some(told) => assert!(told.sentence.contains("very much") && told.retry_ms > 60_000, "{told:?}"),
        }
    }
    let limits = server.status().await["limits"].clone();
    assert_eq!(limits["enrolments-per-invite"], 1, "{limits}");
    assert!(limits["connections-per-invite"].as_u64() >= Some(1) && limits["bytes-per-device"] == 1, "{limits}");
    let http = server.http;
    let figures = tokio::task::spawn_blocking(move || get(http, "/metrics")).await.unwrap();
    for sample in [r#"{limit="enrolments-per-invite"} 1"#, r#"{limit="requests-per-address"} 0"#] {
        assert!(figures.contains(&format!("nightjar_limit_refusals_total{sample}\n")), "{sample}: {figures}");
    }
    assert_eq!(limits["requests-per-device"], 0, "{limits}");
    server.stop().await;
}
