//! WebTransport as a browser has it: a session to a coordinator whose certificate is known by its hash, and streams of
//! both ways on it. Nothing here knows what travels.

use super::words;
use js_sys::{Array, Boolean, Reflect, Uint8Array};
use nightjar_shared::web::{CertificateHash, PATH, PROTOCOL};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    ReadableStream, ReadableStreamDefaultReader, WebTransport, WebTransportBidirectionalStream, WebTransportHash,
    WebTransportOptions, WritableStream, WritableStreamDefaultWriter,
};

/// A session, or a stream of one, that is over; says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

impl From<JsValue> for Broken {
    fn from(thrown: JsValue) -> Self {
        Broken(words(&thrown))
    }
}

/// A session. The last clone that is dropped does not close it: [`Session::close`] does.
#[derive(Clone)]
pub struct Session(WebTransport);

impl Session {
    /// Connects to `address`, HOST:PORT, if whoever answers shows one of these certificates.
    pub async fn connect(address: &str, trusted: &[CertificateHash]) -> Result<Session, Broken> {
        let hashes: Vec<WebTransportHash> = trusted
            .iter()
            .map(|hash| {
                let known = WebTransportHash::new();
                known.set_algorithm("sha-256");
                known.set_value_u8_array(&Uint8Array::from(&hash[..]));
                known
            })
            .collect();
        let options = WebTransportOptions::new();
        options.set_server_certificate_hashes(&hashes);
        Reflect::set(&options, &"protocols".into(), &Array::of1(&PROTOCOL.into()))?;
        let transport = WebTransport::new_with_options(&format!("https://{address}{PATH}"), &options)?;
        // Nobody may be waiting for its end.
        ignore(transport.closed().unchecked_into());
        JsFuture::from(transport.ready()).await?;
        Ok(Session(transport))
    }

    /// Opens a stream. The other side hears of it with its first bytes.
    pub async fn open(&self) -> Result<Stream, Broken> {
        let stream: WebTransportBidirectionalStream =
            JsFuture::from(self.0.create_bidirectional_stream()).await?.unchecked_into();
        let (up, down): (WritableStream, ReadableStream) =
            (stream.writable().unchecked_into(), stream.readable().unchecked_into());
        Ok(Stream {
            writer: up.get_writer()?,
            reader: down.get_reader().unchecked_into(),
            read: vec![],
            is_closed: false,
        })
    }

    /// Waits until it is over; says why.
    pub async fn closed(&self) -> Broken {
        match JsFuture::from(self.0.closed()).await {
            Ok(info) => {
                let reason = Reflect::get(&info, &"reason".into()).ok().and_then(|reason| reason.as_string());
                Broken(reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| "the connection is closed".into()))
            }
            Err(thrown) => thrown.into(),
        }
    }

    /// Closes it.
    pub fn close(&self) {
        self.0.close();
    }
}

/// A stream of both ways; dropped, what has not travelled yet does not.
pub struct Stream {
    writer: WritableStreamDefaultWriter,
    reader: ReadableStreamDefaultReader,
    /// What was read and not asked for yet.
    read: Vec<u8>,
    is_closed: bool,
}

impl Stream {
    /// Sends, as fast as the other side takes it.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        JsFuture::from(self.writer.ready()).await?;
        JsFuture::from(self.writer.write_with_chunk(&Uint8Array::from(bytes))).await?;
        Ok(())
    }

    /// Says that nothing more comes.
    pub async fn finish(&mut self) -> Result<(), Broken> {
        self.is_closed = true;
        JsFuture::from(self.writer.close()).await?;
        Ok(())
    }

    /// The next bytes, as many as have come; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        if !self.read.is_empty() {
            return Ok(Some(std::mem::take(&mut self.read)));
        }
        let read = JsFuture::from(self.reader.read()).await?;
        if Reflect::get(&read, &"done".into())?.unchecked_into::<Boolean>().is_truthy() {
            return Ok(None);
        }
        Ok(Some(Reflect::get(&read, &"value".into())?.unchecked_into::<Uint8Array>().to_vec()))
    }

    /// So many bytes; those that have come with them are kept.
    pub async fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>, Broken> {
        let mut held = std::mem::take(&mut self.read);
        while held.len() < bytes {
            match self.chunk().await? {
                Some(more) => held.extend(more),
                None => return Err(Broken("the coordinator stopped in the middle of a message".into())),
            }
        }
        self.read = held.split_off(bytes);
        Ok(held)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        ignore(self.reader.cancel());
        if !self.is_closed {
            ignore(self.writer.abort());
        }
    }
}

/// Lets a promise come to what it may: one that is refused and that nobody waits for would be reported as a fault.
fn ignore(promise: js_sys::Promise) {
    spawn_local(async move {
        let _ = JsFuture::from(promise).await;
    });
}
