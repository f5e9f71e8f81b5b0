//! The connection to the coordinator, and the one blob that travels on it.

use super::{Agent, Event};
use crate::{
    link::{Control, Dialer, Link, LinkError},
    session,
    transfer::TransferError,
    worker::Crash,
};
use jiff::Zoned;
use nightjar_shared::{
    disk::FolderDisk,
    wire::{CoordinatorMessage, DeviceMessage, device_message},
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::AbortHandle};

/// The coordinator is given this long to hear goodbye.
const GOODBYE_MAX: Duration = Duration::from_millis(300);

/// A connection that stands, or none.
#[derive(Default)]
pub(super) struct Connection {
    online: Option<Online>,
    /// Whether somebody else answered in the coordinator's place when it was last tried.
    pub wrong_key: bool,
    transfer: Option<AbortHandle>,
    /// Serial numbers of the connection and the transfer at hand.
    pub serial: u64,
    pub transfer_serial: u64,
}

struct Online {
    link: Link,
    requests: mpsc::Sender<DeviceMessage>,
    conversation: AbortHandle,
    /// Bytes up and down that were counted.
    counted: (u64, u64),
}

impl Connection {
    pub fn is_online(&self) -> bool {
        self.online.is_some()
    }

    /// Asks the coordinator. If there is no room the connection is stuck, and its end will be reported.
    pub fn ask(&self, request: u64, body: device_message::Body) {
        if let Some(online) = &self.online {
            let _ = online.requests.try_send(DeviceMessage { request, body: Some(body) });
        }
    }

    /// Bytes up and down since they were asked for last.
    pub fn traffic(&mut self) -> (u64, u64) {
        let Some(online) = &mut self.online else { return (0, 0) };
        let (up, down) = online.link.traffic();
        let (up_before, down_before) = std::mem::replace(&mut online.counted, (up, down));
        (up.saturating_sub(up_before), down.saturating_sub(down_before))
    }

    fn connect(&mut self, dialer: Dialer, queue: mpsc::Sender<Event>) {
        self.serial += 1;
        let serial = self.serial;
        tokio::spawn(async move {
            let made = async {
                let link = dialer.connect().await?;
                let control = link.control().await?;
                Ok((link, control))
            };
            let made = made.await;
            let _ = queue.send(Event::Connected { serial, made }).await; // fails only when the agent ends
        });
    }

    /// Starts the exchange of requests and answers on a new connection.
    fn converse(&mut self, link: Link, mut control: Control, queue: mpsc::Sender<Event>) {
        let (requests, mut waiting) = mpsc::channel::<DeviceMessage>(4);
        let (serial, watched) = (self.serial, link.clone());
        let conversation = tokio::spawn(async move {
            let why = loop {
                let request = tokio::select! {
                    request = waiting.recv() => request,
                    why = watched.closed() => break why,
                };
                let Some(request) = request else { return };
                match control.ask(&request).await {
                    Ok(message) => {
                        if queue.send(Event::Answer { serial, message }).await.is_err() {
                            return;
                        }
                    }
                    Err(e) => break e.to_string(),
                }
            };
            let _ = queue.send(Event::Disconnected { serial, why }).await; // fails only when the agent ends
        });
        self.online = Some(Online { link, requests, conversation: conversation.abort_handle(), counted: (0, 0) });
    }

    /// Lets go of the connection and all that is under way on it.
    fn hang_up(&mut self) -> Option<Link> {
        self.serial += 1;
        self.end_transfer();
        let online = self.online.take()?;
        online.conversation.abort();
        Some(online.link)
    }

    fn end_transfer(&mut self) {
        self.transfer_serial += 1;
        if let Some(transfer) = self.transfer.take() {
            transfer.abort();
        }
    }
}

impl Agent {
    pub(super) fn connect(&mut self) {
        match self.participation.member() {
            Some(member) => self.connection.connect(member.dialer.clone(), self.queue.clone()),
            None => {
                self.connection.serial += 1;
                self.waiting.push_back(session::Event::Disconnected { why: "there is no run to connect to".into() });
            }
        }
    }

    pub(super) fn connected(&mut self, made: Result<(Link, Control), LinkError>) {
        self.connection.wrong_key = matches!(made, Err(LinkError::WrongKey(_)));
        self.waiting.push_back(match made {
            Ok((link, control)) => {
                self.connection.converse(link, control, self.queue.clone());
                session::Event::Connected
            }
            Err(e) => session::Event::Disconnected { why: e.to_string() },
        });
    }

    pub(super) fn answered(&mut self, CoordinatorMessage { request, body }: CoordinatorMessage) {
        match body {
            Some(body) => self.waiting.push_back(session::Event::Answered { request, body }),
            None => self.lost("the coordinator sent an empty answer".into()),
        }
    }

    pub(super) fn lost(&mut self, why: String) {
        self.hang_up();
        self.waiting.push_back(session::Event::Disconnected { why });
    }

    /// Lets go of the connection; what went over it is counted first.
    pub(super) fn hang_up(&mut self) -> Option<Link> {
        self.count_traffic(&Zoned::now());
        self.connection.hang_up()
    }

    /// Hangs up in order.
    pub(super) async fn say_goodbye(&mut self) {
        if let Some(link) = self.hang_up() {
            // The coordinator notices in the end even if it does not hear this.
            let _ = tokio::time::timeout(GOODBYE_MAX, link.close()).await;
        }
    }

    /// Moves a blob in the background, one at a time: two writers of one partial file would ruin it.
    pub(super) fn transfer<F: Future<Output = Result<(), TransferError>> + Send + 'static>(
        &mut self,
        travel: impl FnOnce(Link, Arc<FolderDisk>) -> F,
        arrived: session::Event,
        failed: impl FnOnce(session::Fault) -> session::Event + Send + 'static,
    ) {
        self.connection.end_transfer();
        let Some(online) = &self.connection.online else {
            return self.waiting.push_back(failed(session::Fault::Broken("there is no connection".into())));
        };
        let (serial, queue) = (self.connection.transfer_serial, self.queue.clone());
        let travel = travel(online.link.clone(), self.home.disk());
        let task = tokio::spawn(async move {
            let ended = match travel.await {
                Ok(()) => arrived,
                Err(e) => {
                    tracing::info!("a blob did not travel: {e}");
                    failed(e.fault())
                }
            };
            let _ = queue.send(Event::Transferred { serial, ended }).await; // fails only when the agent ends
        });
        self.connection.transfer = Some(task.abort_handle());
    }

    pub(super) fn transferred(&mut self, ended: session::Event) {
        self.connection.transfer = None;
        if let session::Event::UploadFailed(session::Fault::Untrue(why)) = &ended {
            self.crashed(&Crash::Delta(why.clone()));
        }
        self.waiting.push_back(ended);
    }
}
