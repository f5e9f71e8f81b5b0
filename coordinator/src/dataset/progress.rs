//! Progress bars.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on stderr with rate and time left; invisible where that is no terminal.
pub fn progress(what: &'static str, bytes: u64, quiet: bool) -> ProgressBar {
    bar(what, "{bytes:>10} of {total_bytes}, {bytes_per_sec}, {eta} left", quiet, bytes)
}

/// The same for a ledger's rows, before it is known how many there are.
pub fn rows(what: &'static str, quiet: bool) -> ProgressBar {
    bar(what, "{human_pos:>10} of {human_len} rows, {eta} left", quiet, 0)
}

fn bar(what: &'static str, figures: &str, quiet: bool, all: u64) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template(&format!("{{msg:>13}} {{wide_bar}} {figures}"));
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(all), target).with_style(style).with_message(what)
}
