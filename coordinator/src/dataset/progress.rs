//! How far a long piece of work is: a bar where stderr is a terminal, else a line now and then.

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// How often a line is written.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    /// Of a ledger.
    Rows,
}

/// A count of bytes or rows.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    unit: Unit,
    /// When a line is written next; `None` where none are.
    line_at: Option<Mutex<Instant>>,
}

/// A bar on stderr with rate and time left, or lines where that is no terminal.
pub fn progress(what: &'static str, bytes: u64, quiet: bool) -> Progress {
    counted(what, Unit::Bytes, "{bytes:>10} of {total_bytes}, {bytes_per_sec}, {eta} left", bytes, quiet)
}

/// The same for a ledger's rows, before it is known how many there are.
pub fn rows(what: &'static str, quiet: bool) -> Progress {
    counted(what, Unit::Rows, "{human_pos:>10} of {human_len} rows, {eta} left", 0, quiet)
}

fn counted(what: &'static str, unit: Unit, figures: &str, all: u64, quiet: bool) -> Progress {
    let has_lines = !quiet && !io::stderr().is_terminal();
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template(&format!("{{msg:>13}} {{wide_bar}} {figures}"));
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(all), target).with_style(style).with_message(what);
    Progress { bar, what, unit, line_at: has_lines.then(|| Mutex::new(Instant::now() + LINE_EVERY)) }
}

impl Progress {
    /// So many there are in all.
    pub fn set_length(&self, all: u64) {
        self.bar.set_length(all);
    }

    /// So many are done.
    pub fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.tell();
    }

    /// So many more are done.
    pub fn inc(&self, more: u64) {
        self.bar.inc(more);
        self.tell();
    }

    /// All is done.
    pub fn finish(&self) {
        self.bar.finish();
    }

    /// All is done, and nothing is left to see.
    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }

    fn tell(&self) {
        let Some(line_at) = &self.line_at else { return };
        let (now, mut line_at) = (Instant::now(), line_at.lock().unwrap_or_else(PoisonError::into_inner));
        if now >= *line_at {
            *line_at = now + LINE_EVERY;
            eprintln!("{}", line(self.what, self.unit, self.bar.position(), self.bar.length(), self.bar.elapsed()));
        }
    }
}

/// What is said of so many after so long.
fn line(what: &str, unit: Unit, done: u64, all: Option<u64>, elapsed: Duration) -> String {
    let told = |count: u64| match unit {
        Unit::Bytes => HumanBytes(count).to_string(),
        Unit::Rows => format!("{} rows", HumanCount(count)),
    };
    let a_second = done as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = all.filter(|_| a_second > 0.0).map(|all| all.saturating_sub(done) as f64 / a_second);
    let left =
        left.map(|left| format!(", {} left", HumanDuration(Duration::from_secs(left as u64)))).unwrap_or_default();
    let all = all.map(|all| format!(" of {}", told(all))).unwrap_or_default();
    format!("{what}: {}{all}, {}/s{left}", told(done), told(a_second as u64))
}

/// Does work that does not say how far it is; meanwhile it is told for how long it has been at work.
pub fn at_work<T>(what: &str, quiet: bool, work: impl FnOnce() -> T) -> T {
    if quiet {
        return work();
    }
    if io::stderr().is_terminal() {
        let template = "{msg:>13} {spinner} {elapsed}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        let done = work();
        bar.finish();
        return done;
    }
    eprintln!("{what}");
    let (ended, waits) = mpsc::channel::<()>();
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            while waits.recv_timeout(LINE_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{what}: {} so far", HumanDuration(begun.elapsed()));
            }
        });
        let done = work();
        drop(ended);
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_yet() {
        let said = line("reading", Unit::Bytes, 10 << 20, Some(40 << 20), Duration::from_secs(5));
        assert_eq!(said, "reading: 10.00 MiB of 40.00 MiB, 2.00 MiB/s, 15 seconds left");
        assert_eq!(line("reading", Unit::Bytes, 0, None, Duration::ZERO), "reading: 0 B, 0 B/s");
        let said = line("ledger", Unit::Rows, 2000, Some(4000), Duration::from_secs(2));
        assert_eq!(said, "ledger: 2,000 rows of 4,000 rows, 1,000 rows/s, 2 seconds left");
        assert_eq!(at_work("nothing", true, || 7), 7);
    }
}
