//! An answer to a lab's message, as objects. The values of an array become bytes only when their piece is sent.

use super::{
    PIECE_BYTES,
    incoming::Arrangement,
    npy,
    object::make,
    proto::{Envelope, Fault, Metadata, ObjectTree, Record, RecordItem, RecordValue, Scalar},
};
use crate::job::Model;
use prost::Message;
use std::{collections::BTreeSet, ops::Range};

/// Flower's number for an error of an app, which a strategy counts as a failure.
const APP_ERROR: i64 = 2;
/// Of a reason so much is told.
const REASON_CHARS_MAX: usize = 1000;
/// The number of the one who asks.
const SUPERLINK: u64 = 1;

/// One number of an answer.
pub type Metric = (&'static str, Scalar);

/// An object to be sent.
pub struct Part<'a> {
    /// Its name.
    pub name: &'a str,
    made: &'a Made,
    arrays: &'a [npy::Writer<'a>],
}

/// How an object is made.
enum Made {
    /// It is.
    Bytes(Vec<u8>),
    /// Of bytes of an array.
    Piece(usize, Range<usize>),
}

impl Part<'_> {
    /// What is sent.
    pub fn bytes(&self) -> Vec<u8> {
        match self.made {
            Made::Bytes(bytes) => bytes.clone(),
            Made::Piece(array, range) => piece(&self.arrays[*array], range.clone()).0,
        }
    }
}

fn piece(array: &npy::Writer<'_>, range: Range<usize>) -> (Vec<u8>, ObjectTree) {
    make("ArrayChunk", &[], &array.piece(range))
}

/// An answer.
pub struct Reply<'a> {
    /// Whose it is.
    pub metadata: Metadata,
    /// Why there is no content; `None`: there is.
    pub fault: Option<Fault>,
    tree: ObjectTree,
    arrays: Vec<npy::Writer<'a>>,
    /// Each object's name and content, those below before those above.
    parts: Vec<(String, Made)>,
}

/// Whose answer it is, and when.
pub struct Sender {
    /// The node's number.
    pub node: u64,
    /// Seconds since 1970.
    pub now_s: f64,
}

impl<'a> Reply<'a> {
    /// With numbers and, to a message to train, arrays: as the lab arranged them.
    pub fn new(
        to: &Metadata,
        by: &Sender,
        arrays: Option<(&Model, &Arrangement, &'a [f32])>,
        metrics: &[Metric],
    ) -> Self {
        let mut reply = Reply::empty(to, by);
        let (mut records, mut names) = (vec![], vec![]);
        if let Some((model, arrangement, flat)) = arrays {
            let record = reply.add_arrays(model, arrangement, flat);
            names.push(pair(&arrangement.record, &record.object_id));
            records.push(record);
        }
        let items = metrics.iter().map(|(key, value)| {
            let value = Some(RecordValue { value: Some(value.clone()) });
            RecordItem { key: (*key).to_owned(), value }
        });
        let record = reply.add("MetricRecord", &[], &Record { items: items.collect() }.encode_to_vec());
        names.push(pair("metrics", &record.object_id));
        records.push(record);
        let records: Vec<&ObjectTree> = records.iter().collect();
        let content = reply.add("RecordDict", &records, object(&names).as_bytes());
        reply.finish(&[&content])
    }

    /// With a reason why there is nothing else.
    pub fn fault(to: &Metadata, by: &Sender, reason: &str) -> Self {
        let mut reply = Reply::empty(to, by);
        let reason = format!("nightjar-flower: {reason}").chars().take(REASON_CHARS_MAX).collect();
        reply.fault = Some(Fault { code: APP_ERROR, reason });
        reply.finish(&[])
    }

    fn empty(to: &Metadata, by: &Sender) -> Self {
        let metadata = Metadata {
            run_id: to.run_id,
            message_id: String::new(),
            src_node_id: by.node,
            dst_node_id: if to.src_node_id == 0 { SUPERLINK } else { to.src_node_id },
            reply_to_message_id: to.message_id.clone(),
            group_id: to.group_id.clone(),
            // No answer outlives its question.
            ttl: (to.created_at + to.ttl - by.now_s).max(1.0),
            message_type: to.message_type.clone(),
            created_at: by.now_s,
            src_task_id: None,
            dst_task_id: to.src_task_id,
        };
        Reply { metadata, fault: None, tree: ObjectTree::default(), arrays: vec![], parts: vec![] }
    }

    fn add(&mut self, kind: &str, children: &[&ObjectTree], body: &[u8]) -> ObjectTree {
        let (content, tree) = make(kind, children, body);
        self.parts.push((tree.object_id.clone(), Made::Bytes(content)));
        tree
    }

    fn add_arrays(&mut self, model: &Model, arrangement: &Arrangement, flat: &'a [f32]) -> ObjectTree {
        let (mut names, mut trees) = (vec![], vec![]);
        for (place, dtype) in &arrangement.arrays {
            let (tensor, array) = (&model.tensors[*place], self.arrays.len());
            let writer = npy::Writer::new(*dtype, &tensor.shape, &flat[model.range(*place)]);
            let (mut pieces, mut places, length) = (Vec::<ObjectTree>::new(), vec![], writer.len());
            for from in (0..length).step_by(PIECE_BYTES) {
                let range = from..(from + PIECE_BYTES).min(length);
                let (_, tree) = piece(&writer, range.clone());
                // Pieces that are alike are one object.
                let known = pieces.iter().position(|known| known.object_id == tree.object_id);
                places.push(known.unwrap_or(pieces.len()));
                if known.is_none() {
                    self.parts.push((tree.object_id.clone(), Made::Piece(array, range)));
                    pieces.push(tree);
                }
            }
            let body = format!(
                r#"{{"dtype": "{}", "shape": {:?}, "stype": "numpy.ndarray", "arraychunk_ids": {places:?}}}"#,
                dtype.trained().name(),
                tensor.shape
            );
            let pieces: Vec<&ObjectTree> = pieces.iter().collect();
            let tree = self.add("Array", &pieces, body.as_bytes());
            names.push(pair(&tensor.name, &tree.object_id));
            trees.push(tree);
            self.arrays.push(writer);
        }
        let trees: Vec<&ObjectTree> = trees.iter().collect();
        self.add("ArrayRecord", &trees, object(&names).as_bytes())
    }

    fn finish(mut self, content: &[&ObjectTree]) -> Self {
        let envelope = Envelope { metadata: Some(self.metadata.clone()), content: None, error: self.fault.clone() };
        self.tree = self.add("Message", content, &envelope.encode_to_vec());
        self.metadata.message_id = self.tree.object_id.clone();
        self
    }

    /// The names of all its objects.
    pub fn tree(&self) -> &ObjectTree {
        &self.tree
    }

    /// All objects, each once.
    pub fn objects(&self) -> impl Iterator<Item = Part<'_>> {
        let mut known = BTreeSet::new();
        let once = self.parts.iter().filter(move |(name, _)| known.insert(name.as_str()));
        once.map(|(name, made)| Part { name, made, arrays: &self.arrays })
    }
}

fn pair(key: &str, name: &str) -> String {
    // A text always has its JSON.
    format!("{}: \"{name}\"", serde_json::to_string(key).unwrap_or_default())
}

fn object(pairs: &[String]) -> String {
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests;
