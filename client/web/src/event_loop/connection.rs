//! The connection to the coordinator, and the one blob that travels on it.

use super::{Device, Event, Queue};
use crate::{
    browser::key::DeviceKey,
    link::{Control, Link, LinkError, vouched},
    membership::Membership,
    origin,
    transfer::TransferError,
};
use futures_channel::mpsc;
use futures_util::{
    StreamExt,
    future::{AbortHandle, Either, abortable, select},
};
use nightjar_session::session::{self, Fault};
use nightjar_shared::{
    web::CertificateHash,
    wire::{CoordinatorMessage, DeviceMessage, device_message},
};
use std::{future::Future, pin::pin, rc::Rc};
use wasm_bindgen_futures::spawn_local;

/// Requests that wait for the answer to the one before.
const REQUESTS_MAX: usize = 4;

/// A connection that stands, or none.
#[derive(Default)]
pub(super) struct Connection {
    online: Option<Online>,
    transfer: Option<AbortHandle>,
    /// Serial numbers of the connection and the transfer at hand.
    pub serial: u64,
    pub transfer_serial: u64,
}

struct Online {
    link: Link,
    requests: mpsc::Sender<DeviceMessage>,
}

/// What came of an attempt: the link, its stream of requests, and what to trust from now on.
type Made = (Link, Control, Option<Vec<CertificateHash>>);

impl Connection {
    /// Asks the coordinator. If there is no room the connection is stuck, and its end will be reported.
    pub fn ask(&mut self, request: u64, body: device_message::Body) {
        if let Some(online) = &mut self.online {
            let _ = online.requests.try_send(DeviceMessage { request, body: Some(body) });
        }
    }

    /// Lets go of the connection and all that is under way on it.
    pub fn hang_up(&mut self) {
        self.serial += 1;
        self.end_transfer();
        if let Some(online) = self.online.take() {
            online.link.close();
        }
    }

    fn end_transfer(&mut self) {
        self.transfer_serial += 1;
        if let Some(transfer) = self.transfer.take() {
            transfer.abort();
        }
    }

    /// Begins the exchange of requests and answers. It ends when the connection does, or when nobody asks any more.
    fn converse(&mut self, link: Link, control: Control, queue: Queue) {
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        let (serial, watched) = (self.serial, link.clone());
        spawn_local(async move {
            let exchange = pin!(exchange(control, waiting, serial, &queue));
            let why = match select(exchange, pin!(watched.closed())).await {
                Either::Left((Some(why), _)) | Either::Right((why, _)) => why,
                Either::Left((None, _)) => return,
            };
            queue.send(Event::Disconnected { serial, why });
        });
        self.online = Some(Online { link, requests });
    }
}

/// One answer after the other; gives why it cannot go on, or nothing where nobody asks any more.
async fn exchange(
    mut control: Control,
    mut waiting: mpsc::Receiver<DeviceMessage>,
    serial: u64,
    queue: &Queue,
) -> Option<String> {
    while let Some(request) = waiting.next().await {
        match control.ask(&request).await {
            Ok(message) => queue.send(Event::Answer { serial, message }),
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}

/// Connects. Where nobody answers who is known, the coordinator may show a certificate of which this page was never
/// told: then the place that the page came from may know.
async fn connect(membership: Membership, key: Rc<DeviceKey>) -> Result<Made, LinkError> {
    let failed = match attempt(&membership, &key).await {
        Err(error @ (LinkError::Unreachable { .. } | LinkError::NoCertificates)) => error,
        ended => return ended,
    };
    let Some(sealed) = origin::certificates().await else { return Err(failed) };
    match vouched(&membership, &sealed).await? {
        Some(newer) if newer != membership.certificates => attempt(&membership.trusting(newer), &key).await,
        Some(_) | None => Err(failed),
    }
}

async fn attempt(membership: &Membership, key: &DeviceKey) -> Result<Made, LinkError> {
    let (link, certificates) = Link::connect(membership, key).await?;
    let control = link.control().await?;
    Ok((link, control, certificates))
}

impl Device {
    pub(super) fn connect(&mut self) {
        self.connection.serial += 1;
        let Some(membership) = self.membership.clone() else {
            let why = "there is no run to connect to".into();
            return self.waiting.push_back(session::Event::Disconnected { why });
        };
        let (serial, key, queue) = (self.connection.serial, self.key.clone(), self.queue.clone());
        spawn_local(async move {
            let made = connect(membership, key).await;
            queue.send(Event::Connected { serial, made });
        });
    }

    pub(super) fn connected(&mut self, made: Result<Made, LinkError>) {
        match made {
            Ok((link, control, certificates)) => {
                self.trust(certificates);
                self.connection.converse(link, control, self.queue.clone());
                self.waiting.push_back(session::Event::Connected);
            }
            Err(error) => self.waiting.push_back(session::Event::Disconnected { why: error.to_string() }),
        }
    }

    pub(super) fn answered(&mut self, CoordinatorMessage { request, body }: CoordinatorMessage) {
        match body {
            Some(body) => self.waiting.push_back(session::Event::Answered { request, body }),
            None => self.lost("the coordinator sent an empty answer".into()),
        }
    }

    pub(super) fn lost(&mut self, why: String) {
        self.connection.hang_up();
        self.waiting.push_back(session::Event::Disconnected { why });
    }

    /// Moves a blob, one at a time: two writers of one partial file would ruin it.
    pub(super) fn transfer<F: Future<Output = Result<(), TransferError>> + 'static>(
        &mut self,
        travel: impl FnOnce(Link) -> F,
        arrived: session::Event,
        failed: impl FnOnce(Fault) -> session::Event + 'static,
    ) {
        self.connection.end_transfer();
        let Some(online) = &self.connection.online else {
            return self.waiting.push_back(failed(Fault::Broken("there is no connection".into())));
        };
        let (travel, handle) = abortable(travel(online.link.clone()));
        let (serial, queue) = (self.connection.transfer_serial, self.queue.clone());
        spawn_local(async move {
            let ended = match travel.await {
                Ok(Ok(())) => arrived,
                Ok(Err(error)) => failed(error.fault()),
                Err(_aborted) => return,
            };
            queue.send(Event::Transferred { serial, ended });
        });
        self.connection.transfer = Some(handle);
    }
}
