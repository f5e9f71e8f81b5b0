//! Where the control API's connections come in. Other users of the computer can connect too: on Linux they are sent
//! away; elsewhere they get in the owner's way no more than so many connections can, and none that is silent is kept.

use super::ticket;
use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Connections at once. A page has six at most.
const CONNECTIONS_MAX: usize = 64;
/// A connection is closed once nothing has gone either way for so long. Whoever listens for news hears something every
/// 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// The listening socket.
pub(super) struct LocalListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silence_max: Duration,
}

/// A connection, closed once it has been silent for too long.
pub(super) struct Connection {
    stream: TcpStream,
    /// Fires when it has been silent for too long.
    silence: Pin<Box<Sleep>>,
    silence_max: Duration,
    /// Given up last: whoever comes next finds this one gone.
    _place: OwnedSemaphorePermit,
}

/// From where a request comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub SocketAddr);

impl LocalListener {
    pub fn new(listener: TcpListener) -> Self {
        Self::with(listener, CONNECTIONS_MAX, SILENCE_MAX)
    }

    fn with(listener: TcpListener, connections_max: usize, silence_max: Duration) -> Self {
        LocalListener { listener, places: Arc::new(Semaphore::new(connections_max)), silence_max }
    }
}

impl Listener for LocalListener {
    type Io = Connection;
    type Addr = SocketAddr;

    /// The system keeps others waiting while all places are taken.
    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // A semaphore that nobody closes always gives a permit in the end.
        let place = loop {
            if let Ok(place) = self.places.clone().acquire_owned().await {
                break place;
            }
        };
        let (stream, address) = loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            let here = stream.local_addr();
            // Another user's connection is closed at once, where the system tells whose it is.
            if !here.is_ok_and(|here| ticket::is_of_this_user(address, here) == Some(false)) {
                break (stream, address);
            }
        };
        let silence_max = self.silence_max;
        (Connection { stream, silence: Box::pin(sleep(silence_max)), silence_max, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, LocalListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, LocalListener>) -> Self {
        Caller(*stream.remote_addr())
    }
}

impl Connection {
    /// What came of moving bytes: with any, the silence begins anew; without, it may be over.
    fn heard<T>(&mut self, moved: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            let deadline = Instant::now() + self.silence_max;
            self.silence.as_mut().reset(deadline);
            return moved;
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard(read, cx)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.heard(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.heard(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Any user of the computer can connect: where they take all places, the owner waits no longer than silence is
    /// borne.
    #[tokio::test]
    async fn whoever_comes_when_all_places_are_taken_is_served_once_a_silent_one_is_free() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = LocalListener::with(listener, 1, Duration::from_millis(300));
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", get(|| async { "well" }))).await });
        let silent = TcpStream::connect(address).await.unwrap();
        let mut owner = TcpStream::connect(address).await.unwrap();
        owner.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        owner.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("well"), "{answer}");
        assert_eq!(silent.try_read(&mut [0]).unwrap(), 0, "there was room for both");
    }
}
