//! A reply is read again by the reader of messages, since both sides arrange alike.

use super::*;
use crate::{
    job::tests::model,
    wire::{
        incoming::{self, IncomingError},
        npy::Dtype,
        object::{Object, ObjectError},
    },
};
use std::collections::BTreeMap;

const BY: Sender = Sender { node: 9, now_s: 1010.0 };

fn asked() -> Metadata {
    Metadata {
        run_id: 3,
        message_id: "asked".into(),
        src_node_id: 1,
        group_id: "2".into(),
        ttl: 60.0,
        message_type: "train".into(),
        created_at: 1000.0,
        dst_task_id: None,
        src_task_id: Some(5),
        ..Metadata::default()
    }
}

fn arrangement(dtypes: [Dtype; 2]) -> Arrangement {
    Arrangement { record: "weights".into(), arrays: vec![(1, dtypes[0]), (0, dtypes[1])] }
}

fn stored(reply: &Reply<'_>) -> BTreeMap<String, Vec<u8>> {
    reply.objects().map(|part| (part.name.to_owned(), part.bytes())).collect()
}

fn read(root: &str, objects: &BTreeMap<String, Vec<u8>>) -> Result<incoming::Incoming, IncomingError<String>> {
    incoming::read(root, &model(), |name| objects.get(name).cloned().ok_or(name.to_owned()))
}

#[test]
fn what_is_sent_can_be_read_by_its_names() {
    let flat: Vec<f32> = (0..9).map(|n| n as f32 / 7.0).collect();
    let ours = arrangement([Dtype::Float32, Dtype::Int64]);
    let metrics = [("num-examples", Scalar::Integer(40)), ("train-loss", Scalar::Double(2.5))];
    let reply = Reply::new(&asked(), &BY, Some((&model(), &ours, &flat)), &metrics);
    let Metadata { run_id, src_node_id, dst_node_id, ttl, created_at, .. } = reply.metadata;
    assert_eq!((run_id, src_node_id, dst_node_id, ttl, created_at), (3, 9, 1, 50.0, 1010.0));
    assert_eq!((&*reply.metadata.reply_to_message_id, reply.metadata.dst_task_id), ("asked", Some(5)));
    let objects = stored(&reply);
    assert!(objects.iter().all(|(name, bytes)| Object::read(name, bytes).is_ok()));
    let incoming = read(&reply.metadata.message_id, &objects).unwrap();
    let theirs = arrangement([Dtype::Float32, Dtype::Float64]);
    assert_eq!((incoming.arrangement, incoming.flat), (theirs, flat));
}

#[test]
fn a_fault_has_a_reason_and_nothing_else() {
    let reply = Reply::fault(&asked(), &BY, &"x".repeat(5000));
    let fault = reply.fault.clone().unwrap();
    assert_eq!((fault.code, fault.reason.len()), (APP_ERROR, REASON_CHARS_MAX));
    assert!(fault.reason.starts_with("nightjar-flower: x"));
    assert_eq!((reply.objects().count(), reply.tree().children.len()), (1, 0));
}

#[test]
fn no_array_is_longer_than_its_tensor() {
    let mut larger = model();
    larger.tensors[1].shape = vec![100_000];
    let flat = vec![1.0; 100_006];
    let reply = Reply::new(&asked(), &BY, Some((&larger, &arrangement([Dtype::Float32; 2]), &flat)), &[]);
    let error = read(&reply.metadata.message_id, &stored(&reply)).unwrap_err();
    assert_eq!(error.to_string(), "an array is longer than its tensor");
}

/// What stands in the place of an object that was changed.
fn told(change: impl Fn(&Reply<'_>, &mut BTreeMap<String, Vec<u8>>)) -> String {
    let flat = vec![1.0; 9];
    let reply = Reply::new(&asked(), &BY, Some((&model(), &arrangement([Dtype::Float32; 2]), &flat)), &[]);
    let mut objects = stored(&reply);
    change(&reply, &mut objects);
    read(&reply.metadata.message_id, &objects).unwrap_err().to_string()
}

#[test]
fn nothing_is_taken_on_its_word() {
    let missing = told(|_, objects| objects.retain(|_, bytes| !bytes.starts_with(b"ArrayChunk")));
    assert_eq!(missing.len(), 64, "the name of the piece: {missing}");
    let flipped = told(|_, objects| {
        objects
            .values_mut()
            .filter(|bytes| bytes.starts_with(b"ArrayChunk"))
            .for_each(|bytes| *bytes.last_mut().unwrap() ^= 1);
    });
    assert!(flipped.ends_with("was asked for, and other bytes came"), "{flipped}");
    let no_arrays = Reply::new(&asked(), &BY, None, &[]);
    let error = read(&no_arrays.metadata.message_id, &stored(&no_arrays)).unwrap_err();
    assert_eq!(error.to_string(), "the message has no array record");
    let fault = Reply::fault(&asked(), &BY, "no");
    let error = read(&fault.metadata.message_id, &stored(&fault)).unwrap_err();
    assert_eq!(error.to_string(), "the message has no content");
    assert!(matches!(
        read("x", &BTreeMap::from([("x".into(), vec![])])),
        Err(IncomingError::Object(ObjectError::OtherBytes(_)))
    ));
}
