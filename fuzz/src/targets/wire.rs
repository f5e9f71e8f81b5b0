//! Messages, and the link that an invite is.

use nightjar_shared::{
    ids::{BlobHash, DeviceId},
    invite,
    lease::{LeaseKind, Offer},
    wire::{self, coordinator_message as answer, device_message as ask, frame, stream_open, worker},
};
use prost::Message;
use std::fmt::Debug;

/// Reads a message. Written and read again it is the same; numbers that are none (NaN) are compared as bytes.
fn read<M: Message + Default + Debug>(bytes: &[u8]) -> Option<M> {
    let message = frame::decode::<M>(bytes).ok()?;
    let frame = frame::encode(&message);
    let length = frame::length(*frame.first_chunk().expect("a length"), usize::MAX).expect("any length");
    let again = frame::decode::<M>(&frame[4..]).expect("what was written is read");
    assert_eq!((length, again.encode_to_vec()), (frame.len() - 4, frame[4..].to_vec()), "{message:?}");
    Some(message)
}

/// What a device sends: a request, or what a stream is for.
pub fn device_message(bytes: &[u8]) {
    if let Some(opened) = read::<wire::StreamOpen>(bytes)
        && let Some(stream_open::Kind::Put(put)) = opened.kind
    {
        put.blob.as_ref().and_then(wire::Blob::name);
    }
    let Some(body) = read::<wire::DeviceMessage>(bytes).and_then(|message| message.body) else { return };
    if wire::request::check(&body).is_err() {
        return;
    }
    match body {
        ask::Body::DeltaOffer(offer) => {
            if let Some(read) = Offer::from_wire(&offer) {
                assert_eq!(read.to_wire().encode_to_vec(), offer.encode_to_vec());
            }
        }
        ask::Body::Hello(hello) => {
            let tame = wire::limits::tame(&hello.name);
            assert!(tame.len() <= wire::limits::TEXT_BYTES_MAX && !tame.contains(char::is_control));
        }
        _ => {}
    }
}

/// What a coordinator sends.
pub fn coordinator_message(bytes: &[u8]) {
    read::<wire::BlobHead>(bytes);
    read::<wire::BlobStored>(bytes);
    if let Some(answer::Body::Lease(lease)) = read::<wire::CoordinatorMessage>(bytes).and_then(|message| message.body)
        && let Some(kind) = LeaseKind::from_wire(lease.kind)
    {
        assert_eq!(kind.to_wire(), lease.kind);
    }
}

/// What agent and worker say to each other.
pub fn worker_message(bytes: &[u8]) {
    read::<worker::ToWorker>(bytes);
    read::<worker::FromWorker>(bytes);
}

/// Text that somebody has pasted.
pub fn invite_link(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(token) = invite::from_link(text) else { return };
    assert_eq!(invite::from_link(&invite::to_link(&token)).as_ref(), Ok(&token), "a link leads to its token");
    assert!(invite::open(&token, |_, _, _| false).is_err());
    if let Ok(opened) = invite::open(&token, |_, message, signature| {
        assert!(message.ends_with(&token[..token.len() - signature.len()]));
        true
    }) {
        assert!(!opened.addresses.is_empty() && opened.public_keys.iter().all(|key| key.len() == 32));
    }
}

fn blob() -> wire::Blob {
    wire::Blob::new(BlobHash::of(b"blob"), 4)
}

pub fn device_messages() -> Vec<Vec<u8>> {
    let hello = wire::Hello {
        software: "0.1.0".into(),
        invite: vec![7; 80],
        codecs: vec![1, 2, 3, 4, 5],
        kinds: vec![1, 2],
        name: "attic".into(),
        device: "a GPU".into(),
        run_id: vec![3; 32],
        ..wire::Hello::default()
    };
    let held = wire::HeldWeights { version: 3, digest: vec![9; 32] };
    let request =
        wire::LeaseRequest { held: Some(held), shards: vec![vec![1; 32]; 3], memory_bytes: 1 << 30, ahead_of: 4 };
    let offer = wire::DeltaOffer {
        lease_id: 5,
        generation: 1_700_000_000,
        delta: Some(blob()),
        steps: 8,
        samples: 32,
        train_ms: 9000,
        loss_first: 2.7,
        loss_last: 2.6,
    };
    let bodies = [
        ask::Body::Hello(hello),
        ask::Body::LeaseRequest(request),
        ask::Body::LeaseReturn(wire::LeaseReturn { lease_id: 5, generation: 1, why: "the owner is back".into() }),
        ask::Body::LeaseRenew(wire::LeaseRenew { lease_id: 5, generation: 1, steps_done: 3 }),
        ask::Body::DeltaOffer(offer),
        ask::Body::Evaluation(wire::Evaluation { lease_id: 5, generation: 1, nats: 4.5, tokens: 100 }),
        ask::Body::Leave(wire::Leave {}),
    ];
    let kinds = [
        stream_open::Kind::Control(wire::ControlOpen {}),
        stream_open::Kind::Get(wire::BlobGet { hash: blob().hash, offset: 7 }),
        stream_open::Kind::Put(wire::BlobPut { blob: Some(blob()), lease_id: 5 }),
    ];
    let messages = bodies.into_iter().map(|body| wire::DeviceMessage { request: 1, body: Some(body) }.encode_to_vec());
    messages.chain(kinds.into_iter().map(|kind| wire::StreamOpen { kind: Some(kind) }.encode_to_vec())).collect()
}

pub fn coordinator_messages() -> Vec<Vec<u8>> {
    let welcome = wire::Welcome {
        public_keys: vec![vec![7; 32], vec![8; 32]],
        run_id: vec![3; 32],
        generation: 1_700_000_000,
        run_spec_json: r#"{"name":"x","token_budget":10}"#.into(),
        codec: 2,
        keep_alive_ms: 20_000,
    };
    let lease = wire::Lease {
        id: 5,
        generation: 1_700_000_000,
        kind: LeaseKind::Train.to_wire(),
        base_version: 3,
        base_digest: vec![9; 32],
        keyframe: Some(blob()),
        updates: vec![wire::UpdateStep { update: Some(blob()), redefines: true }; 2],
        shard: Some(blob()),
        shard_samples: 100,
        samples: 32,
        steps: 8,
        remaining_ms: 60_000,
        codec: 2,
        ..wire::Lease::default()
    };
    let bodies = [
        answer::Body::Welcome(welcome),
        answer::Body::Lease(lease),
        answer::Body::Done(wire::Done { version: 3, merged: true, note: "thank you".into() }),
        answer::Body::Upload(wire::UploadFrom { offset: 9 }),
        answer::Body::Refusal(wire::Refusal::lease_gone("The lease has ended.")),
    ];
    let messages =
        bodies.into_iter().map(|body| wire::CoordinatorMessage { request: 1, body: Some(body) }.encode_to_vec());
    messages.chain([wire::BlobHead { bytes: 9, offset: 3, refusal: None }.encode_to_vec()]).collect()
}

pub fn worker_messages() -> Vec<Vec<u8>> {
    use worker::{from_worker, to_worker};
    let base = worker::Base { keyframe_file: "blobs/x".into(), version: 3, ..worker::Base::default() };
    let slice = worker::Slice { shard_file: "blobs/y".into(), shard_samples: 9, first_sample: 1, samples: 4 };
    let train = worker::Train { lease_id: 5, base: Some(base), slice: Some(slice), ..worker::Train::default() };
    let trained = worker::Trained { delta_hash: vec![7; 32], delta_bytes: 9, ..worker::Trained::default() };
    vec![
        worker::ToWorker { body: Some(to_worker::Body::Train(train)) }.encode_to_vec(),
        worker::FromWorker { body: Some(from_worker::Body::Trained(trained)) }.encode_to_vec(),
    ]
}

pub fn invite_links() -> Vec<Vec<u8>> {
    let invite = wire::Invite {
        addresses: vec!["run.example.org:4433".into(), "[2001:db8::1]:443".into()],
        public_keys: vec![DeviceId::of_spki(b"key").0.to_vec()],
        run_name: "a run".into(),
        nonce: vec![1; 16],
        ..wire::Invite::default()
    };
    let link = invite::to_link(&invite::seal(&invite, |_| [5; 64]));
    let quoted: String =
        link.as_bytes().chunks(70).map(|line| format!("> {}\n", String::from_utf8_lossy(line))).collect();
    vec![link.clone().into_bytes(), quoted.into_bytes(), format!("Join: <{link}>. See you!").into_bytes()]
}
