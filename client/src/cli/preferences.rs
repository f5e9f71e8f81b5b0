//! The owner's preferences as flags: made from the same table as the file's keys, so the two cannot differ.

use anyhow::Result;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use nightjar_agent::{
    home::Home,
    preferences::{PREFERENCES, PREFERENCES_FILE, Preferences},
};

/// What was said on the command line: keys and values, checked when they are applied.
#[derive(Clone, Debug, Default)]
pub(super) struct PreferenceFlags(Vec<(&'static str, String)>);

impl PreferenceFlags {
    /// The preferences' file, overridden by the flags.
    pub fn over_file(&self, home: &Home) -> Result<Preferences> {
        let mut preferences = Preferences::load(&home.path(PREFERENCES_FILE))?;
        for (key, value) in &self.0 {
            preferences.set("command line", key, value)?;
        }
        Ok(preferences)
    }
}

impl FromArgMatches for PreferenceFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let said = |key: &'static str| matches.get_one::<String>(key).map(|value| (key, value.clone()));
        Ok(PreferenceFlags(PREFERENCES.iter().filter_map(|p| said(p.key)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for PreferenceFlags {
    fn augment_args(command: Command) -> Command {
        let defaults = Preferences::default();
        let flags = PREFERENCES.iter().map(|p| {
            let help = format!("{} [{} in {PREFERENCES_FILE}; default: {}]", p.help, p.key, (p.get)(&defaults));
            Arg::new(p.key).long(p.flag).value_name(p.value_name).help(help).help_heading("Preferences")
        });
        command.args(flags.collect::<Vec<_>>())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
