//! One stream of a device, both directions: framed messages and raw bytes, each with a bound and a time limit, and
//! every byte counted.

use super::budget::{Budget, NoRoom};
use nightjar_shared::wire::{
    close::CloseCode,
    frame::{self, FrameError},
    limits::{CHUNK_BYTES, PIECE_S_MAX, TRANSFER_WINDOW_BYTES},
};
use prost::Message;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};
use web_transport_quinn::{ReadError, ReadExactError, RecvStream, SendStream, WriteError};

/// Longest time that a message or a chunk may take, either way.
const PIECE_MAX: Duration = Duration::from_secs(PIECE_S_MAX);

/// Why a stream ends before all is said.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection or the stream is gone; there is nobody to tell.
    #[error("the device is gone")]
    Gone,
    /// Silent or too slow.
    #[error("the device was silent, or too slow")]
    Slow,
    /// Not what the protocol allows.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message that does not belong here.
    #[error("{0}")]
    OutOfTurn(&'static str),
    /// The event loop has ended.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The fault is here.
    #[error("{0}")]
    Internal(String),
}

impl From<NoRoom> for StreamError {
    fn from(NoRoom: NoRoom) -> Self {
        StreamError::Slow
    }
}

impl StreamError {
    /// How the connection is to be closed; `None` where only the stream ends.
    pub fn close_code(&self) -> Option<CloseCode> {
        match self {
            StreamError::Gone => None,
            StreamError::Slow => Some(CloseCode::Slow),
            StreamError::Frame(_) | StreamError::OutOfTurn(_) => Some(CloseCode::Malformed),
            StreamError::Stopping => Some(CloseCode::Stopping),
            StreamError::Internal(_) => Some(CloseCode::Internal),
        }
    }
}

impl From<ReadError> for StreamError {
    fn from(_: ReadError) -> Self {
        StreamError::Gone
    }
}

impl From<WriteError> for StreamError {
    fn from(_: WriteError) -> Self {
        StreamError::Gone
    }
}

/// Bytes read from and written to all streams since the process started, and how many of them were taken down.
#[derive(Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
    up_taken: AtomicU64,
    down_taken: AtomicU64,
}

impl Traffic {
    /// Bytes from and to devices that were not taken yet. One at a time takes them.
    pub fn take(&self) -> (u64, u64) {
        let (up, down) = self.peek();
        self.up_taken.fetch_add(up, Ordering::Relaxed);
        self.down_taken.fetch_add(down, Ordering::Relaxed);
        (up, down)
    }

    /// So many travelled through a door.
    pub fn add(&self, up: u64, down: u64) {
        self.up.fetch_add(up, Ordering::Relaxed);
        self.down.fetch_add(down, Ordering::Relaxed);
    }

    /// What was taken could not be told: it is taken again later.
    pub fn put_back(&self, up: u64, down: u64) {
        self.up_taken.fetch_sub(up, Ordering::Relaxed);
        self.down_taken.fetch_sub(down, Ordering::Relaxed);
    }

    /// Bytes from and to devices that were not taken yet.
    pub fn peek(&self) -> (u64, u64) {
        let (up, down) = self.total();
        (up - self.up_taken.load(Ordering::Relaxed), down - self.down_taken.load(Ordering::Relaxed))
    }

    /// Bytes from and to devices since the process started.
    pub fn total(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    /// Counts bytes that never travelled.
    #[cfg(test)]
    pub fn count_for_tests(&self, up: u64, down: u64) {
        self.up.fetch_add(up, Ordering::Relaxed);
        self.down.fetch_add(down, Ordering::Relaxed);
    }
}

/// What the device sends.
pub struct Up {
    stream: RecvStream,
    traffic: Arc<Traffic>,
    budget: Budget,
}

/// What the device is sent.
pub struct Down {
    stream: SendStream,
    traffic: Arc<Traffic>,
}

/// A stream's two directions.
pub fn split(down: SendStream, up: RecvStream, traffic: &Arc<Traffic>, budget: &Budget) -> (Up, Down) {
    let up = Up { stream: up, traffic: traffic.clone(), budget: budget.clone() };
    (up, Down { stream: down, traffic: traffic.clone() })
}

async fn within<T, E: Into<StreamError>>(
    limit: Duration,
    read: impl Future<Output = Result<T, E>>,
) -> Result<T, StreamError> {
    timeout(limit, read).await.map_err(|_| StreamError::Slow)?.map_err(Into::into)
}

impl Up {
    /// The stream's first message; one that does not come soon is not waited for.
    pub async fn first_message<M: Message + Default>(&mut self, most: usize) -> Result<M, StreamError> {
        within(PIECE_MAX, self.message(most)).await?.ok_or(StreamError::Gone)
    }

    /// The next message, of at most so many bytes, however long the device is silent before it; `None` where the device
    /// has ended the stream.
    pub async fn message<M: Message + Default>(&mut self, most: usize) -> Result<Option<M>, StreamError> {
        let mut prefix = [0; 4];
        let Some(n) = self.stream.read(&mut prefix).await? else { return Ok(None) };
        let budget = self.budget.clone();
        let body = within(PIECE_MAX, async {
            self.exactly(&mut prefix[n..]).await?;
            let length = frame::length(prefix, most)?;
            let room = budget.for_message(length).await?;
            let mut body = vec![0; length];
            self.exactly(&mut body).await?;
            Ok::<_, StreamError>((body, room))
        });
        let (body, _room) = body.await?;
        self.traffic.up.fetch_add(4 + body.len() as u64, Ordering::Relaxed);
        Ok(Some(frame::decode(&body)?))
    }

    async fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), StreamError> {
        self.stream.read_exact(buffer).await.map_err(|error| match error {
            ReadExactError::FinishedEarly(_) => StreamError::OutOfTurn("the stream ends in the midst of a message"),
            ReadExactError::ReadError(_) => StreamError::Gone,
        })
    }

    /// The next raw bytes, `most` or [`CHUNK_BYTES`]: or as many as come before the stream ends or falters, and then
    /// how it did. So nothing is lost that has arrived.
    pub async fn chunk(&mut self, most: u64) -> (Vec<u8>, Result<(), StreamError>) {
        let mut chunk = vec![0; most.min(CHUNK_BYTES as u64) as usize];
        let mut filled = 0;
        let latest = Instant::now() + PIECE_MAX;
        let end = loop {
            if filled == chunk.len() {
                break Ok(());
            }
            match timeout_at(latest, self.stream.read(&mut chunk[filled..])).await {
                Ok(Ok(Some(n))) => filled += n,
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(error.into()),
                Err(_) => break Err(StreamError::Slow),
            }
        };
        chunk.truncate(filled);
        self.traffic.up.fetch_add(filled as u64, Ordering::Relaxed);
        (chunk, end)
    }
}

impl Down {
    /// Sends a message.
    pub async fn message(&mut self, message: &impl Message) -> Result<(), StreamError> {
        self.bytes(&frame::encode(message)).await
    }

    /// Sends raw bytes, at most a chunk or a message.
    pub async fn bytes(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        within(PIECE_MAX, self.stream.write_all(bytes)).await?;
        self.traffic.down.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Says that this was all, and waits until the device has it: so many bytes of it may still be on their way.
    pub async fn finish_and_drain(mut self, bytes: u64) -> Result<(), StreamError> {
        // Fails only where the device has reset the stream: then nobody waits for its end.
        let _ = self.stream.finish();
        // Whether it was received or given up is the device's affair; that it takes for ever is not.
        let drained = async {
            let _ = self.stream.stopped().await;
            Ok::<_, StreamError>(())
        };
        let pieces = bytes.div_ceil(CHUNK_BYTES as u64).clamp(1, u64::from(TRANSFER_WINDOW_BYTES) / CHUNK_BYTES as u64);
        within(PIECE_MAX * pieces as u32, drained).await
    }

    /// Says that this was all.
    pub fn finish(mut self) {
        // Fails only where the device has reset the stream: then nobody waits for its end.
        let _ = self.stream.finish();
    }
}
