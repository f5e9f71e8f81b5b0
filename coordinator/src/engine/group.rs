//! Turns that share a commit. Each turn is decided on what the turns before it have led to, written or not. So they are
//! written together, in one transaction; what rests on them is done after it, in their order, as if each had had a commit
//! of its own.

use super::{event::Action, record::Record};

/// Turns that were decided, and of which nothing is done yet. What is done after the commit is an `E`: the engine's
/// actions, and whatever else the shell has to do in their order.
pub struct Group<E = Action> {
    records: Vec<Record>,
    turns: Vec<Turn<E>>,
}

/// How many of the records one turn wrote, and what rests on them.
struct Turn<E> {
    records: usize,
    effects: Vec<E>,
}

impl<E> Default for Group<E> {
    fn default() -> Self {
        Group { records: vec![], turns: vec![] }
    }
}

impl<E: From<Action>> Group<E> {
    /// Adds a turn, as the engine decided it. One that leads to nothing is none.
    pub fn add(&mut self, turn: Vec<Action>) {
        let before = self.records.len();
        let mut effects = vec![];
        for action in turn {
            match action {
                Action::Commit(records) => self.records.extend(records),
                action => effects.push(action.into()),
            }
        }
        let records = self.records.len() - before;
        if records > 0 || !effects.is_empty() {
            self.turns.push(Turn { records, effects });
        }
    }

    /// Adds what was decided on the turns before it, and writes nothing.
    pub fn also(&mut self, effect: E) {
        self.turns.push(Turn { records: 0, effects: vec![effect] });
    }

    /// How many turns there are.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// What is to be written, in one transaction, before anything is done.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Turn by turn, what was written and what is to be done now.
    pub fn into_turns(self) -> impl Iterator<Item = (Vec<Record>, Vec<E>)> {
        let mut records = self.records.into_iter();
        self.turns.into_iter().map(move |turn| (records.by_ref().take(turn.records).collect(), turn.effects))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{event::ReplyTo, record::LeaseOutcome};
    use nightjar_shared::{
        ids::LeaseId,
        time::Wall,
        wire::{Done, coordinator_message::Body},
    };

    fn closed(id: u64) -> Record {
        Record::LeaseClosed { id: LeaseId(id), outcome: LeaseOutcome::Returned, samples_used: 0, at: Wall::default() }
    }

    fn reply(to: u64) -> Action {
        Action::Reply { to: ReplyTo(to), body: Body::Done(Done::default()) }
    }

    #[test]
    fn turns_are_written_together_and_done_in_their_order() {
        let mut group = Group::<Action>::default();
        group.add(vec![Action::Commit(vec![closed(1), closed(2)]), reply(1)]);
        group.add(vec![]);
        group.add(vec![reply(2)]);
        group.also(reply(3));
        group.add(vec![Action::Commit(vec![closed(3)])]);
        assert_eq!((group.len(), group.records()), (4, &[closed(1), closed(2), closed(3)][..]));
        let turns = group.into_turns().map(|(records, effects)| {
            let to = |effect: &Action| if let Action::Reply { to, .. } = effect { to.0 } else { 0 };
            (records, effects.iter().map(to).collect::<Vec<_>>())
        });
        let expected =
            [(vec![closed(1), closed(2)], vec![1]), (vec![], vec![2]), (vec![], vec![3]), (vec![closed(3)], vec![])];
        assert_eq!(turns.collect::<Vec<_>>(), expected);
    }
}
