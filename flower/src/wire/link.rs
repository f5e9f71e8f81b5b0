//! Requests to a SuperLink: signed, bounded, one after the other.

use super::{
    FLWR_VERSION, OBJECT_BYTES_MAX,
    proto::{
        ActivateNode, ConfirmReceived, Envelope, Heartbeat, HeartbeatAnswer, Metadata, Node, NodeId, Nothing,
        PullMessages, PullObject, PulledMessages, PulledObject, PushMessages, PushObject, PushedMessages, PushedObject,
        RegisterNode,
    },
    reply::Reply,
};
use crate::{http, key::Key};
use data_encoding::BASE64;
use jiff::{Timestamp, tz::TimeZone};
use prost::Message;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use ureq::Agent;

/// A SuperLink takes a node for gone if it hears nothing for so long.
pub const HEARTBEAT_S: f64 = 30.0;
/// Answers that hold no object.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// An object may not be there yet: it is asked for again, so often at most.
const OBJECT_TRIES: u32 = 600;
const OBJECT_AGAIN: Duration = Duration::from_millis(500);

/// A request that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody answered, or the answer broke off. It may be better in a moment.
    #[error("the SuperLink at {address} does not answer: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// What was seen.
        why: String,
    },
    /// It answered that it will not.
    #[error("the SuperLink refuses {what} ({status}): {words}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// As HTTP has it.
        status: u16,
        /// As it says itself.
        words: String,
    },
    /// The answer is none of this protocol.
    #[error("the SuperLink answers {0} with what is no answer; this program knows flwr {FLWR_VERSION} and 1.41")]
    Nonsense(&'static str),
    /// A message's object is gone.
    #[error("the SuperLink has no object {0} any more")]
    Gone(String),
}

impl LinkError {
    /// Whether asking again may help.
    pub fn may_pass(&self) -> bool {
        match self {
            LinkError::Unreachable { .. } => true,
            LinkError::Refused { status, .. } => matches!(status, 429 | 500..),
            LinkError::Nonsense(_) | LinkError::Gone(_) => false,
        }
    }

    /// Whether the SuperLink does not know the node: it has forgotten it, or never knew its key.
    pub fn is_stranger(&self) -> bool {
        matches!(self, LinkError::Refused { status: 401 | 403, .. })
    }
}

/// One node's way to the SuperLink.
pub struct Link {
    agent: Agent,
    address: String,
    key: Key,
    /// The number that the SuperLink gave it; 0 before it did.
    node: AtomicU64,
}

impl Link {
    /// With the node's key.
    pub fn new(agent: Agent, address: &str, key: Key) -> Self {
        Link { agent, address: address.trim_end_matches('/').to_owned(), key, node: AtomicU64::new(0) }
    }

    fn node(&self) -> Option<Node> {
        Some(Node { node_id: self.node.load(Ordering::Relaxed) })
    }

    fn call<A: Message + Default>(&self, what: &'static str, ask: &impl Message, most: usize) -> Result<A, LinkError> {
        let moment = Timestamp::now().to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string();
        let unreachable =
            |why: &dyn ToString| LinkError::Unreachable { address: self.address.clone(), why: why.to_string() };
        let answer = self
            .agent
            .post(format!("{}/v1/fleet/{what}", self.address))
            .header("content-type", "application/protobuf")
            .header("accept", "application/protobuf")
            .header("flwr-public-key", BASE64.encode(self.key.pem().as_bytes()))
            .header("flwr-signature", BASE64.encode(&self.key.sign(moment.as_bytes())))
            .header("flwr-timestamp", moment)
            .header("flwr-package-name", "flwr")
            .header("flwr-package-version", FLWR_VERSION)
            .header("flwr-component-name", "SuperNode")
            .send(ask.encode_to_vec());
        let answer = answer.map_err(|error| unreachable(&error))?;
        let status = answer.status().as_u16();
        let body = http::body(answer, most).map_err(|error| unreachable(&error))?;
        match status {
            200 => A::decode(&*body).map_err(|_| LinkError::Nonsense(what)),
            status => Err(LinkError::Refused { what, status, words: http::words(&body) }),
        }
    }

    /// Makes the key known, as far as the SuperLink lets it, and takes messages from now on.
    pub fn join(&self) -> Result<u64, LinkError> {
        let public_key = self.key.pem().as_bytes().to_vec();
        let asked = RegisterNode { public_key: public_key.clone() };
        match self.call::<NodeId>("register-node", &asked, ANSWER_BYTES_MAX) {
            // It is known already, or an operator makes keys known there.
            Ok(_) | Err(LinkError::Refused { status: 400..500, .. }) => {}
            Err(error) => return Err(error),
        }
        let asked = ActivateNode { public_key, heartbeat_interval: HEARTBEAT_S };
        let NodeId { node_id } = self.call("activate-node", &asked, ANSWER_BYTES_MAX)?;
        self.node.store(node_id, Ordering::Relaxed);
        Ok(node_id)
    }

    /// Takes no messages any more.
    pub fn leave(&self) -> Result<(), LinkError> {
        let asked = NodeId { node_id: self.node.load(Ordering::Relaxed) };
        self.call::<Nothing>("deactivate-node", &asked, ANSWER_BYTES_MAX).map(drop)
    }

    /// Says that the node is there; false if the SuperLink does not know it.
    pub fn heartbeat(&self) -> Result<bool, LinkError> {
        let asked = Heartbeat { node: self.node(), heartbeat_interval: HEARTBEAT_S };
        match self.call::<HeartbeatAnswer>("send-node-heartbeat", &asked, ANSWER_BYTES_MAX) {
            Err(error) if error.is_stranger() => Ok(false),
            answer => Ok(answer?.success),
        }
    }

    /// The next message, if there is one. It comes once.
    pub fn pull(&self) -> Result<Option<Metadata>, LinkError> {
        let asked = PullMessages { node: self.node() };
        let mut pulled: PulledMessages = self.call("pull-messages", &asked, ANSWER_BYTES_MAX)?;
        Ok(pulled.messages.pop().and_then(|message| message.metadata))
    }

    /// An object of a message; waits for it where it is on its way to the SuperLink itself.
    pub fn object(&self, run_id: u64, name: &str) -> Result<Vec<u8>, LinkError> {
        let asked = PullObject { node: self.node(), run_id, object_id: name.to_owned() };
        for _ in 0..OBJECT_TRIES {
            let pulled: PulledObject = self.call("pull-object", &asked, OBJECT_BYTES_MAX)?;
            match pulled {
                PulledObject { object_available: true, object_content, .. } => return Ok(object_content),
                PulledObject { object_found: false, .. } => break,
                PulledObject { .. } => std::thread::sleep(OBJECT_AGAIN),
            }
        }
        Err(LinkError::Gone(name.to_owned()))
    }

    /// Says that all of a message is here: the SuperLink need not keep it.
    pub fn confirm(&self, message: &Metadata) -> Result<(), LinkError> {
        let (run_id, message_object_id) = (message.run_id, message.message_id.clone());
        let asked = ConfirmReceived { node: self.node(), run_id, message_object_id };
        self.call::<Nothing>("confirm-message-received", &asked, ANSWER_BYTES_MAX).map(drop)
    }

    /// Sends a reply, and of its objects those that the SuperLink lacks, each once.
    pub fn push(&self, reply: &Reply<'_>, runtime_s: f64) -> Result<(), LinkError> {
        let (run_id, content) = (reply.metadata.run_id, reply.fault.is_none().then_some(super::proto::Content {}));
        let message = Envelope { metadata: Some(reply.metadata.clone()), content, error: reply.fault.clone() };
        let (node, trees) = (self.node(), vec![reply.tree().clone()]);
        let asked = PushMessages { node, messages: vec![message], trees, runtimes_s: vec![runtime_s] };
        let wanted: PushedMessages = self.call("push-messages", &asked, ANSWER_BYTES_MAX)?;
        for object in reply.objects().filter(|object| wanted.objects_to_push.iter().any(|name| name == object.name)) {
            let asked = PushObject {
                node: self.node(),
                run_id,
                object_id: object.name.to_owned(),
                object_content: object.bytes(),
                session_id: wanted.session_id.clone(),
            };
            let pushed: PushedObject = self.call("push-object", &asked, ANSWER_BYTES_MAX)?;
            if !pushed.stored {
                return Err(LinkError::Gone(object.name.to_owned()));
            }
        }
        Ok(())
    }

    /// The node's number in a reply.
    pub fn id(&self) -> u64 {
        self.node.load(Ordering::Relaxed)
    }
}
