//! Being in a run, or in none yet: an agent without a membership serves its owner like any other, holds, and waits for
//! an invite.

use super::{Agent, Event, wall_now};
use crate::{
    clock, control,
    identity::Identity,
    join::{Answer, JoinError, Joined, Member},
    journal::{Journal, JournalError},
    lease::LeaseKind,
    membership::Membership,
    preferences::Preferences,
    session::{self, Ending, Profile, Session},
};
use jiff::Zoned;
use nightjar_shared::wire::Role;
use tokio::sync::oneshot;

/// Why an agent that was never given an invite holds.
pub(super) const NONE: &str = "this computer has not joined a run yet; paste an invite on its page (`nightjar open`), or use `nightjar join INVITE`";

/// Where the answer to whoever brought an invite goes.
type Reply = oneshot::Sender<Result<Joined, String>>;

/// What a session is told of this device; in no run it has nothing to show.
pub(super) fn profile(
    identity: &Identity,
    membership: Option<&Membership>,
    kinds: &[LeaseKind],
    wanted: &Preferences,
    cores: usize,
) -> Profile {
    Profile {
        device: identity.device(),
        token: membership.map_or_else(Vec::new, |m| m.token.clone()),
        role: membership.map_or(Role::Volunteer, Membership::role),
        kinds: kinds.to_vec(),
        name: membership.map_or_else(String::new, |m| m.name.clone()),
        hardware: format!("{}, {} threads", wanted.device, wanted.threads_on(cores)),
        memory_bytes: 0,
        checkpoint_ms: wanted.checkpoint_s * 1000,
        checkpoint_bytes_day_max: wanted.write_mib_day_max.map(|mib| mib << 20),
    }
}

impl Agent {
    /// Takes up the run of a membership at a start. Where the disk does not let the journal be read, it holds until it
    /// does.
    pub(super) fn take_up(&mut self, member: Member) -> Result<(), JournalError> {
        match self.journal() {
            Ok(journal) => self.enter(member, journal),
            Err(refused @ JournalError::Disk { .. }) => {
                self.member = Err(refused.of_disk());
                self.unread = Some(Box::new(member));
            }
            Err(other @ (JournalError::Damaged { .. } | JournalError::OtherFormat { .. })) => return Err(other),
        }
        Ok(())
    }

    /// The journal; one that is damaged is put aside.
    fn journal(&mut self) -> Result<Journal, JournalError> {
        let (journal, damage) = Journal::load_or_put_aside(&*self.disk)?;
        if let Some(damage) = damage {
            self.tell(&format!("trouble: {damage}"));
        }
        Ok(journal)
    }

    /// Tries again what the disk refused at the start.
    pub(super) fn take_up_again(&mut self) {
        let Some(member) = self.unread.take() else { return };
        match self.take_up(*member) {
            Ok(()) if self.unread.is_none() => self.announce(),
            Ok(()) => {}
            Err(damaged) => self.member = Err(damaged.to_string()),
        }
    }

    /// Takes up the run of a membership where its journal ends.
    pub(super) fn enter(&mut self, member: Member, journal: Journal) {
        self.tidy_up(&journal.files());
        let wanted = self.preferences.preferences();
        let profile = profile(&self.identity, Some(&member.membership), &self.kinds, wanted, self.cores);
        self.session = Session::new(profile, journal);
        self.unread = None;
        self.member = Ok(member);
        self.wrong_key = false;
    }

    /// Says who it is, and for whom it works.
    pub(super) fn announce(&mut self) {
        let ready = match &self.member {
            Ok(Member { membership, .. }) => {
                let policy = format!("{:?}", self.preferences.preferences().policy).to_lowercase();
                format!("ready: device {} for the run \"{}\", policy {policy}", self.device, membership.invite.run_name)
            }
            Err(_) => format!("ready: device {}, in no run yet", self.device),
        };
        self.tell(&ready);
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
        self.log.write(&control::timestamp(&Zoned::now()), &words);
    }

    /// It is out of its run, and stays: it holds and says why, until it is given another invite.
    pub(super) async fn rest(&mut self, ending: &Ending) {
        self.part().await;
        self.waiting.clear();
        let profile = profile(&self.identity, None, &self.kinds, self.preferences.preferences(), self.cores);
        self.session = Session::new(profile, Journal::default());
        self.member = Err(match ending {
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

    /// Looks at an invite, and has its coordinator asked; that takes a moment, and [`Agent::knocked`] goes on from
    /// there.
    pub(super) fn join(&mut self, link: &str, name: Option<&str>, reply: Reply) {
        let asked = match &self.member {
            Ok(member) => Err(JoinError::Already(member.membership.invite.run_name.clone())),
            Err(_) if self.joining => Err(JoinError::Busy),
            Err(_) => Member::new(link, name, &self.identity, wall_now()),
        };
        let member = match asked {
            Ok(member) => Box::new(member),
            // Who asked may have gone: an answer that nobody takes is dropped.
            Err(e) => return drop(reply.send(Err(e.to_string()))),
        };
        self.joining = true;
        let queue = self.queue.clone();
        tokio::spawn(async move {
            let answered = member.knock().await;
            let _ = queue.send(Event::Knocked { member, answered, reply }).await; // fails only when the agent ends
        });
    }

    /// The coordinator takes this device, or has not answered; or it is none that this device may join.
    pub(super) fn knocked(&mut self, member: Member, answered: Result<Answer, JoinError>, reply: Reply) {
        self.joining = false;
        let joined = answered.and_then(|answer| {
            member.store(&*self.disk, &answer)?;
            Ok(member.joined(&self.identity, &answer))
        });
        let joined = joined.map_err(|e| e.to_string()).and_then(|joined| {
            let journal = self.journal().map_err(|e| e.to_string())?;
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
