//! What derives from the table as text: the first `prefs.toml`, in which every key is explained, and
//! docs/preferences.md.

use super::{PREFERENCES, PREFERENCES_FILE, Preferences, VERSION, edit};
use std::fmt::Write;

/// Columns of a comment in the file.
const WIDTH: usize = 100;

/// A `prefs.toml` that says nothing, and explains every key.
pub fn template() -> String {
    let defaults = Preferences::default();
    let mut text = String::new();
    wrapped(
        &mut text,
        "Nightjar's preferences. A line that begins with # is only a comment: take the # away from a line `# key = \
        value` to set it. A running Nightjar notices within seconds. A mistake is told by `nightjar status`, and what \
        was in force stays in force. `nightjar prefs set KEY VALUE` edits this file too, and leaves your comments \
        alone.",
    );
    let _ = write!(text, "\nversion = {VERSION}\n");
    let mut group = None;
    for p in PREFERENCES {
        if group.replace(p.group) != Some(p.group) {
            let _ = write!(text, "\n# ---- {} ----\n", p.group.title());
        }
        text.push('\n');
        wrapped(&mut text, &format!("{}. Allowed: {}.", p.help, p.allowed));
        let _ = writeln!(text, "# {} = {}", p.key, edit::literal(p.key, &(p.get)(&defaults)));
    }
    text
}

fn wrapped(text: &mut String, words: &str) {
    let mut column = WIDTH;
    for word in words.split(' ') {
        if column + 1 + word.len() > WIDTH {
            text.push_str(if text.is_empty() || text.ends_with('\n') { "#" } else { "\n#" });
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.chars().count();
    }
    text.push('\n');
}

/// docs/preferences.md.
pub fn document() -> String {
    let defaults = Preferences::default();
    let mut text = format!(
        "# Preferences\n\n\
         All of this is in `{PREFERENCES_FILE}`; `nightjar prefs edit` opens it, and `nightjar prefs set KEY VALUE` changes one line of it.\n\
         Each is also a flag of `nightjar run` (`--key-with-hyphens`) and a variable of the environment (`NIGHTJAR_KEY`).\n\
         A flag beats the environment, the environment the file, the file the default. This page is made from the program's own table.\n"
    );
    let mut group = None;
    for p in PREFERENCES {
        if group.replace(p.group) != Some(p.group) {
            let _ = write!(
                text,
                "\n## {}\n\n| key | default | allowed | what it does |\n|---|---|---|---|\n",
                p.group.title()
            );
        }
        let default = (p.get)(&defaults);
        let default = if default.is_empty() { "nothing".into() } else { format!("`{default}`") };
        let _ = writeln!(text, "| `{}` | {default} | {} | {} |", p.key, p.allowed, p.help);
    }
    text
}
