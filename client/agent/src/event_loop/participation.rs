//! Being in a run, or in none yet: an agent without a membership serves its owner like any other, holds, and waits for
//! an invite.

use super::{Agent, Event};
use crate::{
    clock,
    identity::Identity,
    join::{Answer, JoinError, Joined, Member},
    journal::{Journal, JournalError},
    membership::Membership,
    preferences::Preferences,
    session::{self, Ending, Profile, Session},
};
use nightjar_shared::{lease::LeaseKind, wire::Role};
use std::mem;
use tokio::sync::oneshot;

/// Why an agent that was never given an invite holds.
const NONE: &str = "this computer has not joined a run yet; paste an invite on its page (`nightjar open`), or use `nightjar join INVITE`";

/// Where the answer to whoever brought an invite goes.
type Reply = oneshot::Sender<Result<Joined, JoinError>>;

/// What stays the same of this device, whatever run it is in.
pub(super) struct Device {
    pub identity: Identity,
    /// What leases it takes.
    kinds: Vec<LeaseKind>,
    /// For the owner's "half of the cores".
    pub cores: usize,
}

impl Device {
    pub fn new(identity: Identity, kinds: Vec<LeaseKind>) -> Self {
        Device { identity, kinds, cores: std::thread::available_parallelism().map_or(1, usize::from) }
    }

    /// Its id, as it is shown.
    pub fn id(&self) -> String {
        self.identity.device().short()
    }

    /// What a session is told of this device; in no run it has nothing to show.
    pub fn profile(&self, membership: Option<&Membership>, wanted: &Preferences) -> Profile {
        Profile {
            device: self.identity.device(),
            token: membership.map_or_else(Vec::new, |m| m.token.clone()),
            role: membership.map_or(Role::Volunteer, Membership::role),
            kinds: membership.map_or_else(Vec::new, |_| self.kinds.clone()),
            name: membership.map_or_else(String::new, |m| m.name.clone()),
            hardware: format!("{}, {} threads", wanted.device, wanted.threads_on(self.cores)),
            memory_bytes: 0,
            checkpoint_ms: wanted.checkpoint_s * 1000,
            checkpoint_bytes_day_max: wanted.write_mib_day_max.map(|mib| mib << 20),
            public_name: wanted.public_name.clone(),
        }
    }
}

/// The run that an agent is in, and its ways in and out.
pub(super) struct Participation {
    pub run: RunState,
    /// Whether the coordinator of an invite is being asked.
    joining: bool,
    /// Whether files of a run that it has left are still to be removed.
    pub unforgotten: bool,
}

/// Whether it is in a run.
pub(super) enum RunState {
    /// In this one.
    In(Box<Member>),
    /// In this one, but the disk does not let it read how far it has come there.
    Unread { member: Box<Member>, why: String },
    /// In none, for this reason.
    Out(String),
}

impl Default for Participation {
    fn default() -> Self {
        Participation { run: RunState::Out(NONE.into()), joining: false, unforgotten: false }
    }
}

impl Participation {
    /// Its part in the run that it is in.
    pub fn member(&self) -> Option<&Member> {
        match &self.run {
            RunState::In(member) => Some(member),
            RunState::Unread { .. } | RunState::Out(_) => None,
        }
    }

    /// What the invite calls the run that it is in.
    pub fn run_name(&self) -> Option<&str> {
        Some(&self.member()?.membership.invite.run_name)
    }

    /// Whether it was never in a run, or has left it.
    pub fn is_new(&self) -> bool {
        matches!(&self.run, RunState::Out(why) if why == NONE)
    }

    pub fn is_unread(&self) -> bool {
        matches!(self.run, RunState::Unread { .. })
    }

    fn take_unread(&mut self) -> Option<Member> {
        match mem::replace(&mut self.run, RunState::Out(NONE.into())) {
            RunState::Unread { member, .. } => Some(*member),
            other => {
                self.run = other;
                None
            }
        }
    }
}

impl Agent {
    /// Takes up the run of a membership at a start. Where the disk does not let the journal be read, it holds until it
    /// does.
    pub(super) fn take_up(&mut self, member: Member) -> Result<(), JournalError> {
        match self.journal() {
            Ok(journal) => self.enter(member, journal),
            Err(refused @ JournalError::Disk { .. }) => {
                self.participation.run = RunState::Unread { member: Box::new(member), why: refused.of_disk() };
            }
            Err(other @ (JournalError::Damaged { .. } | JournalError::OtherFormat { .. })) => return Err(other),
        }
        Ok(())
    }

    /// The journal; one that is damaged is put aside.
    fn journal(&mut self) -> Result<Journal, JournalError> {
        let (journal, damage) = Journal::load_or_put_aside(&*self.home.disk())?;
        if let Some(damage) = damage {
            self.records.tell(&format!("trouble: {damage}"));
        }
        Ok(journal)
    }

    /// Tries again what the disk refused at the start.
    pub(super) fn take_up_again(&mut self) {
        let Some(member) = self.participation.take_unread() else { return };
        match self.take_up(member) {
            Ok(()) if self.participation.is_unread() => {}
            Ok(()) => self.announce(),
            Err(damaged) => self.participation.run = RunState::Out(damaged.to_string()),
        }
    }

    /// Takes up the run of a membership where its journal ends.
    pub(super) fn enter(&mut self, member: Member, journal: Journal) {
        self.tidy_up(&journal.files());
        let profile = self.device.profile(Some(&member.membership), self.owner.wants());
        self.session = Session::new(profile, journal);
        self.participation.run = RunState::In(Box::new(member));
        self.connection.wrong_key = false;
    }

    /// The coordinator, by a key that this device pins, has said which to pin from now on. Where the disk does not take
    /// them, it is said again at the next hello.
    pub(super) fn pin(&mut self, keys: Vec<[u8; 32]>) {
        let RunState::In(member) = &mut self.participation.run else { return };
        let pinned = match member.repinned(&keys, &self.device.identity) {
            Ok(Some(pinned)) => pinned,
            Ok(None) => return,
            Err(error) => return self.records.log(&format!("the coordinator's new keys cannot be used: {error}")),
        };
        match pinned.membership.store(&*self.home.disk()) {
            Ok(()) => **member = pinned,
            Err(error) => self.records.log(&format!("the coordinator's new keys are not kept yet: {error}")),
        }
    }

    /// Says who it is, and for whom it works.
    pub(super) fn announce(&mut self) {
        let id = self.device.id();
        let ready = match self.participation.run_name() {
            Some(run) => {
                let policy = format!("{:?}", self.owner.wants().policy).to_lowercase();
                format!("ready: device {id} for the run \"{run}\", policy {policy}")
            }
            None => format!("ready: device {id}, in no run yet"),
        };
        self.records.tell(&ready);
        self.tell_of_damage();
    }

    /// An end that nobody asked for is in the log too: whoever started this may be a service manager, which reads
    /// nothing.
    pub(super) fn note_the_end(&mut self, ending: &Ending) {
        let words = match ending {
            Ending::Asked => return,
            Ending::Left => "left the run".into(),
            Ending::RunOver(words) => format!("the end: {}", session::run_is_over(words)),
            Ending::Refused(words) => format!("the end: the coordinator refused this device: {words}"),
        };
        self.records.log(&words);
    }

    /// It is out of its run, and stays: it holds and says why, until it is given another invite.
    pub(super) async fn stay_without_run(&mut self, ending: &Ending) {
        self.close_run().await;
        self.waiting.clear();
        self.session = Session::new(self.device.profile(None, self.owner.wants()), Journal::default());
        self.participation.run = RunState::Out(match ending {
            Ending::Refused(words) => {
                format!(
                    "the coordinator refused this device: {words}; `nightjar leave` forgets that run, and another can \
                    be joined"
                )
            }
            Ending::RunOver(words) => {
                format!("{} `nightjar leave` forgets it, and another can be joined", session::run_is_over(words))
            }
            Ending::Asked | Ending::Left => NONE.into(),
        });
        self.look(clock::mono_now());
    }

    /// Looks at an invite, and has its coordinator asked; that takes a moment, and [`Agent::join_answered`] goes on from
    /// there.
    pub(super) fn join(&mut self, link: &str, name: Option<&str>, reply: Reply) {
        let asked = match self.participation.run_name() {
            Some(run) => Err(JoinError::Already(run.to_owned())),
            None if self.participation.joining => Err(JoinError::Busy),
            None => Member::new(link, name, &self.device.identity, clock::wall_now()),
        };
        let member = match asked {
            Ok(member) => Box::new(member),
            // Who asked may have gone: an answer that nobody takes is dropped.
            Err(e) => return drop(reply.send(Err(e))),
        };
        self.participation.joining = true;
        let queue = self.queue.clone();
        tokio::spawn(async move {
            let answered = member.say_hello().await;
            let _ = queue.send(Event::JoinAnswered { member, answered, reply }).await; // fails only when the agent ends
        });
    }

    /// The coordinator takes this device, or has not answered; or it is none that this device may join.
    pub(super) fn join_answered(&mut self, member: Member, answered: Result<Answer, JoinError>, reply: Reply) {
        self.participation.joining = false;
        let joined = answered.and_then(|answer| {
            member.store(&*self.home.disk(), &answer)?;
            let joined = member.joined(&self.device.identity, &answer);
            let journal = self.journal()?;
            self.enter(member, journal);
            Ok(joined)
        });
        if joined.is_ok() {
            self.announce();
            self.look(clock::mono_now());
            self.settle();
        }
        drop(reply.send(joined));
    }
}
