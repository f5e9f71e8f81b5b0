//! What can be chosen from the icon's menu, on every system.

use super::MenuChoice;
use std::time::Duration;

/// How long the menu's short pause is.
const SHORT_PAUSE: Duration = Duration::from_secs(3600);

/// A line to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Names it where menus tell what was chosen by a name.
    pub id: &'static str,
    pub label: &'static str,
    pub choice: MenuChoice,
}

const RESUME: Entry = Entry { id: "resume", label: "Resume", choice: MenuChoice::Resume };
const PAUSE_SHORTLY: Entry =
    Entry { id: "pause-1h", label: "Pause for 1 hour", choice: MenuChoice::Pause(Some(SHORT_PAUSE)) };
const PAUSE: Entry = Entry { id: "pause", label: "Pause until I resume", choice: MenuChoice::Pause(None) };
const OPEN: Entry = Entry { id: "open", label: "Open the page", choice: MenuChoice::OpenPage };
const QUIT: Entry = Entry { id: "quit", label: "Quit", choice: MenuChoice::Quit };

/// The lines, from top to bottom.
pub(super) fn entries(paused: bool) -> impl Iterator<Item = Entry> {
    let first: &[Entry] = if paused { &[RESUME] } else { &[PAUSE_SHORTLY, PAUSE] };
    first.iter().copied().chain([OPEN, QUIT])
}

/// What the line of this name asks for.
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "here a line brings its choice along"))]
pub(super) fn choice(id: &str) -> Option<MenuChoice> {
    entries(true).chain(entries(false)).find(|entry| entry.id == id).map(|entry| entry.choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_a_name_of_its_own() {
        for entry in entries(true).chain(entries(false)) {
            assert_eq!(choice(entry.id), Some(entry.choice));
        }
        assert_eq!(choice("x"), None);
        assert_eq!(
            entries(true).next().map(|entry| entry.choice),
            Some(MenuChoice::Resume),
            "a pause can be ended at once"
        );
    }
}
