//! The desk between the connections, of which there are many, and the event loop, of which there is one: a bounded queue
//! of questions. A full queue turns devices away for a moment; it never grows.

use super::{
    history::{LossPoint, VersionPoint},
    stream::StreamError,
};
use crate::{
    engine::{DeviceStatus, Status},
    store::{BlobError, Counters},
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, LeaseId},
    wire::{Invite, Refusal, RefusalCode, coordinator_message as answer, device_message as ask, limits::QUEUE_EVENTS_MAX},
};
use std::time::Duration;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

/// When a device that was turned away may come again; it adds its own jitter.
const BUSY_RETRY: Duration = Duration::from_secs(3);

/// A device's request.
pub struct Request {
    /// Who.
    pub device: DeviceId,
    /// What.
    pub body: ask::Body,
    /// The invite that came with it, checked.
    pub invite: Option<Invite>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<answer::Body>,
}

/// What the event loop is asked.
pub enum Question {
    /// To answer a device.
    Request(Box<Request>),
    /// Whether a blob of this length may be uploaded now.
    MayUpload {
        /// Who.
        device: DeviceId,
        /// For which lease.
        lease: LeaseId,
        /// The blob's length.
        bytes: u64,
        /// Where the answer goes.
        answer: oneshot::Sender<bool>,
    },
    /// How the run stands.
    Glance(oneshot::Sender<Glance>),
    /// Nothing can be stored any more.
    DiskFull(BlobError),
    /// A version's blob is damaged and cannot be made anew.
    BlobLost(BlobHash),
}

/// The run at one moment, for people.
pub struct Glance {
    /// The run.
    pub status: Status,
    /// Its devices.
    pub devices: Vec<DeviceStatus>,
    /// Bytes from and to devices since the run began.
    pub counters: Counters,
    /// Held-out losses, thinned.
    pub losses: Vec<LossPoint>,
    /// Versions, thinned.
    pub versions: Vec<VersionPoint>,
}

/// A way to ask. Clones lead to the same queue.
#[derive(Clone)]
pub struct Desk {
    questions: mpsc::Sender<Question>,
}

/// A desk, and the end of the queue that the event loop reads.
pub fn open() -> (Desk, mpsc::Receiver<Question>) {
    let (questions, queue) = mpsc::channel(QUEUE_EVENTS_MAX);
    (Desk { questions }, queue)
}

impl Desk {
    /// Hands in a device's request and waits for its answer.
    pub async fn request(&self, device: DeviceId, body: ask::Body, invite: Option<Invite>) -> Result<answer::Body, StreamError> {
        let (answer, answered) = oneshot::channel();
        match self.questions.try_send(Question::Request(Box::new(Request { device, body, invite, answer }))) {
            Ok(()) => answered.await.map_err(|_| StreamError::Stopping),
            Err(TrySendError::Full(_)) => {
                let busy = Refusal::retry(RefusalCode::Busy, "The coordinator is busy at the moment.", BUSY_RETRY);
                Ok(answer::Body::Refusal(busy))
            }
            Err(TrySendError::Closed(_)) => Err(StreamError::Stopping),
        }
    }

    /// Asks whether an upload is welcome.
    pub async fn may_upload(&self, device: DeviceId, lease: LeaseId, bytes: u64) -> Result<bool, StreamError> {
        self.ask(|answer| Question::MayUpload { device, lease, bytes, answer }).await
    }

    /// Looks at the run.
    pub async fn glance(&self) -> Result<Glance, StreamError> {
        self.ask(Question::Glance).await
    }

    /// Says that nothing can be stored any more.
    pub async fn disk_is_full(&self, error: BlobError) {
        // Where the loop has ended already, it has its reasons.
        let _ = self.questions.send(Question::DiskFull(error)).await;
    }

    /// Says that a version's blob is not to be had any more.
    pub async fn blob_is_lost(&self, hash: BlobHash) {
        // Where the loop has ended, nobody asks for it either.
        let _ = self.questions.send(Question::BlobLost(hash)).await;
    }

    /// Asks, waiting for a place in the queue: whoever does so holds one of a bounded number of streams.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, StreamError> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(question(answer)).await.map_err(|_| StreamError::Stopping)?;
        answered.await.map_err(|_| StreamError::Stopping)
    }
}
