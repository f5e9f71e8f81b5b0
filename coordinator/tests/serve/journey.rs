//! One lease from end to end, and what a restart keeps of it.

use crate::{
    bed::{Bed, get},
    device::{Device, Link, closed, trained},
};
use nightjar_shared::{
    ids::BlobHash,
    version::{keyframe, update},
    wire::{
        Blob, HeldWeights, Lease, LeaseRequest, RefusalAction, RefusalCode, Role, coordinator_message as answer,
        device_message as ask,
    },
};
use std::time::Duration;

/// Offers until the coordinator says what it wants or has.
async fn offer(link: &mut Link, offer: &nightjar_shared::wire::DeltaOffer) -> answer::Body {
    link.ask(ask::Body::DeltaOffer(offer.clone())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn enrol_lease_download_upload_merge_publish() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;

    let lease: Lease = link.lease(LeaseRequest::default()).await;
    let keyframe_bytes = link.fetch(lease.keyframe.as_ref().unwrap()).await;
    let mut weights = keyframe::decode(&bed.spec.model, &keyframe_bytes).unwrap();
    assert_eq!(weights.digest().as_slice(), lease.base_digest);
    let shard = link.fetch(lease.shard.as_ref().unwrap()).await;
    assert_eq!(zstd::bulk::decompress(&shard, 1 << 20).unwrap().len(), 2 * 9 * lease.shard_samples as usize);

    // Half of the delta goes up, then the connection drops.
    let (delta, offered) = trained(&bed.spec.model, &lease, 1);
    assert!(matches!(offer(&mut link, &offered).await, answer::Body::Upload(from) if from.offset == 0));
    let half = delta.len() / 2;
    let (mut send, _receive, start) = link.put(lease.id, offered.delta.clone().unwrap()).await;
    assert_eq!(start, Ok(0));
    send.write_all(&delta[..half]).await.unwrap();
    wait_until(async || server.status().await["bytes_up"].as_u64().unwrap() > 0).await;
    // Written bytes travel before a close does only if they are given the time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    link.connection.close(0, b"dropped");

    // The same device comes back, without its invite, and goes on from there.
    let mut link = device.join(server.address, vec![]).await;
    let mut have = 0;
    for _ in 0..100 {
        match offer(&mut link, &offered).await {
            answer::Body::Upload(from) => have = from.offset,
            other => panic!("{other:?}"),
        }
        if have > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(have, half as u64);
    link.upload(lease.id, &delta).await.unwrap();
    for _ in 0..2 {
        assert!(
            matches!(offer(&mut link, &offered).await, answer::Body::Done(done) if done.merged),
            "twice the same answer"
        );
    }

    // The next lease leads from the weights at hand to the new version by its update.
    let held = HeldWeights { version: 0, digest: lease.base_digest.clone() };
    let mut next = link.lease(LeaseRequest { held: Some(held.clone()), ..LeaseRequest::default() }).await;
    while next.base_version == 0 {
        let given_back =
            nightjar_shared::wire::LeaseReturn { lease_id: next.id, generation: next.generation, why: String::new() };
        link.ask(ask::Body::LeaseReturn(given_back)).await;
        next = link.lease(LeaseRequest { held: Some(held.clone()), ..LeaseRequest::default() }).await;
    }
    assert_eq!((next.base_version, next.keyframe.is_none(), next.updates.len()), (1, true, 1));
    let step = &next.updates[0];
    update::apply(&bed.spec.model, &mut weights, &link.fetch(step.update.as_ref().unwrap()).await).unwrap();
    assert_eq!(weights.digest().as_slice(), next.base_digest);

    let status = server.status().await;
    assert_eq!((status["merged"].as_u64(), status["version"].as_u64()), (Some(1), Some(1)), "{status}");
    assert_eq!(status["tokens"].as_u64(), Some(u64::from(lease.samples) * 8));
    assert_eq!((&status["devices"][0]["online"], &status["devices"][0]["training"]), (&true.into(), &true.into()));
    assert!(status["bytes_up"].as_u64().unwrap() >= delta.len() as u64);
    assert!(status["bytes_down"].as_u64().unwrap() >= (shard.len() + keyframe_bytes.len()) as u64);
    let page = get(server.http, "/");
    assert!(page.contains("a &lt;b&gt;device") && !page.contains("<b>device"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_was_acknowledged_and_open_leases() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let (device, other) = (Device::new(&bed), Device::new(&bed));
    let mut link = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    let (delta, offered) = trained(&bed.spec.model, &lease, 1);
    link.upload(lease.id, &delta).await.unwrap();
    assert!(matches!(offer(&mut link, &offered).await, answer::Body::Done(done) if done.merged));
    let mut second = other.join(server.address, bed.invite(Role::Volunteer)).await;
    let open_lease = second.lease(LeaseRequest::default()).await;
    let before = server.status().await;
    server.stop().await;

    let server = bed.serve().await;
    let after = server.status().await;
    assert_eq!((&after["merged"], &after["tokens"]), (&before["merged"], &before["tokens"]));
    assert!(after["generation"].as_u64() > before["generation"].as_u64());
    assert!(after["bytes_down"].as_u64() >= before["bytes_down"].as_u64());
    let mut link = device.join(server.address, vec![]).await;
    assert!(matches!(offer(&mut link, &offered).await, answer::Body::Done(done) if done.merged));
    // What the other trained under the lease of the earlier generation counts.
    let mut second = other.join(server.address, vec![]).await;
    let (delta, offered) = trained(&bed.spec.model, &open_lease, 2);
    second.upload(open_lease.id, &delta).await.unwrap();
    assert!(matches!(offer(&mut second, &offered).await, answer::Body::Done(done) if done.merged));
    assert_eq!(server.status().await["merged"], 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pinned_key_and_a_good_invite_lead_in() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let misled = Device::pinning([9; 32]).connect(server.address).await.unwrap_err();
    assert!(misled.to_string().contains("not the pinned key"), "{misled}");

    let device = Device::new(&bed);
    let mut link = device.link(server.address).await;
    let elsewhere = Bed::new();
    let mut expired = nightjar_shared::wire::Invite { addresses: vec!["h:1".into()], role: 1, ..Default::default() };
    expired.expires_unix_ms = 1;
    let invites = [
        (vec![], "invite"),
        (b"junk".repeat(40), "damaged"),
        (elsewhere.invite(Role::Volunteer), "signature"),
        (bed.identity().sign_invite(expired), "expired"),
    ];
    for (invite, word) in invites {
        match link.hello(invite, Role::Volunteer).await {
            answer::Body::Refusal(refusal) => {
                assert_eq!(refusal.code(), RefusalCode::Invite);
                assert!(refusal.sentence.to_lowercase().contains(word), "{word}: {}", refusal.sentence);
            }
            other => panic!("{other:?}"),
        }
    }
    match link.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await {
        answer::Body::Refusal(refusal) => assert_ne!(refusal.action(), RefusalAction::Retry, "{refusal:?}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(link.hello(bed.invite(Role::Volunteer), Role::Volunteer).await, answer::Body::Welcome(_)));
    // Once enrolled, an invite that has become useless does no harm.
    assert!(matches!(link.hello(b"junk".repeat(40), Role::Volunteer).await, answer::Body::Welcome(_)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_connection_of_a_device_is_the_one() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let device = Device::new(&bed);
    let older = device.join(server.address, bed.invite(Role::Volunteer)).await;
    let mut newer = device.join(server.address, vec![]).await;
    let why = closed(&older.connection).await;
    assert!(why.to_string().contains("connected again"), "{why}");
    newer.lease(LeaseRequest::default()).await;
    assert_eq!(server.status().await["devices"][0]["online"], true);
    let blob = Blob::new(BlobHash([1; 32]), 1);
    assert!(newer.put(99, blob).await.2.is_err());
    server.stop().await;
}

async fn wait_until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it never came");
}
