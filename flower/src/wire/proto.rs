//! The messages of flwr's protobuf files that a SuperNode needs, written by hand: names and numbers are Flower's.

#![allow(missing_docs)]

use prost::{Message, Oneof};

/// Who speaks.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
}

/// Makes a key known, where the SuperLink lets everybody in.
#[derive(Clone, PartialEq, Message)]
pub struct RegisterNode {
    #[prost(bytes = "vec", tag = "1")]
    pub public_key: Vec<u8>,
}

/// From now on the node takes messages.
#[derive(Clone, PartialEq, Message)]
pub struct ActivateNode {
    #[prost(bytes = "vec", tag = "1")]
    pub public_key: Vec<u8>,
    #[prost(double, tag = "2")]
    pub heartbeat_interval: f64,
}

/// A node's number: the answer to [`ActivateNode`], and the question that ends it.
#[derive(Clone, PartialEq, Message)]
pub struct NodeId {
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
}

/// The node is still there.
#[derive(Clone, PartialEq, Message)]
pub struct Heartbeat {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(double, tag = "2")]
    pub heartbeat_interval: f64,
}

/// Whether the SuperLink knows it.
#[derive(Clone, PartialEq, Message)]
pub struct HeartbeatAnswer {
    #[prost(bool, tag = "1")]
    pub success: bool,
}

/// Asks for a message.
#[derive(Clone, PartialEq, Message)]
pub struct PullMessages {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
}

/// One message, or none.
#[derive(Clone, PartialEq, Message)]
pub struct PulledMessages {
    #[prost(message, repeated, tag = "2")]
    pub messages: Vec<Envelope>,
}

/// Sends a message, without its objects.
#[derive(Clone, PartialEq, Message)]
pub struct PushMessages {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(message, repeated, tag = "2")]
    pub messages: Vec<Envelope>,
    #[prost(message, repeated, tag = "3")]
    pub trees: Vec<ObjectTree>,
    #[prost(double, repeated, tag = "4")]
    pub runtimes_s: Vec<f64>,
}

/// Which of its objects are wanted, and the word under which they are taken.
#[derive(Clone, PartialEq, Message)]
pub struct PushedMessages {
    #[prost(string, repeated, tag = "3")]
    pub objects_to_push: Vec<String>,
    #[prost(string, tag = "4")]
    pub session_id: String,
}

/// Whose a message is.
#[derive(Clone, PartialEq, Message, serde::Serialize, serde::Deserialize)]
pub struct Metadata {
    #[prost(uint64, tag = "1")]
    pub run_id: u64,
    #[prost(string, tag = "2")]
    pub message_id: String,
    #[prost(uint64, tag = "3")]
    pub src_node_id: u64,
    #[prost(uint64, tag = "4")]
    pub dst_node_id: u64,
    #[prost(string, tag = "5")]
    pub reply_to_message_id: String,
    #[prost(string, tag = "6")]
    pub group_id: String,
    /// Seconds.
    #[prost(double, tag = "7")]
    pub ttl: f64,
    #[prost(string, tag = "8")]
    pub message_type: String,
    /// Seconds since 1970.
    #[prost(double, tag = "9")]
    pub created_at: f64,
    #[prost(uint64, optional, tag = "10")]
    pub src_task_id: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    pub dst_task_id: Option<u64>,
}

/// Stands for content, which travels as objects.
#[derive(Clone, PartialEq, Message)]
pub struct Content {}

/// Why there is none.
#[derive(Clone, PartialEq, Message)]
pub struct Fault {
    #[prost(sint64, tag = "1")]
    pub code: i64,
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// A message without its objects.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    pub content: Option<Content>,
    #[prost(message, optional, tag = "3")]
    pub error: Option<Fault>,
}

/// The names of a message's objects.
#[derive(Clone, PartialEq, Message)]
pub struct ObjectTree {
    #[prost(string, tag = "1")]
    pub object_id: String,
    #[prost(message, repeated, tag = "2")]
    pub children: Vec<ObjectTree>,
}

/// Asks for an object.
#[derive(Clone, PartialEq, Message)]
pub struct PullObject {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub run_id: u64,
    #[prost(string, tag = "3")]
    pub object_id: String,
}

/// The object, if it is there by now.
#[derive(Clone, PartialEq, Message)]
pub struct PulledObject {
    #[prost(bool, tag = "1")]
    pub object_found: bool,
    #[prost(bool, tag = "2")]
    pub object_available: bool,
    #[prost(bytes = "vec", tag = "3")]
    pub object_content: Vec<u8>,
}

/// Sends an object.
#[derive(Clone, PartialEq, Message)]
pub struct PushObject {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub run_id: u64,
    #[prost(string, tag = "3")]
    pub object_id: String,
    #[prost(bytes = "vec", tag = "4")]
    pub object_content: Vec<u8>,
    #[prost(string, tag = "5")]
    pub session_id: String,
}

/// Whether it was taken.
#[derive(Clone, PartialEq, Message)]
pub struct PushedObject {
    #[prost(bool, tag = "1")]
    pub stored: bool,
}

/// All objects of a message are here.
#[derive(Clone, PartialEq, Message)]
pub struct ConfirmReceived {
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    #[prost(uint64, tag = "2")]
    pub run_id: u64,
    #[prost(string, tag = "3")]
    pub message_object_id: String,
}

/// Nothing to say.
#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

/// A value of a record.
#[derive(Clone, PartialEq, Oneof)]
pub enum Scalar {
    #[prost(double, tag = "1")]
    Double(f64),
    #[prost(sint64, tag = "2")]
    Integer(i64),
}

/// The same, as it travels.
#[derive(Clone, PartialEq, Message)]
pub struct RecordValue {
    #[prost(oneof = "Scalar", tags = "1, 2")]
    pub value: Option<Scalar>,
}

/// One entry of a record.
#[derive(Clone, PartialEq, Message)]
pub struct RecordItem {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<RecordValue>,
}

/// The body of a metric record.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<RecordItem>,
}
