//! The run at a glance: one sentence, its figures, how leases ended, the newest versions. The page has them at first,
//! and the stream of events brings them again.

use crate::server::{
    clock::wall_now,
    feed::{Figures, State},
    history::VersionPoint,
    limits::{Kind, Per},
    rates::Bite,
    words::{ago, bytes, count, share, si, span, stamp},
};
use maud::{Markup, html};
use nightjar_shared::time::Wall;

/// What a run does, for the colours of the page.
pub fn state(figures: &Figures) -> &'static str {
    match figures {
        f if f.trouble.is_some() && !f.finished => "trouble",
        f if f.finished => "over",
        f if f.version.is_none() => "starting",
        f if f.paused_unix_ms.is_some() && f.leases_open > 0 => "draining",
        f if f.paused_unix_ms.is_some() => "paused",
        f if f.states[State::Training.name()] > 0 => "training",
        _ => "quiet",
    }
}

/// The state's word, the sentence, and what follows from it.
fn said(figures: &Figures) -> (&'static str, String, String) {
    let training = figures.states[State::Training.name()];
    let all: usize = figures.states.values().sum();
    let left = figures.token_budget.saturating_sub(figures.tokens) as f64;
    match state(figures) {
        "trouble" => {
            let trouble = figures.trouble.clone().unwrap_or_default();
            (
                "Waiting",
                format!("It waits: {trouble}."),
                "It goes on by itself when the cause is gone. Nothing that was acknowledged is lost.".into(),
            )
        }
        "over" => (
            "Over",
            "The token budget is used up: the run is over.".into(),
            "`nightjar-coordinator export` writes the model.".into(),
        ),
        "draining" => (
            "Draining",
            format!("Paused, with {} still out.", count(figures.leases_open, "lease")),
            format!("{}. What devices train now is still taken.", paused_since(figures)),
        ),
        "paused" => (
            "Paused",
            "The run is paused.".into(),
            format!("{}. No lease is out, so the coordinator may be stopped.", paused_since(figures)),
        ),
        "starting" => ("Starting", "The first version is being made.".into(), String::new()),
        "training" => {
            let verb = if training == 1 { "trains" } else { "train" };
            let speed = format!("{} tokens a second", si(figures.tokens_per_s));
            let rest = (figures.tokens_per_s > 0.0).then(|| span(left / figures.tokens_per_s));
            let next = rest.map_or(format!("{speed}."), |rest| {
                format!("{speed}. At this speed the token budget is used up in {rest}.")
            });
            ("Training", format!("{} of {} {verb}.", training, count(all, "device")), next)
        }
        _ if all == 0 => (
            "Quiet",
            "No device has joined yet.".into(),
            "Print an invite with `nightjar-coordinator invite`, and send it to a volunteer.".into(),
        ),
        _ => (
            "Quiet",
            "Nobody trains at the moment.".into(),
            format!("{} may come back at any time.", count(all, "device")),
        ),
    }
}

/// Since when the run gives out no leases.
fn paused_since(figures: &Figures) -> String {
    let since = Wall { unix_ms: figures.paused_unix_ms.unwrap_or_default() };
    format!("An operator paused it at {}, {}", stamp(since), ago(since.unix_ms, wall_now().unix_ms))
}

/// A text in which what stands between backquotes is code.
fn with_code(text: &str) -> Markup {
    html! { @for (i, part) in text.split('`').enumerate() { @if i % 2 == 1 { code { (part) } } @else { (part) } } }
}

/// The sentence, and how far the run is.
pub fn sky(figures: &Figures) -> Markup {
    let (word, sentence, next) = said(figures);
    let done = (figures.tokens as f64 / figures.token_budget.max(1) as f64).min(1.0);
    html! {
        p #state { (word) }
        h1 #sentence { (sentence) }
        p #next { (with_code(&next)) }
        progress max="1" value=(format!("{done:.4}")) aria-label="Tokens of the budget" {}
        p.under { (si(figures.tokens as f64)) " of " (si(figures.token_budget as f64)) " tokens, " (format!("{:.1} %", done * 100.0)) }
    }
}

fn figure(name: &str, value: &str, note: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) @if !note.is_empty() { " " small { (note) } } } } }
}

/// The figures.
pub fn figures(figures: &Figures) -> Markup {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    let version = or_dash(figures.version.map(|v| v.to_string()));
    let measured = figures.heldout_version.filter(|of| Some(*of) != figures.version);
    let disk = figures.disk.free_bytes.map_or("–".into(), bytes);
    html! {
        dl.tiles {
            (figure("Held-out loss", &or_dash(figures.heldout_loss.map(|l| format!("{l:.4}"))),
                    &measured.map_or("nats a byte".into(), |v| format!("nats a byte, version {v}"))))
            (figure("Version", &version, ""))
            (figure("Tokens a second", &si(figures.tokens_per_s), ""))
            (figure("Leases in flight", &figures.leases_open.to_string(), ""))
            (figure("Deltas merged", &si(figures.merged as f64), ""))
            (figure("Utilisation", &or_dash(figures.utilisation.map(share)), "of lease time"))
            (figure("Agreement", &or_dash(figures.agreement.map(share)), "signal in deltas"))
            (figure("Round", &or_dash(figures.round_s.map(span)), "newest"))
            (figure("Received", &bytes(figures.bytes_up), ""))
            (figure("Sent", &bytes(figures.bytes_down), ""))
            (figure("Disk", &disk, if figures.disk.full { "free: full" } else { "free" }))
            (figure("Running for", &span(wall_now().since(figures.since).as_secs_f64()), &format!("since {}", stamp(figures.since))))
        }
    }
}

/// A bar of devices by what they do, with its legend.
pub fn states(figures: &Figures) -> Markup {
    let all: usize = figures.states.values().sum();
    let mut x = 0.0;
    let parts: Vec<(State, usize, f64, f64)> = State::ALL
        .into_iter()
        .map(|state| {
            let devices = figures.states[state.name()];
            let (from, width) = (x, 100.0 * devices as f64 / all.max(1) as f64);
            x += width;
            (state, devices, from, width)
        })
        .collect();
    html! {
        @if all > 0 {
            svg.bar-of viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                @for (state, _, from, width) in &parts {
                    rect class={ "of-" (state.name()) } x=(format!("{from:.3}")) y="0" width=(format!("{width:.3}")) height="4" {}
                }
            }
        }
        ul.legend {
            @for (state, devices, ..) in &parts {
                li { i class={ "of-" (state.name()) } aria-hidden="true" {} (devices) " " (state.name()) }
            }
        }
    }
}

/// How leases ended since this process began, and why deltas were turned down.
pub fn ends(figures: &Figures) -> Markup {
    let words = [
        ("merged", "Merged", "accepted, and part of a version"),
        ("screened_out", "Screened out", "turned down"),
        ("returned", "Returned", "given back by their devices"),
        ("expired", "Expired", "their deadline passed"),
        ("evaluated", "Evaluated", "held-out loss was measured"),
    ];
    html! {
        table.figures {
            tbody {
                @for (key, word, note) in words {
                    tr { th scope="row" { (word) small { (note) } } td { (figures.ended[key]) } }
                }
            }
        }
        @if !figures.reasons.is_empty() {
            h3 { "Why deltas were turned down" }
            ul.notes { @for (reason, times) in &figures.reasons { li { b { (times) " × " } (reason) } } }
        }
    }
}

/// The limits that turned devices away of late; nothing where none did.
pub fn limits(bites: &[Bite]) -> Markup {
    let what = |kind| match kind {
        Kind::Connections => "connections at once",
        Kind::Enrolments => "devices that join",
        Kind::Requests => "requests",
        Kind::Bytes => "bytes",
    };
    let whose = |per| match per {
        Per::Device => "of one device",
        Per::Address => "of one address",
        Per::Invite => "with one invite",
    };
    html! {
        @if !bites.is_empty() {
            section.card aria-labelledby="limits-title" {
                h2 #limits-title { "Limits that turned devices away" }
                p.lead { "Within the last hour, and counted since this start of the coordinator. The devices come back by themselves; " code { "serve --limit" } " changes a limit." }
                table.figures {
                    tbody {
                        @for Bite { limit, kind, per, times, ago: since } in bites {
                            tr { th scope="row" { code { (limit) } small { (what(*kind)) " " (whose(*per)) ", the last " (ago(0, since.as_millis() as u64)) } }
                                 td { (times) " ×" } }
                        }
                    }
                }
            }
        }
    }
}

/// The newest versions.
pub fn versions(versions: &[VersionPoint]) -> Markup {
    let size = |length: u64| if length == 0 { "–".into() } else { bytes(length) };
    html! {
        @if versions.is_empty() { p.none { "The first version is being made." } } @else {
            table {
                thead { tr { th scope="col" { "Version" } th scope="col" { "Published" } th.number scope="col" { "Tokens" } th.number scope="col" { "Update" } th.number scope="col" { "Keyframe" } } }
                tbody {
                    @for version in versions {
                        tr { td { (version.version) } td { (stamp(version.wall)) }
                             td.number { (si(version.tokens as f64)) } td.number { (size(version.update_bytes)) } td.number { (size(version.keyframe_bytes)) } }
                    }
                }
            }
        }
    }
}
