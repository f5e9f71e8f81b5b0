//! What the owner says: over the control API or from the tray.

use super::Agent;
use crate::{
    clock,
    control::{Asked, Command},
    pause::PAUSE_MAX,
    policy::Override,
    session,
    tray::MenuChoice,
};
use jiff::Zoned;
use std::time::Duration;

impl Agent {
    /// Does what is asked, and answers.
    pub(super) fn answer(&mut self, asked: Asked) {
        self.count_traffic(&Zoned::now());
        // Who asked may have gone: an answer that nobody takes is dropped.
        match asked {
            Asked::Do(Command::Status, reply) => drop(reply.send(self.status())),
            Asked::Do(command, reply) => {
                self.command(command);
                self.settle();
                drop(reply.send(self.status()));
            }
            Asked::Join { invite, name, reply } => self.join(&invite, name.as_deref(), reply),
            Asked::Day(date, reply) => drop(reply.send(self.records.history.day(date, &Zoned::now()))),
            Asked::Preferences(reply) => drop(reply.send(self.owner.preferences.rows())),
            Asked::Set { key, value, reply } => {
                let set = self.owner.preferences.set(&key, &value);
                if set.is_ok() {
                    self.preferences_changed();
                    self.look(clock::mono_now());
                    self.settle();
                }
                drop(reply.send(set.map(|()| self.owner.preferences.rows())));
            }
        }
    }

    /// Does what was chosen in the tray.
    pub(super) fn chosen_in_tray(&mut self, choice: MenuChoice) {
        let command = match choice {
            MenuChoice::Pause(length) => Command::Pause(length),
            MenuChoice::Resume => Command::Resume,
            MenuChoice::Quit => Command::Shutdown,
            MenuChoice::OpenPage => {
                self.open_page();
                return;
            }
        };
        self.command(command);
        self.settle();
    }

    fn command(&mut self, command: Command) {
        let now = clock::mono_now();
        let end = |length: Option<Duration>| length.map(|length| now + length.min(PAUSE_MAX));
        match command {
            Command::Status => {}
            Command::Pause(length) => self.set_word(Override::Pause(end(length)), now),
            Command::RunNow(length) => self.set_word(Override::RunNow(end(length)), now),
            Command::Resume => self.set_word(Override::No, now),
            Command::Retry => {
                self.retry();
                self.look(now);
            }
            // There may be nothing to leave; or a run that this device is out of already.
            Command::Leave => self.waiting.push_back(session::Event::Leave),
            Command::Shutdown => self.waiting.push_back(session::Event::Shutdown),
        }
    }
}
