//! How connections, of which there are many, reach the shell, of which there is one: by a bounded queue of questions. A
//! full queue turns devices away for a moment; it never grows.

use super::stream::StreamError;
use crate::engine::{
    DeviceStatus, Status,
    orders::{Giver, NotDone, Obeyed, Order},
};
use nightjar_shared::{
    ids::{BlobHash, DeviceId, Generation, LeaseId, Version},
    run_spec::RunSpec,
    wire::{
        Invite, Refusal, RefusalCode, coordinator_message as answer, device_message as ask, limits::QUEUE_EVENTS_MAX,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::Instant,
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
    /// When it came.
    pub came: Instant,
    /// Where the answer goes.
    pub answer: oneshot::Sender<answer::Body>,
}

/// What the event loop is asked.
pub enum Question {
    /// To answer a device.
    Request(Box<Request>),
    /// Whether a blob of this length may be uploaded now; if not, why.
    MayUpload {
        /// Who.
        device: DeviceId,
        /// For which lease.
        lease: LeaseId,
        /// The blob's length.
        bytes: u64,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// To end a lease whose uploads come to nothing again and again.
    GiveUp {
        /// Whose.
        device: DeviceId,
        /// Which.
        lease: LeaseId,
        /// Of the coordinator that issued it.
        generation: Generation,
    },
    /// How the run stands, without its devices and curves.
    Status(oneshot::Sender<Status>),
    /// A page of its devices.
    Devices {
        /// Those after this one, by id.
        after: Option<DeviceId>,
        /// So many at most.
        most: usize,
        /// Where the answer goes.
        answer: oneshot::Sender<Vec<DeviceStatus>>,
    },
    /// The devices whose id begins so; two at most.
    DevicesNamed {
        /// Hexadecimal digits.
        digits: String,
        /// Where the answer goes.
        answer: oneshot::Sender<Vec<DeviceStatus>>,
    },
    /// An operator orders something.
    Order {
        /// What.
        order: Order,
        /// Who.
        giver: Giver,
        /// Where the answer goes; dropped where nothing was done.
        answer: oneshot::Sender<Result<Obeyed, NotDone>>,
    },
    /// A blob is damaged and cannot be made anew.
    BlobLost(BlobHash),
    /// It is whole again.
    BlobFound(BlobHash),
    /// To go on under another run spec; what of it is changed, in words, or why not.
    Reload(Box<RunSpec>, oneshot::Sender<Result<Vec<String>, String>>),
    /// Versions before one are given up.
    GivenUp {
        /// The one.
        before: Version,
        /// Told once no device is led over them any more.
        answer: oneshot::Sender<()>,
    },
}

/// A way to ask. Clones lead to the same queue.
#[derive(Clone)]
pub struct ShellHandle {
    questions: mpsc::Sender<Question>,
    /// The event loop waits for something itself.
    is_stalled: Arc<AtomicBool>,
}

/// A handle, and the end of the queue that the shell reads.
pub fn open() -> (ShellHandle, mpsc::Receiver<Question>) {
    let (questions, queue) = mpsc::channel(QUEUE_EVENTS_MAX);
    (ShellHandle { questions, is_stalled: Arc::default() }, queue)
}

/// The answer to a device that comes at a bad time.
pub fn busy() -> Refusal {
    Refusal::retry(RefusalCode::Busy, "The coordinator is busy at the moment.", BUSY_RETRY)
}

impl ShellHandle {
    /// Hands in a device's request and waits for its answer.
    pub async fn request(
        &self,
        device: DeviceId,
        body: ask::Body,
        invite: Option<Invite>,
    ) -> Result<answer::Body, StreamError> {
        if self.is_stalled.load(Ordering::Relaxed) {
            return Ok(answer::Body::Refusal(busy()));
        }
        let (answer, answered) = oneshot::channel();
        let request = Request { device, body, invite, came: Instant::now(), answer };
        match self.questions.try_send(Question::Request(Box::new(request))) {
            Ok(()) => answered.await.map_err(|_| StreamError::Stopping),
            Err(TrySendError::Full(_)) => Ok(answer::Body::Refusal(busy())),
            Err(TrySendError::Closed(_)) => Err(StreamError::Stopping),
        }
    }

    /// While the event loop waits, for a lock on the ledger, say, devices are told to come again.
    pub fn stall(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// Asks whether an upload is welcome; if not, the answer for the device.
    pub async fn may_upload(
        &self,
        device: DeviceId,
        lease: LeaseId,
        bytes: u64,
    ) -> Result<Result<(), Refusal>, StreamError> {
        if self.is_stalled.load(Ordering::Relaxed) {
            return Ok(Err(busy()));
        }
        self.ask(|answer| Question::MayUpload { device, lease, bytes, answer }).await
    }

    /// Has a run go on under another run spec: what is changed, in words, or why not.
    pub async fn reload(&self, spec: RunSpec) -> Result<Result<Vec<String>, String>, StreamError> {
        self.ask(|answer| Question::Reload(Box::new(spec), answer)).await
    }

    /// Questions that wait, and how many may at most.
    pub fn queue(&self) -> (usize, usize) {
        let most = self.questions.max_capacity();
        (most - self.questions.capacity(), most)
    }

    /// Looks at the run alone.
    pub async fn status(&self) -> Result<Status, StreamError> {
        self.ask(Question::Status).await
    }

    /// At most so many devices after one, by id.
    pub async fn devices(&self, after: Option<DeviceId>, most: usize) -> Result<Vec<DeviceStatus>, StreamError> {
        self.ask(|answer| Question::Devices { after, most, answer }).await
    }

    /// The devices whose id begins with these hexadecimal digits; two at most.
    pub async fn devices_named(&self, digits: &str) -> Result<Vec<DeviceStatus>, StreamError> {
        self.ask(|answer| Question::DevicesNamed { digits: digits.to_owned(), answer }).await
    }

    /// Gives an order; it is written down when this returns. An error: nothing was done.
    pub async fn order(&self, order: Order, giver: Giver) -> Result<Result<Obeyed, NotDone>, StreamError> {
        self.ask(|answer| Question::Order { order, giver, answer }).await
    }

    /// Ends a lease whose uploads come to nothing.
    pub async fn give_up(&self, device: DeviceId, lease: LeaseId, generation: Generation) {
        // Where the loop has ended already, the lease ends by its deadline.
        let _ = self.questions.send(Question::GiveUp { device, lease, generation }).await;
    }

    /// Says that a blob is not to be had any more.
    pub async fn blob_is_lost(&self, hash: BlobHash) {
        // Where the loop has ended, nobody asks for it either.
        let _ = self.questions.send(Question::BlobLost(hash)).await;
    }

    /// Says that one is to be had again.
    pub async fn blob_is_found(&self, hash: BlobHash) {
        let _ = self.questions.send(Question::BlobFound(hash)).await;
    }

    /// Has devices led over no version before this one any more, and waits until that is so.
    pub async fn versions_are_given_up(&self, before: Version) -> Result<(), StreamError> {
        self.ask(|answer| Question::GivenUp { before, answer }).await
    }

    /// Asks, waiting for a place in the queue: whoever does so holds one of a bounded number of streams.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, StreamError> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(question(answer)).await.map_err(|_| StreamError::Stopping)?;
        answered.await.map_err(|_| StreamError::Stopping)
    }
}
