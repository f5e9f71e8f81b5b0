//! What the owner says: over the control API or from the tray.

use super::{Agent, wall_now};
use crate::{
    clock,
    control::{self, Asked, Command},
    pause,
    policy::Override,
    session,
    tray::Wish,
};
use jiff::Zoned;
use nightjar_shared::time::Mono;
use std::{io, process::Stdio};

impl Agent {
    /// Does what is asked, and answers.
    pub(super) fn answer(&mut self, asked: Asked) -> Result<(), super::AgentError> {
        self.count_traffic(&Zoned::now());
        // Who asked may have gone: an answer that nobody takes is dropped.
        match asked {
            Asked::Do(Command::Status, reply) => drop(reply.send(self.status())),
            Asked::Do(command, reply) => {
                self.command(command)?;
                self.settle()?;
                drop(reply.send(self.status()));
            }
            Asked::Day(date, reply) => drop(reply.send(self.history.day(date, &Zoned::now()))),
            Asked::Preferences(reply) => drop(reply.send(self.preferences.rows())),
            Asked::Set { key, value, reply } => {
                let set = self.preferences.set(&key, &value).map_err(|e| e.to_string());
                if set.is_ok() {
                    self.preferences_changed();
                    self.look(clock::mono_now());
                    self.settle()?;
                }
                drop(reply.send(set.map(|()| self.preferences.rows())));
            }
        }
        Ok(())
    }

    /// Does what was chosen in the tray.
    pub(super) fn grant(&mut self, wish: Wish) -> Result<(), super::AgentError> {
        let command = match wish {
            Wish::Pause(length) => Command::Pause(length),
            Wish::Resume => Command::Resume,
            Wish::Quit => Command::Shutdown,
            Wish::OpenPage => {
                self.open_page();
                return Ok(());
            }
        };
        self.command(command)?;
        self.settle()
    }

    fn command(&mut self, command: Command) -> io::Result<()> {
        let now = clock::mono_now();
        match command {
            Command::Status => return Ok(()),
            Command::Pause(length) => {
                pause::store(&*self.disk, length, wall_now())?;
                self.reload_word(now)?;
            }
            Command::RunNow(length) => {
                pause::store_run_now(&*self.disk, length, wall_now())?;
                self.reload_word(now)?;
            }
            Command::Resume => {
                pause::clear(&*self.disk)?;
                self.owner = Override::No;
            }
            Command::Retry => self.retry()?,
            Command::Leave => self.waiting.push_back(session::Event::Leave),
            Command::Shutdown => self.waiting.push_back(session::Event::Shutdown),
        }
        self.look(now);
        Ok(())
    }

    fn reload_word(&mut self, now: Mono) -> io::Result<()> {
        self.owner = pause::load(&*self.disk, wall_now(), now)?;
        Ok(())
    }

    fn open_page(&mut self) {
        let opened = control::open_page(&self.home).and_then(|command| {
            let Some(command) = command else { return Ok(()) };
            let mut command = tokio::process::Command::from(command);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(|_| ())
        });
        if let Err(e) = opened {
            self.tell(&format!("trouble: the page cannot be opened ({e}); `nightjar open --print` shows its address"));
        }
    }
}
