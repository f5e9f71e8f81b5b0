//! What the session wants, done: over the network, on the disk, with the worker.

use super::{Agent, Event, GOODBYE_MAX, Online};
use crate::{
    disk_words,
    journal::JournalError,
    lease::BlobRef,
    link::{Control, Link},
    quota::{self, Room},
    session::{self, Action},
    transfer::{self, Outgoing, TransferError},
};
use jiff::Zoned;
use nightjar_shared::{
    disk::FolderDisk,
    ids::LeaseId,
    wire::{
        DeviceMessage,
        worker::{Stop, to_worker},
    },
};
use std::{future::Future, io, sync::Arc};
use tokio::sync::mpsc;

impl Agent {
    /// Fails only where the journal cannot be written: nothing that rests on it may be done then.
    pub(super) fn perform(&mut self, action: Action) -> Result<(), JournalError> {
        match action {
            Action::Connect => self.connect(),
            Action::Disconnect => {
                if let Some(link) = self.hang_up() {
                    tokio::spawn(link.close());
                }
            }
            Action::Ask { request, body } => {
                // If there is no room the connection is stuck, and its end will be reported.
                if let Some(online) = &self.online {
                    let _ = online.requests.try_send(DeviceMessage { request, body: Some(body) });
                }
            }
            Action::Fetch(blob) => {
                let hash = blob.hash;
                if let Err(refused) = self.fetch(blob) {
                    let fault = session::Fault::Disk(disk_words::refusal(&refused));
                    self.waiting.push_back(session::Event::FetchFailed { hash, fault });
                }
            }
            Action::Upload { lease, blob, file } => self.upload(lease, blob, file),
            Action::Work(job) => self.work(job),
            Action::StopWork => {
                // One that does not listen is ended by the session's timer.
                self.send_worker(to_worker::Body::Stop(Stop {}));
            }
            Action::EndWorker => self.dismiss(),
            Action::WriteJournal(journal) => journal.store(&*self.disk)?,
            Action::Tidy { keep } => self.tidy_up(&keep),
            Action::Forget => self.forget(),
            Action::Report(report) => self.report(&report),
            Action::Exit(ending) => self.ending = Some(ending),
        }
        Ok(())
    }

    /// Has a blob on the disk, in the end.
    fn fetch(&mut self, blob: BlobRef) -> io::Result<()> {
        if !self.has_room(blob)? {
            return Ok(());
        }
        let hash = blob.hash;
        if transfer::present(&*self.disk, blob)? {
            self.waiting.push_back(session::Event::Fetched { hash });
            return Ok(());
        }
        self.transfer(
            |link, disk| async move { transfer::get(&link, &*disk, blob).await },
            session::Event::Fetched { hash },
            move |fault| session::Event::FetchFailed { hash, fault },
        );
        Ok(())
    }

    fn connect(&mut self) {
        self.connection_serial += 1;
        let (serial, queue) = (self.connection_serial, self.queue.clone());
        let Ok(dialer) = self.member.as_ref().map(|member| member.dialer.clone()) else {
            return self
                .waiting
                .push_back(session::Event::Disconnected { why: "there is no run to connect to".into() });
        };
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
    pub(super) fn converse(&mut self, link: Link, mut control: Control) {
        let (requests, mut waiting) = mpsc::channel::<DeviceMessage>(4);
        let (serial, queue, watched) = (self.connection_serial, self.queue.clone(), link.clone());
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
    pub(super) fn hang_up(&mut self) -> Option<Link> {
        self.connection_serial += 1;
        self.end_transfer();
        self.count_traffic(&Zoned::now());
        let online = self.online.take()?;
        online.conversation.abort();
        Some(online.link)
    }

    pub(super) fn lost(&mut self, why: String) -> session::Event {
        self.hang_up();
        session::Event::Disconnected { why }
    }

    fn end_transfer(&mut self) {
        self.transfer_serial += 1;
        if let Some(transfer) = self.transfer.take() {
            transfer.abort();
        }
    }

    /// Moves a blob in the background, one at a time: two writers of one partial file would ruin it.
    fn transfer<F: Future<Output = Result<(), TransferError>> + Send + 'static>(
        &mut self,
        travel: impl FnOnce(Link, Arc<FolderDisk>) -> F,
        arrived: session::Event,
        failed: impl FnOnce(session::Fault) -> session::Event + Send + 'static,
    ) {
        self.end_transfer();
        let Some(online) = &self.online else {
            return self.waiting.push_back(failed(session::Fault::Broken("there is no connection".into())));
        };
        let (serial, queue) = (self.transfer_serial, self.queue.clone());
        let travel = travel(online.link.clone(), self.disk.clone());
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
        self.transfer = Some(task.abort_handle());
    }

    fn upload(&mut self, lease: LeaseId, blob: BlobRef, file: String) {
        let spec = self.session.spec();
        let expected = self.session.journal().lease.as_ref().zip(spec);
        let expected = expected.and_then(|(lease, spec)| Some((session::delta_spec(lease, &spec)?, spec.model)));
        let Some((delta, model)) = expected else {
            return self.waiting.push_back(session::Event::UploadFailed(session::Fault::FileGone));
        };
        let outgoing = Outgoing { lease, blob, file, model, delta };
        self.transfer(
            move |link, disk| async move { transfer::put(&link, &disk, &outgoing).await },
            session::Event::Uploaded,
            session::Event::UploadFailed,
        );
    }

    /// Makes room for what the lease at hand needs; `false` if the session was told that there is none.
    fn has_room(&mut self, blob: BlobRef) -> io::Result<bool> {
        let bytes_max = self.preferences.preferences().quota_mib_max.map(|mib| mib << 20);
        let (Some(bytes_max), Some(spec)) = (bytes_max, self.session.spec()) else { return Ok(true) };
        let journal = self.session.journal();
        let Some(lease) = &journal.lease else { return Ok(true) };
        match quota::make_room(&*self.disk, journal, lease, &spec, bytes_max)? {
            Room::Enough { evict } if evict.is_empty() => Ok(true),
            Room::Enough { evict } => {
                self.waiting.push_back(session::Event::Evicted(evict));
                Ok(true)
            }
            Room::Short(why) => {
                let fault = session::Fault::NoRoom(why);
                self.waiting.push_back(session::Event::FetchFailed { hash: blob.hash, fault });
                Ok(false)
            }
        }
    }

    pub(super) async fn goodbye(&mut self) {
        self.part().await;
        self.remember();
        self.history.close(&Zoned::now());
    }

    /// Ends what works for the run at hand.
    pub(super) async fn part(&mut self) {
        self.dismiss();
        if let Some(link) = self.hang_up() {
            // The coordinator notices in the end even if it does not hear this.
            let _ = tokio::time::timeout(GOODBYE_MAX, link.close()).await;
        }
    }
}
