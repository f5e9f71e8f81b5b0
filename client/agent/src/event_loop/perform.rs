//! What the session wants, done: over the network, on the disk, with the worker.

use super::Agent;
use crate::{
    disk_words,
    journal::JournalError,
    quota::{self, Space},
    session::{self, Action},
    transfer::{self, Outgoing},
};
use jiff::Zoned;
use nightjar_shared::{
    blob::BlobRef,
    ids::LeaseId,
    wire::worker::{Stop, to_worker},
};
use std::io;

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
            Action::Ask { request, body } => self.connection.ask(request, body),
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
                self.worker.send(to_worker::Body::Stop(Stop {}));
            }
            Action::EndWorker => self.end_worker(),
            Action::WriteJournal(journal) => journal.store(&*self.home.disk())?,
            Action::Tidy { keep } => self.tidy_up(&keep),
            Action::Pin(keys) => self.pin(keys),
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
        if transfer::present(&*self.home.disk(), blob)? {
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

    fn upload(&mut self, lease: LeaseId, blob: BlobRef, file: String) {
        let spec = self.session.spec();
        let expected = self.session.journal().lease.as_ref().zip(spec);
        let expected = expected.and_then(|(lease, spec)| Some((session::delta_spec(lease, spec)?, spec.model.clone())));
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
        let bytes_max = self.owner.wants().quota_mib_max.map(|mib| mib << 20);
        let (Some(bytes_max), Some(spec)) = (bytes_max, self.session.spec()) else { return Ok(true) };
        let journal = self.session.journal();
        let Some(lease) = &journal.lease else { return Ok(true) };
        match quota::make_room(&*self.home.disk(), journal, lease, spec, bytes_max)? {
            Space::Enough { evict } if evict.is_empty() => Ok(true),
            Space::Enough { evict } => {
                self.waiting.push_back(session::Event::Evicted(evict));
                Ok(true)
            }
            Space::Short(why) => {
                let fault = session::Fault::NoRoom(why);
                self.waiting.push_back(session::Event::FetchFailed { hash: blob.hash, fault });
                Ok(false)
            }
        }
    }

    pub(super) async fn goodbye(&mut self) {
        self.close_run().await;
        self.remember();
        self.records.history.close(&Zoned::now());
    }

    /// Ends what works for the run at hand.
    pub(super) async fn close_run(&mut self) {
        self.end_worker();
        self.say_goodbye().await;
    }
}
