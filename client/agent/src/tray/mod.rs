//! The tray icon: whether Nightjar runs, holds, is paused or in trouble, at a glance; with pause, resume, the page and
//! quit in its menu. Comfort only: without a desktop, a bus or a place for icons, everything else goes on as before.

pub mod drawing;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(target_os = "linux", windows))]
mod menu;
#[cfg(windows)]
mod windows;

use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the icon tells without being opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// It may train.
    Running,
    /// It holds, for a reason.
    #[default]
    Held,
    /// The owner has paused it.
    Paused,
    /// Something waits for the owner: a bad preference, a GPU that is left alone.
    Trouble,
}

/// What the icon shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Face {
    /// The picture.
    pub state: State,
    /// Whether a pause can be ended; a device in trouble may be paused too.
    pub paused: bool,
    /// What it does now and why.
    pub sentence: String,
}

/// What the owner asks for from the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Pause for so long, or until resumed.
    Pause(Option<Duration>),
    /// End the pause.
    Resume,
    /// Show the page.
    OpenPage,
    /// End the agent.
    Quit,
}

/// Shows an icon from now on, as soon and as long as there is a place for one. It ends when `faces` has no sender left; a
/// wish is dropped where nobody takes it. Never fails and never waits.
#[cfg(target_os = "linux")]
pub fn spawn(faces: watch::Receiver<Face>, wishes: mpsc::Sender<Wish>) {
    tokio::spawn(linux::show(faces, wishes));
}

/// Shows an icon from now on, until `faces` has no sender left. Never fails and never waits.
#[cfg(windows)]
pub fn spawn(faces: watch::Receiver<Face>, wishes: mpsc::Sender<Wish>) {
    windows::spawn(faces, wishes);
}

/// There is no tray icon on this system yet: the page and the command line do the same. Says so in the log.
#[cfg(not(any(target_os = "linux", windows)))]
pub fn spawn(_: watch::Receiver<Face>, _: mpsc::Sender<Wish>) {
    tracing::info!("no tray icon: it exists on Linux and Windows only so far; `nightjar open` shows the page");
}

/// The icon's name.
#[cfg(any(target_os = "linux", windows))]
fn title(state: State) -> String {
    let word = match state {
        State::Running => "running",
        State::Held => "holding",
        State::Paused => "paused",
        State::Trouble => "needs you",
    };
    format!("Nightjar: {word}")
}

/// What a menu's line may say: short, and with `access_key`, which makes the next letter a key on this system, told twice.
#[cfg(any(target_os = "linux", windows, test))]
fn menu_line(sentence: &str, access_key: char) -> String {
    const CHARACTERS_MAX: usize = 90;
    let mut line: String = sentence.chars().take(CHARACTERS_MAX).collect();
    if sentence.chars().count() > CHARACTERS_MAX {
        line.push('…');
    }
    let mut characters = line.chars();
    let capital = characters.next().map(|first| first.to_uppercase().chain(characters).collect::<String>());
    capital.unwrap_or_default().replace(access_key, &format!("{access_key}{access_key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menu_line_is_short_and_keeps_its_underscores() {
        assert_eq!(menu_line("`idle_minutes` is bad", '_'), "`idle__minutes` is bad");
        assert_eq!(menu_line("über Nacht", '_'), "Über Nacht");
        assert_eq!(menu_line(&"ä".repeat(200), '&').chars().count(), 91);
        assert_eq!(menu_line("", '&'), "");
    }
}
