//! One lease's exchange as version 1 of the protocol put it on the wire, recorded. Devices in the field speak it for
//! years, so the bytes must keep their meaning: what was recorded decodes to the same messages, and they encode to it.

use nightjar_shared::{
    ids::BlobHash,
    wire::{
        Blob, BlobGet, BlobHead, BlobPut, BlobStored, ControlOpen, CoordinatorMessage, DeltaOffer, DeviceMessage, Done,
        Evaluation, HeldWeights, Hello, Lease, LeaseKind, LeaseRenew, LeaseRequest, LeaseReturn, Leave, Refusal,
        RefusalAction, RefusalCode, Role, StreamOpen, UpdateStep, UploadFrom, Welcome, coordinator_message as down,
        device_message as up, frame, stream_open,
    },
};
use prost::Message;
use std::fmt::Debug;

const RECORDED: &str = include_str!("exchange_v1.txt");

fn blob(name: &str, bytes: u64) -> Blob {
    Blob::new(BlobHash::of(name.as_bytes()), bytes)
}

fn asks(request: u64, body: up::Body) -> DeviceMessage {
    DeviceMessage { request, body: Some(body) }
}

fn answers(request: u64, body: down::Body) -> CoordinatorMessage {
    CoordinatorMessage { request, body: Some(body) }
}

fn opens(kind: stream_open::Kind) -> StreamOpen {
    StreamOpen { kind: Some(kind) }
}

/// Compares a message with the recorded line of its name.
fn check<M: Message + Default + PartialEq + Debug>(name: &str, message: &M) {
    let hex = data_encoding::HEXLOWER.encode(&frame::encode(message));
    let line = RECORDED.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let recorded = line.unwrap_or_else(|| panic!("not recorded:\n{name} {hex}"));
    assert_eq!(hex, recorded, "{name} is no longer written as version 1 wrote it");
    let bytes = data_encoding::HEXLOWER.decode(recorded.as_bytes()).unwrap();
    assert_eq!(&frame::decode::<M>(&bytes[4..]).unwrap(), message, "{name} is no longer understood");
}

#[test]
fn a_leases_exchange() {
    check("open-control", &opens(stream_open::Kind::Control(ControlOpen {})));
    let hello = Hello {
        software: "nightjar 0.1.0".into(),
        invite: b"token".to_vec(),
        role: Role::Volunteer as i32,
        codecs: vec![1],
        kinds: vec![LeaseKind::Train as i32, LeaseKind::Evaluate as i32],
        name: "attic".into(),
        device: "flex, 2 threads".into(),
        run_id: vec![3; 32],
        ..Hello::default()
    };
    check("hello", &asks(1, up::Body::Hello(hello)));
    let welcome = Welcome {
        run_id: vec![3; 32],
        generation: 1_795_474_882,
        run_spec_json: "{\"name\":\"demo\",\"token_budget\":1}".into(),
        codec: 1,
        keep_alive_ms: 20_000,
        public_keys: vec![],
    };
    check("welcome", &answers(1, down::Body::Welcome(welcome)));
    let request = LeaseRequest {
        held: Some(HeldWeights { version: 6, digest: vec![5; 32] }),
        shards: vec![vec![9; 32]],
        memory_bytes: 8 << 30,
        ..LeaseRequest::default()
    };
    check("lease-request", &asks(2, up::Body::LeaseRequest(request)));
    let lease = Lease {
        id: 41,
        generation: 1_795_474_882,
        kind: LeaseKind::Train as i32,
        base_version: 8,
        base_digest: vec![7; 32],
        keyframe: Some(blob("keyframe", 1_649_072)),
        updates: vec![UpdateStep { update: Some(blob("update", 827_712)), redefines: true }],
        shard: Some(blob("shard", 398_000)),
        shard_samples: 8016,
        first_sample: 160,
        samples: 240,
        steps: 60,
        progress_tokens: 912_384,
        progress_tokens_per_step: 896,
        remaining_ms: 60_000,
        codec: 1,
        ..Lease::default()
    };
    check("lease", &answers(2, down::Body::Lease(lease)));
    check("get", &opens(stream_open::Kind::Get(BlobGet { hash: BlobHash::of(b"shard").0.to_vec(), offset: 65_536 })));
    check("head", &BlobHead { bytes: 398_000, offset: 65_536, refusal: None });
    check(
        "renew",
        &asks(3, up::Body::LeaseRenew(LeaseRenew { lease_id: 41, generation: 1_795_474_882, steps_done: 17 })),
    );
    let offer = DeltaOffer {
        lease_id: 41,
        generation: 1_795_474_882,
        delta: Some(blob("delta", 837_372)),
        steps: 60,
        samples: 240,
        train_ms: 14_800,
        loss_first: 2.25,
        loss_last: 2.125,
    };
    check("offer", &asks(4, up::Body::DeltaOffer(offer)));
    check("upload", &answers(4, down::Body::Upload(UploadFrom { offset: 131_072 })));
    check("put", &opens(stream_open::Kind::Put(BlobPut { blob: Some(blob("delta", 837_372)), lease_id: 41 })));
    check("stored", &BlobStored { refusal: None });
    check("done", &answers(5, down::Body::Done(Done { version: 9, merged: true, note: String::new() })));
}

#[test]
fn what_else_is_said() {
    let generation = 1_795_474_882;
    let back = LeaseReturn { lease_id: 42, generation, why: "its owner is using it".into() };
    check("return", &asks(6, up::Body::LeaseReturn(back)));
    let measured = Evaluation { lease_id: 43, generation, nats: 49_446.5, tokens: 32_768 };
    check("evaluation", &asks(7, up::Body::Evaluation(measured)));
    check("leave", &asks(8, up::Body::Leave(Leave {})));
    let refusal = Refusal {
        code: RefusalCode::LeaseGone as i32,
        sentence: "The lease has ended.".into(),
        action: RefusalAction::DropLease as i32,
        retry_ms: 0,
    };
    check("refusal", &answers(9, down::Body::Refusal(refusal)));
}

/// A field that a later version adds is passed over, and what is known is understood.
#[test]
fn unknown_fields_are_ignored() {
    let mut bytes = asks(8, up::Body::Leave(Leave {})).encode_to_vec();
    bytes.extend([0xfa, 0x3e, 0x03, b'n', b'e', b'w']); // field 1007, length-delimited
    assert_eq!(DeviceMessage::decode(&bytes[..]).unwrap(), asks(8, up::Body::Leave(Leave {})));
}
