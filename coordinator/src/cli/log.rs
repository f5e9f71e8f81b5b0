//! The log, on stderr: as text for people, or a JSON object a line for tools.

use clap::ValueEnum;
use std::{ffi::OsStr, io::IsTerminal};
use tracing_subscriber::EnvFilter;

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For tools: what `serve` says on stdout is in it, too
    Json,
}

/// Lines for the person at the terminal, in a log that is for tools.
pub const SAID: &str = "said";

/// Begins it. `verbose` is how often somebody asked for more.
pub fn begin(format: Format, verbose: u8) {
    let level = ["warn", "info", "nightjar_coordinator=debug,info"][usize::from(verbose.min(2))];
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| level.to_owned());
    // What the program says is said, whatever else is asked for. What a page sends that HTTP/3 does not know is no news.
    let filter = EnvFilter::new(format!("web_transport_quinn=error,{asked},{SAID}=info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Text => {
            let in_colour = wants_colour(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
            // Which module says it means nothing to whoever reads it.
            lines.with_ansi(in_colour).with_target(false).init();
        }
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
}

/// Whether the log may have colours: on a terminal whose user has not said otherwise (no-color.org), and in no file or
/// pipe.
fn wants_colour(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Says a line of `serve`: on stdout, or in a log that is for tools.
pub fn say(format: Format, line: &str) {
    match format {
        Format::Text => super::say(line),
        Format::Json => tracing::info!(target: SAID, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_colours_on_a_terminal_alone() {
        assert!(wants_colour(true, None) && wants_colour(true, Some(OsStr::new(""))));
        assert!(!wants_colour(false, None) && !wants_colour(true, Some(OsStr::new("1"))));
    }
}
