//! What the session wants, done: over the network, on the disk, with the trainer.

use super::Device;
use crate::transfer;
use nightjar_session::{
    disk_words,
    journal::{self, JournalError},
    session::{self, Action, Fault, Report},
};
use nightjar_shared::blob::BlobRef;

impl Device {
    /// Fails only where the journal cannot be written: nothing that rests on it may be done then.
    pub(super) fn perform(&mut self, action: Action) -> Result<(), JournalError> {
        match action {
            Action::Connect => self.connect(),
            Action::Disconnect => self.connection.hang_up(),
            Action::Ask { request, body } => self.connection.ask(request, body),
            Action::Fetch(blob) => self.fetch(blob),
            Action::Upload { lease, blob, file } => {
                let disk = self.disk;
                self.transfer(
                    move |link| async move { transfer::put(&link, &disk, lease, blob, &file).await },
                    session::Event::Uploaded,
                    session::Event::UploadFailed,
                );
            }
            Action::Work(job) => self.work(job),
            Action::StopWork => self.training.stop(),
            Action::EndWorker => self.training.end(),
            Action::WriteJournal(journal) => journal.store(&self.disk)?,
            Action::Tidy { keep } => {
                if let Err(refused) = journal::tidy(&self.disk, &keep) {
                    self.note(format!("what is not needed any more stays for now: {refused}"));
                }
            }
            Action::Pin(keys) => self.pin(&keys),
            Action::Forget => self.forget(),
            Action::Report(report) => self.report(&report),
            Action::Exit(ending) => self.ended(ending),
        }
        Ok(())
    }

    fn fetch(&mut self, blob: BlobRef) {
        let (hash, disk) = (blob.hash, self.disk);
        match transfer::present(&disk, blob) {
            Ok(true) => self.waiting.push_back(session::Event::Fetched { hash }),
            Ok(false) => self.transfer(
                move |link| async move { transfer::get(&link, &disk, blob).await },
                session::Event::Fetched { hash },
                move |fault| session::Event::FetchFailed { hash, fault },
            ),
            Err(refused) => {
                let fault = Fault::Disk(disk_words::refusal(&refused));
                self.waiting.push_back(session::Event::FetchFailed { hash, fault });
            }
        }
    }

    fn report(&mut self, report: &Report) {
        if let Report::Delivered { .. } = report
            && let Err(refused) = self.today.store(&self.disk)
        {
            self.note(format!("today's figures are not kept: {refused}"));
        }
        self.note(report.to_string());
    }
}
