//! `status`, `why`, `pause`, `run-now` and `resume`: what the owner says to a running agent, over its control API. What
//! holds for a later start too is noted where none runs.

use super::{
    Misunderstood,
    format::Format,
    running::{Found, Running},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::{
    control::{AgentStatus, Command, State, Summary, Why, Word, WordKind, timestamp, unwritable},
    history::{Figures, log_lines},
    home::{Home, HomeError},
    jiff::{RoundMode, Timestamp, Unit, Zoned, ZonedRound, civil, tz::TimeZone},
    length::{self, Length},
    membership::{Membership, MembershipError},
    pause,
    policy::{Cause, ReasonKind, moment},
};
use nightjar_shared::{disk::Disk, run_spec::OperatorSpec, time::Wall};
use serde::Serialize;
use std::{io, process::ExitCode, time::Duration};

/// Exit code of commands that ask an agent where none runs.
pub(super) const NOT_RUNNING: u8 = 3;

#[derive(Args)]
pub(super) struct Pause {
    /// For how long, like 45m, 2h or 1d, or `until 18:00`, `until 7pm`, `until tomorrow 8:00`; without it, until
    /// `nightjar resume`
    #[arg(num_args = 0.., value_name = "LENGTH")]
    length: Vec<String>,
}

#[derive(Args)]
pub(super) struct RunNow {
    /// For how long, like 45m, 2h or 1d, or `until 7:00`, `until 7pm`, `until tomorrow 8:00`; without it, until
    /// `nightjar resume`
    #[arg(num_args = 0.., value_name = "LENGTH")]
    length: Vec<String>,
}

/// What an agent tells, for scripts: where none runs, they read `"running": false` in the same place.
#[derive(Serialize)]
struct Alive<T> {
    running: bool,
    #[serde(flatten)]
    told: T,
}

pub(super) fn status(home: &Home, format: Format) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, format) };
    let status = running.send(Command::Status)?;
    format.say(&Alive { running: true, told: &status }, in_lines(&status).trim_end())
}

fn in_lines(status: &AgentStatus) -> String {
    let mut lines = vec![];
    let mut line = |name: &str, text: String| lines.push(format!("{name:<9}{text}\n"));
    let session = &status.session;
    let run = status.run.as_ref().map_or_else(String::new, |run| format!(", in the run \"{}\"", run.name));
    line("device", format!("{} ({}){run}", status.device, status.name));
    if let Some(run) = &status.run {
        if !run.sentence.is_empty() {
            line("about", run.sentence.replace('\n', " "));
        }
        if let Some(OperatorSpec { name, contact }) = &run.operator {
            line("run by", if contact.is_empty() { name.clone() } else { format!("{name} ({contact})") });
        }
    }
    line("now", format!("{}{}", session.doing, if session.online { "" } else { " (offline)" }));
    let summary = &status.summary;
    match summary.state {
        _ if !status.why.allowed => line("holding", in_words(&status.why)),
        State::Offline => line("offline", in_words(&status.why)),
        State::NeedsYou => line("trouble", format!("{}: {}", summary.headline, in_words(&status.why))),
        _ => {}
    }
    if let Some(slowed) = &status.slowed {
        line("slowed", slowed.clone());
    }
    if let Some(lease) = session.lease {
        let training = &session.training;
        line(
            "lease",
            format!("{lease}: {} of {} steps, loss {:.3}", training.steps, session.lease_steps, training.loss),
        );
    }
    let of_run = status.totals_of_run();
    line(
        "this run",
        format!(
            "{} leases, {} merged, {} samples, {} measurements",
            of_run.leases, of_run.merged, of_run.samples, of_run.evaluations
        ),
    );
    line("today", in_figures(&status.today));
    line("in all", in_figures(&status.totals));
    if let Some(source) = &status.energy_source {
        line("energy", format!("from {source}"));
    }
    if let Some(lost) = &session.lost_state {
        line("did without", lost.clone());
    }
    for trouble in session.trouble.iter().chain(&status.config_error) {
        line("trouble", trouble.clone());
    }
    for of in &status.worker.left_alone {
        line("trouble", of.reason.clone());
    }
    for note in &status.sandbox {
        line("sandbox", note.clone());
    }
    lines.concat()
}

fn in_figures(figures: &Figures) -> String {
    let about = if figures.energy_measured || figures.energy_joules == 0.0 { "" } else { "about " };
    format!(
        "{} tokens, {} deltas, {} merged; {about}{:.2} kWh; {:.1} MiB up, {:.1} MiB down, {:.1} MiB written",
        figures.tokens,
        figures.deltas,
        figures.merged,
        figures.energy_joules / 3.6e6,
        figures.bytes_up as f64 / f64::from(1 << 20),
        figures.bytes_down as f64 / f64::from(1 << 20),
        figures.bytes_written as f64 / f64::from(1 << 20),
    )
}

pub(super) fn why(home: &Home, format: Format) -> Result<ExitCode> {
    let Some(running) = Running::find(home) else { return not_running(home, format) };
    let status = running.send(Command::Status)?;
    let end = status
        .owner
        .as_ref()
        .filter(|_| status.why.kind == Some(ReasonKind::Paused))
        .and_then(|word| word.until.as_deref());
    let words = match end {
        // The pause has an end, and something else may hold then whose end nobody knows.
        Some(end) if status.why.until.is_none() => {
            format!("{} (the pause ends at {})", status.why.reason, to_the_minute(end))
        }
        _ => in_words(&status.why),
    };
    format.say(&Alive { running: true, told: &status.why }, words)
}

pub(super) fn pause(home: &Home, args: &Pause, format: Format) -> Result<ExitCode> {
    let length = said(&args.length)?;
    let lasts = length.map(|length| length.lasts);
    let heard = say(home, Command::Pause(lasts), |disk, now| pause::store(disk, lasts, now))?;
    format.say(&heard.json(), format!("paused {}{}", span(length, heard.word.as_ref(), &Zoned::now()), heard.proviso()))
}

pub(super) fn run_now(home: &Home, args: &RunNow, format: Format) -> Result<ExitCode> {
    let length = said(&args.length)?;
    let lasts = length.map(|length| length.lasts);
    let heard = say(home, Command::RunNow(lasts), |disk, now| pause::store_run_now(disk, lasts, now))?;
    let span = span(length, heard.word.as_ref(), &Zoned::now());
    let words = match &heard.agent {
        Some(agent) => promise(&span, &agent.why, &agent.summary),
        None => format!("training {span}, once an agent runs; `nightjar run` starts one"),
    };
    format.say(&heard.json(), words + heard.proviso())
}

/// What comes of "run now", as things stand.
fn promise(span: &str, why: &Why, summary: &Summary) -> String {
    match (why.kind, summary.state) {
        (Some(ReasonKind::NotJoined), _) => format!("training {span} once there is a run: {}", in_words(why)),
        (Some(kind), _) if kind.row().cause == Cause::NoWork => {
            format!("training {span} once there is work: {}", in_words(why))
        }
        (None, State::Offline | State::NeedsYou) => format!("training {span} as soon as it can: {}", summary.headline),
        // It waits until it may ask again.
        (None, State::Ready) if why.until.is_some() => format!("training {span} as soon as it can: {}", in_words(why)),
        (None, _) => format!("training {span}"),
        (Some(_), _) => format!("training {span} as soon as it can: {}", in_words(why)),
    }
}

pub(super) fn resume(home: &Home, format: Format) -> Result<ExitCode> {
    let heard = say(home, Command::Resume, |disk, _| pause::clear(disk))?;
    let words = match heard.why() {
        Some(why) => format!("resumed: {}", in_words(why)),
        None => "resumed; no agent is running now".into(),
    };
    format.say(&heard.json(), words)
}

/// How the owner's word was taken: by an agent, or as a note for the next one.
struct Heard {
    agent: Option<Box<AgentStatus>>,
    word: Option<Word>,
}

impl Heard {
    fn why(&self) -> Option<&Why> {
        self.agent.as_ref().map(|agent| &agent.why)
    }

    /// What the disk could not take is said.
    fn proviso(&self) -> &'static str {
        match &self.word {
            Some(Word { kept: false, .. }) => ", or until the agent ends: the disk does not take it",
            _ => "",
        }
    }

    /// For scripts.
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "running": self.agent.is_some(), "override": self.word, "why": self.why() })
    }
}

/// Tells the agent, or notes it for the next one.
fn say(home: &Home, command: Command, note: impl FnOnce(&dyn Disk, Wall) -> io::Result<()>) -> Result<Heard> {
    let found = Running::or_lock(home)?;
    if let Found::Running(running) = found {
        let agent = running.send(command)?;
        return Ok(Heard { word: agent.owner.clone(), agent: Some(Box::new(agent)) });
    }
    let now = Zoned::now();
    let unix_ms = now.timestamp().as_millisecond().max(0) as u64;
    note(&*home.disk(), Wall { unix_ms }).context("cannot note your word in the home folder")?;
    if matches!(found, Found::Silent) {
        bail!(
            "an agent runs, but does not answer; your word is noted, and counts once the agent looks at its files: ask \
            `nightjar why`"
        );
    }
    let until =
        |length: Option<Duration>| length.and_then(|length| now.checked_add(length).ok()).as_ref().map(timestamp);
    let word = match command {
        Command::Pause(length) => Some(Word { kind: WordKind::Pause, until: until(length), kept: true }),
        Command::RunNow(length) => Some(Word { kind: WordKind::RunNow, until: until(length), kept: true }),
        _ => None,
    };
    Ok(Heard { agent: None, word })
}

fn said(words: &[String]) -> Result<Option<Length>> {
    Ok(length::parse(&words.join(" "), &Zoned::now()).map_err(|e| Misunderstood(e.to_string()))?)
}

/// How long, and until when, as whoever took the word has it: of some words it is not plain which time of day they
/// mean.
fn span(length: Option<Length>, word: Option<&Word>, now: &Zoned) -> String {
    let end = word.and_then(|word| word.until.as_deref()?.parse::<Timestamp>().ok());
    let end = end.map(|end| moment(&end.to_zoned(now.time_zone().clone()), now));
    match (length, end) {
        (Some(Length { is_until: true, .. }), Some(end)) => {
            format!("until {}", end.strip_prefix("at ").or_else(|| end.strip_prefix("on ")).unwrap_or(&end))
        }
        (Some(Length { lasts, .. }), Some(end)) => format!("for {} (ending {end})", length::show(lasts)),
        (Some(Length { lasts, .. }), None) => format!("for {}", length::show(lasts)),
        (None, _) => "until `nightjar resume`".into(),
    }
}

pub(super) fn in_words(why: &Why) -> String {
    // Of what comes in a moment the minute is told too late.
    let left_s = why
        .until
        .as_deref()
        .and_then(|at| at.parse::<Timestamp>().ok())
        .map(|at| at.duration_since(Timestamp::now()).as_secs());
    if let Some(left_s) = left_s.filter(|left_s| why.allowed && *left_s < 100) {
        return format!("{} (it tries again in {} s)", why.reason, left_s.max(1));
    }
    match why.until.as_deref().map(to_the_minute) {
        Some(until) if why.allowed => format!("{} (it tries again at {until})", why.reason),
        Some(until) if tells_time(&why.reason, &until) => why.reason.clone(),
        Some(until) => format!("{} (until {until})", why.reason),
        None => why.reason.clone(),
    }
}

/// A time of the agent's to the minute, rounded up, so that it is never past; and without the offset: a person knows
/// where they are.
fn to_the_minute(at: &str) -> String {
    let rounding = ZonedRound::new().smallest(Unit::Minute).mode(RoundMode::Ceil);
    let in_minutes = |at: Timestamp| at.to_zoned(TimeZone::system()).round(rounding);
    at.parse().and_then(in_minutes).map_or_else(|_| at.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Whether a sentence names the time itself, as one says it ("at 18:00", "on 1 December"): two times confuse.
fn tells_time(sentence: &str, until: &str) -> bool {
    let Ok(at) = civil::DateTime::strptime("%Y-%m-%d %H:%M", until) else { return false };
    let is_midnight = at.time() == civil::Time::midnight();
    let by_date = format!("on {} {}", at.day(), at.strftime("%B"));
    sentence.contains(&at.strftime("at %H:%M").to_string()) || is_midnight && sentence.contains(&by_date)
}

/// The same where there is not even a home.
pub(super) fn no_home(format: Format) -> Result<ExitCode> {
    let reason = MembershipError::None.to_string();
    format.say(&serde_json::json!({ "running": false, "reason": reason }), &reason)?;
    Ok(ExitCode::from(NOT_RUNNING))
}

/// Says that there is no agent, and what to do about it.
pub(super) fn not_running(home: &Home, format: Format) -> Result<ExitCode> {
    if matches!(home.lock(), Err(HomeError::InUse { .. })) {
        if let Some(refused) = unwritable(home) {
            bail!(
                "an agent runs with this home folder, but cannot say where it listens ({refused}); it holds meanwhile, and \
                 answers within seconds once it can write there"
            );
        }
        bail!(
            "an agent runs with this home folder, but does not answer here; it may hang, or XDG_RUNTIME_DIR may be another than \
             where it was started: try again, or end it and start it anew"
        );
    }
    let reason: String = match Membership::load(&*home.disk()) {
        Ok(_) => {
            // Whoever started it may read nothing of what it told.
            let last = log_lines(&*home.disk(), 1).pop();
            let end = last
                .as_deref()
                .and_then(|line| line.split_once("the end: "))
                .map_or_else(String::new, |(_, end)| format!(" ({end})"));
            format!("no agent is running{end}; `nightjar run` starts one")
        }
        Err(e) => e.to_string(),
    };
    format.say(&serde_json::json!({ "running": false, "reason": reason }), &reason)?;
    Ok(ExitCode::from(NOT_RUNNING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_as_it_was_said_and_with_the_end_that_the_agent_has() {
        let now: Zoned = "2026-11-29T23:58:59.5[UTC]".parse().unwrap();
        let until = |at: &str| Some(Word { kind: WordKind::Pause, until: Some(at.into()), kept: true });
        let said = |words: &str, at: &str| span(length::parse(words, &now).unwrap(), until(at).as_ref(), &now);
        assert_eq!(said("until 7", "2026-11-30T06:59:59+00:00"), "until tomorrow at 07:00");
        assert_eq!(said("2h", "2026-11-30T01:58:59+00:00"), "for 2 h (ending tomorrow at 01:59)");
        assert_eq!(span(None, None, &now), "until `nightjar resume`");
    }

    /// "Run now" promises no training where there can be none for now.
    #[test]
    fn what_cannot_train_yet_is_not_said_to_train() {
        let why = Why { allowed: true, kind: None, reason: "it may train".into(), until: None };
        let in_state = |state| Summary { state, headline: "somebody else answers".into(), ..Summary::default() };
        assert_eq!(promise("for 1 h", &why, &in_state(State::Training)), "training for 1 h");
        for state in [State::NeedsYou, State::Offline] {
            assert_eq!(
                promise("for 1 h", &why, &in_state(state)),
                "training for 1 h as soon as it can: somebody else answers"
            );
        }
    }

    #[test]
    fn a_time_is_told_once() {
        let paused = "you paused it; the pause ends at 18:00, or sooner with `nightjar resume`";
        assert!(tells_time(paused, "2026-11-29 18:00"));
        assert!(!tells_time(paused, "2026-11-29 22:00"), "its hours begin later");
        assert!(tells_time("they are counted anew on 1 December, and a higher one helps", "2026-12-01 00:00"));
        assert!(!tells_time("the computer was used 2 minutes ago", "2026-11-29 18:00"));
    }
}
