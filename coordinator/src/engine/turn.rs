//! One turn of the engine: what it writes and what it has done, in the order that keeps the promise that an answer
//! follows its commit.

use super::{
    event::{Action, ReplyTo},
    record::Record,
};
use nightjar_shared::wire::coordinator_message::Body;

/// What one event leads to.
#[derive(Default)]
pub(super) struct Turn {
    pub records: Vec<Record>,
    pub effects: Vec<Action>,
}

impl Turn {
    pub fn reply(&mut self, to: ReplyTo, body: Body) {
        self.effects.push(Action::Reply { to, body });
    }

    /// One commit, then everything that rests on it.
    pub fn actions(self) -> Vec<Action> {
        let commit = (!self.records.is_empty()).then_some(Action::Commit(self.records));
        commit.into_iter().chain(self.effects).collect()
    }
}
