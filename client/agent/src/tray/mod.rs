//! The tray icon: whether Nightjar runs, holds, is paused or in trouble, at a glance; with pause, resume, the page and
//! quit in its menu. Comfort only: without a desktop, a bus or a place for icons, everything else goes on as before.

pub mod drawing;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(target_os = "linux", target_os = "macos", windows))]
mod menu;
#[cfg(any(target_os = "macos", windows))]
mod native;
#[cfg(any(target_os = "macos", all(unix, test)))]
mod process;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "macos")]
pub use macos::serve;

use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the icon tells without being opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It trains, or is about to.
    Running,
    /// It does not, for a reason.
    #[default]
    Held,
    /// The owner has paused it.
    Paused,
    /// Something waits for the owner: a bad preference, a GPU that is left alone.
    Trouble,
}

/// What the icon shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IconView {
    /// The picture.
    pub state: State,
    /// Whether a pause can be ended; a device in trouble may be paused too.
    pub paused: bool,
    /// What it does now and why.
    pub sentence: String,
}

/// What the owner asks for from the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MenuChoice {
    /// Pause for so long, or until resumed.
    Pause(Option<Duration>),
    /// End the pause.
    Resume,
    /// Show the page.
    OpenPage,
    /// End the agent.
    Quit,
}

/// Shows an icon from now on, as soon and as long as there is a place for one. It ends when `views` has no sender left;
/// a choice is dropped where nobody takes it. Never fails and never waits.
#[cfg(target_os = "linux")]
pub fn spawn(views: watch::Receiver<IconView>, choices: mpsc::Sender<MenuChoice>) {
    tokio::spawn(linux::show(views, choices));
}

/// Shows an icon from now on, until `views` has no sender left. Never fails and never waits.
#[cfg(windows)]
pub fn spawn(views: watch::Receiver<IconView>, choices: mpsc::Sender<MenuChoice>) {
    windows::spawn(views, choices);
}

/// Shows an icon from now on, until `views` has no sender left: in a process of its own, since macOS lets only a
/// process's first thread show anything. Never fails and never waits.
///
/// # Panics
/// Outside of a tokio runtime.
#[cfg(target_os = "macos")]
pub fn spawn(views: watch::Receiver<IconView>, choices: mpsc::Sender<MenuChoice>) {
    match std::env::current_exe() {
        Ok(program) => {
            let mut command = tokio::process::Command::new(program);
            command.arg("tray");
            tokio::spawn(process::show(command, views, choices));
        }
        Err(e) => tracing::warn!("no tray icon: {e}; `nightjar open` shows the page"),
    }
}

/// There is no tray icon on this system: the page and the command line do the same. Says so in the log.
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
pub fn spawn(_: watch::Receiver<IconView>, _: mpsc::Sender<MenuChoice>) {
    tracing::info!("no tray icon on this system; `nightjar open` shows the page");
}

/// The icon's name.
#[cfg(any(target_os = "linux", target_os = "macos", windows))]
fn title(state: State) -> String {
    let word = match state {
        State::Running => "running",
        State::Held => "holding",
        State::Paused => "paused",
        State::Trouble => "needs you",
    };
    format!("Nightjar: {word}")
}

/// What a menu's line may say: short, and with `access_key`, which makes the next letter a key on this system, told
/// twice.
#[cfg(any(target_os = "linux", target_os = "macos", windows, test))]
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
