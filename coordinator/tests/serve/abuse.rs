//! What hostile or broken devices send: each is refused or cut off, and the others never notice.

use crate::{
    bed::{Bed, get_as},
    device::{Device, Link, Way, close_code, closed, message, open, trained},
};
use nightjar_shared::{
    ids::BlobHash,
    wire::{
        Blob, BlobGet, BlobHead, BlobStored, ControlOpen, LeaseRequest, RefusalAction, RefusalCode, Role,
        close::CloseCode, coordinator_message as answer, device_message as ask, limits::MESSAGE_BYTES_MAX,
        stream_open::Kind,
    },
};
use web_transport_quinn::Session;

async fn end_of(connection: &Session) -> Option<CloseCode> {
    close_code(&closed(connection).await)
}

/// The good device is still served.
async fn is_served(link: &mut Link) {
    let renewal = nightjar_shared::wire::LeaseRenew { lease_id: 1, generation: 0, steps_done: 0 };
    assert!(matches!(link.ask(ask::Body::LeaseRenew(renewal)).await, answer::Body::Refusal(_)));
    link.lease(LeaseRequest::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_streams_end_their_connection_and_no_other() {
    for way in Way::ALL {
        let bed = Bed::with_pages();
        let server = bed.serve().await;
        let good = Device::new(&bed);
        let mut good = good.join(server.address, bed.invite(Role::Volunteer)).await;
        let bad = Device::by(way, &bed);

        let too_long = ((MESSAGE_BYTES_MAX + 1) as u32).to_le_bytes().to_vec();
        let gigantic = u32::MAX.to_le_bytes().to_vec();
        let junk = [&8u32.to_le_bytes()[..], &[0xff; 8]].concat();
        let unknown_kind = 0u32.to_le_bytes().to_vec();
        for bytes in [too_long, gigantic, junk, unknown_kind] {
            let connection = bad.connect(server.address).await.unwrap();
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            assert_eq!(end_of(&connection).await, Some(CloseCode::Malformed), "{bytes:?}");
            is_served(&mut good).await;
        }

        // The same within a control stream that began well, and a message that ends too soon.
        for bytes in [[&8u32.to_le_bytes()[..], &[0xff; 8]].concat(), vec![9, 0, 0, 0, 1]] {
            let connection = bad.connect(server.address).await.unwrap();
            let (mut send, _receive) = open(&connection, Kind::Control(ControlOpen {})).await;
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
            assert_eq!(end_of(&connection).await, Some(CloseCode::Malformed), "{bytes:?}");
            is_served(&mut good).await;
        }
        server.stop().await;
    }
}

/// Streams that only the coordinator could open, or datagrams, are not to be had at all where no page may come.
#[tokio::test(flavor = "multi_thread")]
async fn without_pages_there_is_nothing_but_streams_of_both_ways() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let connection = Device::new(&bed).connect(server.address).await.unwrap();
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), connection.open_uni()).await.is_err());
    assert!(connection.send_datagram(vec![0; 10].into()).is_err());
    assert!(Device::by(Way::Page, &bed).connect(server.address).await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_taken_only_as_they_were_leased() {
    for way in Way::ALL {
        let bed = Bed::with_pages();
        let server = bed.serve().await;
        let (device, thief) = (Device::by(way, &bed), Device::by(way, &bed));
        let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
        let lease = link.lease(LeaseRequest::default()).await;
        let (delta, offer) = trained(&bed.spec.model, &lease, 1);
        let blob = offer.delta.clone().unwrap();

        // Another length, another lease, another device.
        let too_large = Blob { bytes: 1 << 40, ..blob.clone() };
        assert_eq!(link.put(lease.id, too_large).await.2.unwrap_err().action(), RefusalAction::DropLease);
        assert!(link.put(lease.id + 1, blob.clone()).await.2.is_err());
        let stranger = thief.join(server.address, bed.invite(Role::Volunteer)).await;
        assert!(stranger.put(lease.id, blob.clone()).await.2.is_err());

        // Fewer bytes than announced: the connection ends, and what has arrived stays.
        let (mut send, _receive, start) = link.put(lease.id, blob.clone()).await;
        assert_eq!(start, Ok(0));
        send.write_all(&[0; 10]).await.unwrap();
        send.finish().unwrap();
        assert_eq!(end_of(&link.connection).await, Some(CloseCode::Malformed));

        // It was other bytes than the name promises, which shows at the end: all of it is thrown away, with the advice
        // to retry.
        let mut link = device.join(server.address, vec![]).await;
        assert!(
            matches!(link.ask(ask::Body::DeltaOffer(offer.clone())).await, answer::Body::Upload(from) if from.offset == 10)
        );
        assert_eq!(link.upload(lease.id, &delta).await.unwrap_err().action(), RefusalAction::Retry);

        // Sent in one go, other bytes are the device's own fault.
        let wrong: Vec<u8> = delta.iter().map(|b| b ^ 1).collect();
        let (mut send, mut receive, start) = link.put(lease.id, blob.clone()).await;
        assert_eq!(start, Ok(0));
        send.write_all(&wrong).await.unwrap();
        let stored: BlobStored = message(&mut receive).await;
        let refusal = stored.refusal.unwrap();
        assert_eq!((refusal.code(), refusal.action()), (RefusalCode::BadDelta, RefusalAction::DropLease));
        assert!(
            matches!(link.ask(ask::Body::DeltaOffer(offer.clone())).await, answer::Body::Upload(from) if from.offset == 0)
        );

        // After all that, the honest upload.
        link.upload(lease.id, &delta).await.unwrap();
        link.upload(lease.id, &delta).await.unwrap();
        assert!(matches!(link.ask(ask::Body::DeltaOffer(offer)).await, answer::Body::Done(done) if done.merged));
        assert!(link.upload(lease.id, &delta).await.is_err(), "the lease has ended");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_blobs_of_the_run_are_sent() {
    for way in Way::ALL {
        let bed = Bed::with_pages();
        let server = bed.serve().await;
        let device = Device::by(way, &bed);
        let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
        let lease = link.lease(LeaseRequest::default()).await;
        let secret = b"not for devices";
        let state = nightjar_coordinator::store::Blobs::new(std::sync::Arc::new(
            nightjar_shared::disk::FolderDisk::open(bed.state()).unwrap(),
        ));
        let stranger = Device::by(way, &bed).connect(server.address).await.unwrap();
        let (_send, mut receive) =
            open(&stranger, Kind::Get(BlobGet { hash: lease.shard.clone().unwrap().hash, offset: 0 })).await;
        let head: BlobHead = message(&mut receive).await;
        assert_eq!(head.refusal.unwrap().code(), RefusalCode::Invite, "only who is enrolled may download");
        let hidden = state.put(secret).unwrap();
        let shard = lease.shard.unwrap();
        let requests = [
            (hidden.0.to_vec(), 0, RefusalCode::NotFound),
            (BlobHash::of(b"nothing").0.to_vec(), 0, RefusalCode::NotFound),
            (b"../../coordinator.pk8".to_vec(), 0, RefusalCode::NotFound),
            (shard.hash.clone(), shard.bytes + 1, RefusalCode::Limit),
            (shard.hash, u64::MAX, RefusalCode::Limit),
        ];
        for (hash, offset, code) in requests {
            let (_send, mut receive) = open(&link.connection, Kind::Get(BlobGet { hash, offset })).await;
            let head: BlobHead = message(&mut receive).await;
            assert_eq!(head.refusal.unwrap().code(), code);
            assert!(receive.read_to_end(10).await.unwrap().is_empty());
        }
        server.stop().await;
    }
}

/// A page elsewhere can have its own name lead here, and would then read what this one tells.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_answers_to_no_name_of_somebody_elses() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let http = server.http;
    let answers = tokio::task::spawn_blocking(move || {
        let paths = ["/", "/api/status"];
        paths.map(|path| ["evil.example", "localhost"].map(|host| get_as(host, http, path).unwrap()))
    });
    for [evil, own] in answers.await.unwrap() {
        assert!(evil.starts_with("HTTP/1.1 421") && !evil.contains(&bed.spec.name), "{evil}");
        assert!(own.starts_with("HTTP/1.1 200"), "{own}");
    }
    server.stop().await;
}
