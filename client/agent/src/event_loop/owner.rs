//! The owner: their preferences, and their word for now. Both are files that somebody may write beside us.

use super::Agent;
use crate::{
    clock,
    home::Home,
    pause::{OwnersWord, PAUSE_FILE},
    policy::{Decision, Outcome, Override, ReasonKind},
    preferences::{Preferences, PreferencesFile},
    sensor::Wants,
    session,
};
use nightjar_shared::{disk::Disk, time::Mono};
use std::{io, time::Duration};

pub(super) struct Owner {
    pub preferences: PreferencesFile,
    /// What was said last of the preferences' file.
    pub config_error: Option<String>,
    pub word: OwnersWord,
}

impl Owner {
    pub fn new(preferences: PreferencesFile, disk: &dyn Disk, now: Mono) -> io::Result<Self> {
        Ok(Owner { preferences, config_error: None, word: OwnersWord::open(disk, clock::wall_now(), now)? })
    }

    /// The preferences in force.
    pub fn wants(&self) -> &Preferences {
        self.preferences.preferences()
    }

    /// What the sensors must look for, to keep to them.
    pub fn needs(&self, home: &Home) -> Wants {
        let wanted = self.wants();
        Wants {
            home: home.folder().to_path_buf(),
            programs: wanted.programs.clone(),
            idle: Duration::from_secs(60 * wanted.idle_minutes.unwrap_or(10)),
        }
    }

    /// A pause that nobody has made is not said to be theirs.
    pub fn with_damage(&self, mut outcome: Outcome) -> Outcome {
        if let Decision::Hold { reason, .. } = &mut outcome.decision
            && reason.kind == ReasonKind::Paused
            && self.word.is_damaged()
        {
            reason.sentence =
                "its file of pauses is damaged, which counts as a pause; `nightjar resume` lets it go on".into();
        }
        outcome
    }
}

impl Agent {
    /// The owner's word takes effect, and then is written down: a disk that is full must not stand in its way.
    pub(super) fn set_word(&mut self, word: Override, now: Mono) {
        let disk = self.home.disk();
        // What was noted beside us before this counts no more.
        self.owner.word.look(&*disk, clock::wall_now(), now);
        self.owner.word.say(word);
        self.look(now);
        if let Err(e) = self.owner.word.keep(&*disk, clock::wall_now(), now) {
            self.records
                .tell(&format!("trouble: your word cannot be written down ({e}); it holds until this program ends"));
        }
    }

    /// What somebody has written since the last look counts from the next one on, which comes at once.
    pub(super) fn look_at_files(&mut self, now: Mono) {
        if self.owner.word.look(&*self.home.disk(), clock::wall_now(), now) {
            self.next_look = now;
            self.tell_of_damage();
        }
        if self.owner.preferences.reload_if_changed() {
            self.preferences_changed();
            self.next_look = now;
        }
        let error = self.owner.preferences.error().map(ToString::to_string);
        if error != self.owner.config_error {
            if let Some(error) = &error {
                self.records.tell(&format!("trouble: {error}; the last good preferences stay in force"));
            }
            self.owner.config_error = error;
        }
    }

    /// Says why it is paused if nobody has paused it.
    pub(super) fn tell_of_damage(&mut self) {
        if self.owner.word.is_damaged() {
            let path = self.home.path(PAUSE_FILE);
            self.records
                .tell(&format!("{} is damaged, which counts as a pause: `nightjar resume` ends it", path.display()));
        }
    }

    /// The owner's new preferences take effect at once.
    pub(super) fn preferences_changed(&mut self) {
        let wanted = self.owner.wants().clone();
        self.memory = self.memory.of_the_computer();
        self.computer.sensors.set_wants(self.owner.needs(&self.home));
        let written_max = wanted.write_mib_day_max.map(|mib| mib << 20);
        self.session.set_wishes(wanted.checkpoint_s * 1000, written_max);
        self.session.set_public_name(wanted.public_name.clone());
        if self.worker.running.as_ref().is_some_and(|running| running.chosen != wanted.device) {
            self.replace_worker();
        }
        self.waiting.push_back(session::Event::Retry);
        self.next_tidy = clock::mono_now();
        self.records.tell("the preferences have changed");
    }
}
