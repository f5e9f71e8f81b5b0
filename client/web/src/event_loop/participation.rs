//! Being in a run, or in none yet.

use super::{Device, Event, today};
use crate::{
    browser::{
        self, clock,
        key::{self, DeviceKey},
    },
    membership::{self, Membership},
};
use nightjar_session::{
    journal::{self, Journal},
    session::{Ending, Profile, Session, run_is_over},
};
use nightjar_shared::{disk::Disk, lease::LeaseKind, web::CertificateHash, wire::Role};
use wasm_bindgen_futures::spawn_local;

/// Memory that training takes where the browser does not tell how much there is: phones end a page at 1.5 GB.
const MEMORY_BYTES: u64 = 1 << 30;
/// About this much training is lost when the page is ended without a word.
const CHECKPOINT_MS: u64 = 60_000;

/// What a session is told of this device.
pub(super) fn profile(key: &DeviceKey, membership: Option<&Membership>) -> Profile {
    let gib = browser::scope().navigator().device_memory();
    // Half of what there is: the rest is the browser's and the system's.
    let memory_bytes = if gib > 0.0 { (gib * f64::from(1 << 29)) as u64 } else { MEMORY_BYTES };
    Profile {
        device: key.device(),
        token: membership.map_or_else(Vec::new, |membership| membership.token.clone()),
        role: membership.map_or(Role::Volunteer, |membership| membership.invite.role()),
        kinds: vec![LeaseKind::Train],
        name: membership.map_or_else(String::new, |membership| membership.name.clone()),
        hardware: "browser, WebGPU".into(),
        memory_bytes,
        checkpoint_ms: CHECKPOINT_MS,
        checkpoint_bytes_day_max: None,
        public_name: None,
    }
}

impl Device {
    /// Takes up the run that it has joined where its journal ends.
    pub(super) fn take_up(&mut self) {
        let journal = match Journal::load_or_put_aside(&self.disk) {
            Ok((journal, damage)) => {
                damage.into_iter().for_each(|damage| self.note(damage));
                journal
            }
            Err(error) => {
                self.out = Some(error.to_string());
                return;
            }
        };
        self.session = Session::new(profile(&self.key, self.membership.as_ref()), journal);
        // What it last heard was another session's; and another model is fast in its own way.
        self.permission = None;
        self.heat.begin_anew();
    }

    /// Looks into an invite's link: whether it says what its coordinator signed.
    pub(super) fn join(&mut self, link: String, name: String) {
        if let Some(membership) = &self.membership {
            self.out =
                Some(format!("this device is in the run \"{}\" already; leave it first", membership.invite.run_name));
            return;
        }
        let queue = self.queue.clone();
        spawn_local(async move { queue.send(Event::Invited(believed(&link, &name).await)) });
    }

    pub(super) fn invited(&mut self, answer: Result<Box<Membership>, String>) {
        let membership = match answer {
            Ok(membership) => *membership,
            Err(why) => return self.out = Some(why),
        };
        if let Err(refused) = membership.store(&self.disk) {
            return self.out = Some(format!("the invite cannot be kept: {refused}"));
        }
        (self.membership, self.out) = (Some(membership), None);
        self.take_up();
    }

    /// The coordinator, by a key that this device pins, has said which to pin from now on.
    pub(super) fn pin(&mut self, keys: &[[u8; 32]]) {
        self.remember(|membership| membership.repinned(keys));
    }

    /// The coordinator has said which certificates to trust from now on.
    pub(super) fn trust(&mut self, certificates: Option<Vec<CertificateHash>>) {
        if let Some(certificates) = certificates {
            self.remember(|membership| membership.trusting(certificates));
        }
    }

    /// Where the disk does not take it, it is said again at the next hello.
    fn remember(&mut self, change: impl FnOnce(&Membership) -> Membership) {
        let Some(before) = &self.membership else { return };
        let after = change(before);
        if after == *before {
            return;
        }
        match after.store(&self.disk) {
            Ok(()) => self.membership = Some(after),
            Err(refused) => self.note(format!("how the coordinator is recognised is not kept yet: {refused}")),
        }
    }

    /// Forgets the run: first the journal, so that no crash leaves one that names what is gone.
    pub(super) fn forget(&mut self) {
        let forgotten = journal::forget(&self.disk).and_then(|()| self.disk.remove(membership::FILE));
        if let Err(refused) = forgotten {
            self.note(format!("the run is not forgotten yet: {refused}"));
        }
        self.membership = None;
        self.today.begin(&today(), 0);
    }

    /// The session is over; the page stays, and says why.
    pub(super) fn ended(&mut self, ending: Ending) {
        self.training.end();
        self.connection.hang_up();
        self.out = match ending {
            Ending::Asked | Ending::Left => None,
            Ending::RunOver(words) => Some(run_is_over(&words)),
            Ending::Refused(words) => Some(format!("the coordinator refused this device: {words}")),
        };
        self.wishes.is_wanted = false;
        self.waiting.clear();
        if self.membership.is_none() {
            self.session = Session::new(profile(&self.key, None), Journal::default());
            self.permission = None;
        }
    }
}

/// What a link says, if its coordinator has signed it.
async fn believed(link: &str, name: &str) -> Result<Box<Membership>, String> {
    let claimed = Membership::claimed(link, name, clock::wall_now().unix_ms).map_err(|error| error.to_string())?;
    match key::verifies(&claimed.key, &claimed.covered, &claimed.signature).await {
        Ok(true) => Ok(Box::new(claimed.believed())),
        Ok(false) => Err("the invite's signature does not fit its contents; ask for a new one".into()),
        Err(error) => Err(error.to_string()),
    }
}
