//! The page's one loop, in its worker: whatever happens becomes an [`Event`], the owner's consent and the session
//! decide, and what they want is performed here, in order.

mod connection;
mod participation;
mod perform;
mod training;

use crate::{
    browser::{self, clock, key::DeviceKey},
    consent::Facts,
    disk::OpfsDisk,
    heat::Heat,
    link::{Control, Link, LinkError},
    membership::Membership,
    page::{Told, View},
    today::Today,
    wishes::Wishes,
};
use connection::Connection;
use futures_channel::mpsc;
use futures_util::{
    StreamExt,
    future::{Either, select},
};
use nightjar_session::{
    journal::Journal,
    session::{self, Permission, Session},
};
use nightjar_shared::{
    time::Mono,
    web::CertificateHash,
    wire::{CoordinatorMessage, limits::QUEUE_EVENTS_MAX, worker::from_worker},
};
use std::{collections::VecDeque, io, pin::pin, rc::Rc, time::Duration};
use training::Training;

/// Longest sleep: whether the owner's word still holds is looked at as often.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// Files that can be made at any moment without waiting for the browser: as many as a lease's training makes, and a
/// blob.
const FILES_AT_HAND: usize = 24;

/// All that can happen to a page's device. What belongs to a connection, a transfer or a training bears its serial
/// number, so that words from one that is over are not taken for its successor's.
pub enum Event {
    /// The answer to an attempt to connect: the link, and what to trust from now on.
    Connected {
        /// Which attempt.
        serial: u64,
        /// What came of it.
        made: Result<(Link, Control, Option<Vec<CertificateHash>>), LinkError>,
    },
    /// The coordinator answers.
    Answer {
        /// Over which connection.
        serial: u64,
        /// What.
        message: CoordinatorMessage,
    },
    /// A connection is over.
    Disconnected {
        /// Which.
        serial: u64,
        /// Why.
        why: String,
    },
    /// A blob has travelled, or not.
    Transferred {
        /// Which transfer.
        serial: u64,
        /// What the session is told.
        ended: session::Event,
    },
    /// The trainer says something.
    Trainer {
        /// Which.
        serial: u64,
        /// What.
        says: Box<from_worker::Body>,
    },
    /// There is nothing to train with.
    NoTrainer {
        /// Which.
        serial: u64,
        /// Why.
        why: String,
    },
    /// The link of an invite was looked into.
    Invited(Result<Box<Membership>, String>),
    /// The page tells.
    Page(Told),
}

/// How events reach the loop.
#[derive(Clone)]
pub struct Queue(mpsc::Sender<Event>);

impl Queue {
    /// Fails only where the loop has ended, or does nothing any more: nobody would hear of it.
    pub fn send(&self, event: Event) {
        let _ = self.0.clone().try_send(event);
    }
}

struct Device {
    disk: OpfsDisk,
    key: Rc<DeviceKey>,
    membership: Option<Membership>,
    /// What became of the last run, or of the last invite.
    out: Option<String>,
    wishes: Wishes,
    facts: Facts,
    heat: Heat,
    today: Today,
    session: Session,
    /// What the session is to hear next.
    waiting: VecDeque<session::Event>,
    connection: Connection,
    training: Training,
    /// The last lines that an owner may want to read.
    log: VecDeque<String>,
    permission: Option<Permission>,
    queue: Queue,
    shown: Option<View>,
}

/// What a page cannot begin without.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The storage is another page's, or there is none.
    #[error("this browser's storage cannot be used ({0}); is this page open in another tab?")]
    Storage(#[from] io::Error),
    /// The key.
    #[error(transparent)]
    Key(#[from] browser::key::KeyError),
}

/// Opens what lasts, and runs until the page ends. `opened` is given the way in.
pub async fn run(opened: impl FnOnce(Queue)) -> Result<(), StartError> {
    let disk = OpfsDisk::open().await?;
    disk.reserve(FILES_AT_HAND).await?;
    let (sender, mut events) = mpsc::channel(QUEUE_EVENTS_MAX);
    let queue = Queue(sender);
    let mut device = Device::open(disk, DeviceKey::open().await?, queue.clone())?;
    opened(queue);
    loop {
        // Where the browser gives no more, what needs one is refused, and says so.
        if let Err(refused) = disk.reserve(FILES_AT_HAND).await {
            device.note(format!("no more files can be made: {refused}"));
        }
        let now = clock::mono_now();
        device.consider(now);
        device.settle();
        device.show(now);
        let wait = device.session.next_deadline().map_or(SLEEP_MAX, |at| at.since(clock::mono_now()).min(SLEEP_MAX));
        match select(events.next(), pin!(browser::sleep(wait))).await {
            Either::Left((Some(event), _)) => device.take(event),
            Either::Left((None, _)) => return Ok(()),
            Either::Right(((), _)) => device.waiting.push_back(session::Event::Tick),
        }
    }
}

impl Device {
    fn open(disk: OpfsDisk, key: DeviceKey, queue: Queue) -> io::Result<Self> {
        let (wishes, today) = (Wishes::load(&disk)?, Today::load(&disk)?);
        let mut device = Device {
            membership: Membership::load(&disk)?,
            out: None,
            facts: Facts::default(),
            heat: Heat::default(),
            session: Session::new(participation::profile(&key, None), Journal::default()),
            waiting: VecDeque::new(),
            connection: Connection::default(),
            training: Training::default(),
            log: VecDeque::new(),
            permission: None,
            key: Rc::new(key),
            shown: None,
            disk,
            wishes,
            today,
            queue,
        };
        device.take_up();
        Ok(device)
    }

    /// Asks whether it may train, and tells the session where the answer is another than before.
    fn consider(&mut self, now: Mono) {
        self.facts.is_wanted = self.wishes.is_wanted;
        self.facts.plugged_until = self.wishes.plugged_until;
        self.facts.rests_until = self.heat.rests_until(now);
        let permission = self.facts.permission(clock::wall_now());
        if self.permission.as_ref() != Some(&permission) {
            match permission {
                Permission::Allowed => self.training.go_on(),
                Permission::Yield { .. } => self.training.pause(),
                // The session says when it is to stop.
                Permission::Held(_) => {}
            }
            self.heat.paused();
            self.permission = Some(permission.clone());
            self.waiting.push_back(session::Event::Permission(permission));
        }
    }

    /// Lets the session hear all that waits, and does what it wants.
    fn settle(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            let mut is_stored = true;
            for action in self.session.handle(event, clock::mono_now()) {
                if !is_stored && action.rests_on_journal() {
                    continue;
                }
                if let Err(refused) = self.perform(action) {
                    is_stored = false;
                    self.waiting.push_front(session::Event::DiskRefused { why: refused.of_disk() });
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Connected { serial, made } if serial == self.connection.serial => self.connected(made),
            Event::Answer { serial, message } if serial == self.connection.serial => self.answered(message),
            Event::Disconnected { serial, why } if serial == self.connection.serial => self.lost(why),
            Event::Transferred { serial, ended } if serial == self.connection.transfer_serial => {
                self.waiting.push_back(ended);
            }
            Event::Trainer { serial, says } if serial == self.training.serial => self.trainer_says(*says),
            Event::NoTrainer { serial, why } if serial == self.training.serial => self.no_trainer(why),
            Event::Invited(answer) => self.invited(answer),
            Event::Page(told) => self.told(told),
            // Of a connection, transfer or training that is over.
            Event::Connected { .. }
            | Event::Answer { .. }
            | Event::Disconnected { .. }
            | Event::Transferred { .. }
            | Event::Trainer { .. }
            | Event::NoTrainer { .. } => {}
        }
    }

    /// The page tells what it sees, and what its owner wants.
    fn told(&mut self, told: Told) {
        match told {
            Told::Seen { is_visible, charger } => {
                (self.facts.is_visible, self.facts.charger) = (is_visible, charger);
                return;
            }
            Told::Join { link, name } => return self.join(link, name),
            Told::Leave => return self.waiting.push_back(session::Event::Leave),
            Told::Train { is_wanted } => {
                self.wishes.is_wanted = is_wanted;
                self.waiting.push_back(session::Event::Retry);
            }
            Told::Plugged { until } => self.wishes.plugged_until = until,
        }
        if let Err(refused) = self.wishes.store(&self.disk) {
            self.note(format!("what you have chosen is not kept: {refused}"));
        }
    }

    /// Keeps a line for the owner.
    fn note(&mut self, line: String) {
        const LINES_MAX: usize = 20;
        if self.log.back() == Some(&line) {
            return;
        }
        if self.log.len() == LINES_MAX {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    /// Tells the page how things stand, if they stand otherwise than before.
    fn show(&mut self, now: Mono) {
        let session = self.session.status();
        let idles = self.session.idles_for().map(|(why, _)| why);
        let held = self.permission.as_ref().and_then(Permission::reason).map(str::to_owned);
        let view = View {
            run: self.membership.as_ref().map(|membership| membership.invite.run_name.clone()),
            about: self.session.spec().map(|spec| spec.description.clone()).unwrap_or_default(),
            device: self.key.device().short(),
            out: self.out.clone(),
            is_wanted: self.wishes.is_wanted,
            plugged_until: self.wishes.plugged_until,
            charger: self.facts.charger,
            rests_s: self.heat.rests_until(now).map(|until| until.since(now).as_secs()),
            waits_for: held.or(idles).filter(|_| self.membership.is_some()),
            tokens_today: self.today.tokens(self.tokens(), &today()),
            tokens: self.tokens(),
            log: self.log.iter().cloned().collect(),
            session,
        };
        if self.shown.as_ref() != Some(&view) {
            // Plain data has a text.
            serde_json::to_string(&view).iter().for_each(|text| browser::post(text));
            self.shown = Some(view);
        }
    }

    /// Tokens that this device has delivered in its run.
    fn tokens(&self) -> u64 {
        let of_sample = self.session.spec().map_or(0, |spec| spec.tokens_per_sample());
        self.session.journal().totals.samples * of_sample
    }
}

/// The owner's date.
fn today() -> String {
    let now = js_sys::Date::new_0();
    format!("{:04}-{:02}-{:02}", now.get_full_year(), now.get_month() + 1, now.get_date())
}
