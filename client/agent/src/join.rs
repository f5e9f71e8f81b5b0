//! Joining: what lies between an invite's text and a membership, the same for `nightjar join` and for the page. The
//! coordinator is asked before anything is written, so that whoever pasted an invite that it does not take hears of it
//! at once, and not from a log at night.

use crate::{
    identity::Identity,
    journal::{self, Journal, JournalError},
    link::{Dialer, Link, LinkError},
    membership::{Membership, MembershipError},
    session,
};
use nightjar_shared::{
    delta::CodecId,
    disk::Disk,
    ids::RunId,
    lease::LeaseKind,
    time::Wall,
    wire::{self, DeviceMessage, Refusal, RefusalAction, coordinator_message, device_message, limits},
};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

/// The coordinator is waited for so long while a device joins.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// An invite that does not make this device a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The invite is at fault, or the disk.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// Who answers is not who invited; or this device cannot even ask.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The coordinator has looked at it.
    #[error("the coordinator does not take this device: {0}")]
    Refused(String),
    /// What belongs to another run cannot be removed.
    #[error("cannot clear this device's folder: {0}")]
    Disk(#[from] io::Error),
    /// What was done for it before cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// One run at a time.
    #[error("this computer is in the run \"{0}\" already; `nightjar leave` leaves it")]
    Already(String),
    /// One invite at a time.
    #[error("it is joining already; wait a moment")]
    Busy,
}

/// What came of it, for scripts and for the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The run's name.
    pub run: String,
    /// What the invite made this device: `volunteer` or `anchor`.
    pub role: String,
    /// Its id.
    pub device: String,
    /// How its owner calls it.
    pub name: String,
    /// Whether the coordinator has answered. One that does not now may tonight.
    pub coordinator_answers: bool,
    /// If it has not: how that looks from here.
    #[serde(default)]
    pub silence: Option<String>,
}

/// What a coordinator says to a device that knocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is in.
    Welcome(RunId),
    /// Not now.
    Later,
    /// Nobody answers; says how that looks from here.
    Silence(String),
}

/// A membership, and the way to its coordinator.
pub struct Member {
    /// What the invite says.
    pub membership: Membership,
    /// To the coordinator that it pins.
    pub dialer: Dialer,
}

impl Member {
    /// Of an invite link, if its signature fits and it has not expired; where the owner gives the device no name, its
    /// id has to do.
    pub fn new(link: &str, name: Option<&str>, identity: &Identity, now: Wall) -> Result<Self, JoinError> {
        let id = identity.device().short();
        let name = name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(&id);
        Ok(Member::of(Membership::from_link(link, name, now.unix_ms)?, identity)?)
    }

    /// Of a membership.
    pub fn of(membership: Membership, identity: &Identity) -> Result<Self, LinkError> {
        let dialer = Dialer::new(identity, &membership.invite)?;
        Ok(Member { membership, dialer })
    }

    /// The same run by other keys; `None` where they are those that it pins.
    pub fn repinned(&self, keys: &[[u8; 32]], identity: &Identity) -> Result<Option<Self>, LinkError> {
        let membership = self.membership.repinned(keys);
        if membership == self.membership { Ok(None) } else { Member::of(membership, identity).map(Some) }
    }

    /// Says hello, which enrols this device.
    pub async fn say_hello(&self) -> Result<Answer, JoinError> {
        let answer = match tokio::time::timeout(HELLO_MAX, self.greet()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ LinkError::WrongKey(_))) => return Err(error.into()),
            Ok(Err(error)) => return Ok(Answer::Silence(error.to_string())),
            Err(_) => {
                return Ok(Answer::Silence(LinkError::Silent(self.membership.invite.addresses.join(", ")).to_string()));
            }
        };
        match answer {
            Some(coordinator_message::Body::Refusal(refusal)) if is_final(&refusal) => {
                Err(JoinError::Refused(limits::tame(&refusal.sentence)))
            }
            Some(coordinator_message::Body::Welcome(welcome)) => match session::welcome::read(&welcome) {
                Ok((run, _)) => Ok(Answer::Welcome(run)),
                Err(error) => Err(JoinError::Refused(limits::tame(&error.to_string()))),
            },
            _ => Ok(Answer::Later),
        }
    }

    async fn greet(&self) -> Result<Option<coordinator_message::Body>, LinkError> {
        let link = self.dialer.connect().await?;
        let answer = ask(&link, self.hello()).await;
        link.close().await;
        answer
    }

    fn hello(&self) -> wire::Hello {
        wire::Hello {
            software: session::SOFTWARE.into(),
            invite: self.membership.token.clone(),
            role: self.membership.role() as i32,
            codecs: CodecId::ALL.iter().map(|codec| *codec as u32).collect(),
            kinds: LeaseKind::ALL.map(LeaseKind::to_wire).to_vec(),
            name: self.membership.name.clone(),
            ..wire::Hello::default()
        }
    }

    /// Makes this the device's membership. Weights and leases of another run are of no use in it, and go first.
    pub fn store(&self, disk: &dyn Disk, answer: &Answer) -> Result<(), JoinError> {
        let by_invite = Membership::load(disk).is_ok_and(|before| before.is_same_run(&self.membership));
        // A membership may have been lost that the journal still belongs to.
        let by_journal = || {
            let run = Journal::load(disk).ok().and_then(|journal| journal.run);
            run.is_some_and(|run| *answer == Answer::Welcome(run.id))
        };
        if !by_invite && !by_journal() {
            journal::forget(disk)?;
        }
        Ok(self.membership.store(disk)?)
    }

    /// What to tell of it.
    pub fn joined(&self, identity: &Identity, answer: &Answer) -> Joined {
        let role = match self.membership.role() {
            wire::Role::Anchor => "anchor",
            wire::Role::Volunteer | wire::Role::Unspecified => "volunteer",
        };
        Joined {
            run: limits::tame(&self.membership.invite.run_name),
            role: role.into(),
            device: identity.device().short(),
            name: self.membership.name.clone(),
            coordinator_answers: !matches!(answer, Answer::Silence(_)),
            silence: match answer {
                Answer::Silence(why) => Some(why.clone()),
                Answer::Welcome(_) | Answer::Later => None,
            },
        }
    }
}

async fn ask(link: &Link, hello: wire::Hello) -> Result<Option<coordinator_message::Body>, LinkError> {
    let message = DeviceMessage { request: 1, body: Some(device_message::Body::Hello(hello)) };
    Ok(link.control().await?.ask(&message).await?.body)
}

/// Whether asking again would change nothing.
fn is_final(refusal: &Refusal) -> bool {
    matches!(refusal.action(), RefusalAction::Stop | RefusalAction::Upgrade)
}
