//! What strangers are shown. Devices are counted. Their names are for the people of the run alone; an owner who wants
//! to be named to everybody has chosen another name for it.

use crate::server::{
    feed::{Feed, LossSpan, State},
    words::{count, si, span},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use nightjar_shared::run_spec::OperatorSpec;
use serde::Serialize;
use std::fmt::Write;

const MARK: PreEscaped<&str> = PreEscaped(include_str!("../http/board/mark.svg"));
/// Names on the page; the others are counted.
const NAMES_MAX: usize = 100;
/// The curve's drawing board.
const CURVE: [f64; 2] = [720.0, 260.0];

/// All that is shown, and the answer of `/run.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// The run's name.
    pub run: String,
    /// What it is for.
    pub description: String,
    /// Who runs it.
    pub operator: Option<OperatorSpec>,
    /// Of the model.
    pub parameters: usize,
    /// Tokens merged.
    pub tokens: u64,
    /// Tokens at which it is over.
    pub token_budget: u64,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// The newest version; null until the first stands.
    pub version: Option<u64>,
    /// Nats a byte; null until it is measured.
    pub heldout_loss: Option<f64>,
    /// Devices that are part of the run.
    pub devices: usize,
    /// Devices that train now.
    pub training: usize,
    /// Those who want to be named, whoever has trained most first, at most [`NAMES_MAX`].
    pub helpers: Vec<String>,
    /// How many more want to be named.
    pub more_helpers: usize,
    /// Whether it is over.
    pub finished: bool,
    /// The curve of held-out loss.
    pub losses: Vec<LossSpan>,
}

impl Seen {
    /// As it stands.
    pub fn of(feed: &Feed) -> Self {
        let (figures, spec) = (feed.figures(), &feed.spec);
        let (helpers, more_helpers) = feed.devices.helpers(NAMES_MAX);
        Seen {
            run: spec.name.clone(),
            description: spec.description.clone(),
            operator: spec.operator.clone(),
            parameters: spec.model.parameters(),
            tokens: figures.tokens,
            token_budget: figures.token_budget,
            tokens_per_s: figures.tokens_per_s,
            version: figures.version,
            heldout_loss: figures.heldout_loss,
            devices: figures.states.values().sum(),
            training: figures.states[State::Training.name()],
            helpers: helpers.iter().map(ToString::to_string).collect(),
            more_helpers,
            finished: figures.finished,
            losses: feed.drawn().losses,
        }
    }
}

/// A contact as a link, where it is one.
fn contact(contact: &str) -> Markup {
    let is_plain = !contact.contains(char::is_whitespace);
    let link = match contact {
        web if is_plain && (web.starts_with("https://") || web.starts_with("http://")) => Some(web.to_owned()),
        mail if is_plain && mail.contains('@') && !mail.contains(':') => Some(format!("mailto:{mail}")),
        _ => None,
    };
    html! { @if let Some(link) = link { a href=(link) rel="nofollow noopener" { (contact) } } @else { (contact) } }
}

/// The curve, as a picture that scales.
fn curve(losses: &[LossSpan]) -> Markup {
    let [width, height] = CURVE;
    let (left, bottom, top) = (62.0, 34.0, 16.0);
    let most = losses.iter().map(|l| l.loss_max).fold(f64::MIN, f64::max);
    let least = losses.iter().map(|l| l.loss_min).fold(f64::MAX, f64::min);
    let span = if most > least { most - least } else { 1.0 };
    let last = losses.last().map_or(1, |l| l.newest.tokens).max(1) as f64;
    let x = |tokens: f64| left + (width - left - 12.0) * tokens / last;
    let y = |loss: f64| top + (height - top - bottom) * (most - loss) / span;
    let mut path = String::new();
    for loss in losses {
        // Writing to a string cannot fail.
        let _ = write!(path, "{:.1},{:.1} ", x(loss.newest.tokens as f64), y(loss.newest.loss));
    }
    let quarters = [0.0, 0.25, 0.5, 0.75, 1.0];
    html! {
        svg viewBox={ "0 0 " (width) " " (height) } role="img" aria-label={ "Held-out loss, from " (format!("{most:.3}")) " down to " (format!("{least:.3}")) " nats a byte" } {
            @for share in quarters {
                line.grid x1=(left) x2=(width - 12.0) y1=(y(least + span * share)) y2=(y(least + span * share)) {}
                text x=(left - 8.0) y=(y(least + span * share) + 4.0) text-anchor="end" { (format!("{:.2}", least + span * share)) }
                text x=(x(last * share)) y=(height - 8.0) text-anchor=(if share == 1.0 { "end" } else { "middle" }) { (si(last * share)) }
            }
            polyline.curve points=(path.trim_end()) {}
        }
    }
}

/// The page.
pub fn page(seen: &Seen) -> Markup {
    let done = (seen.tokens as f64 / seen.token_budget.max(1) as f64).min(1.0);
    let left = seen.token_budget.saturating_sub(seen.tokens) as f64;
    let operator = seen.operator.as_ref();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (seen.run) " · Nightjar" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/public.css";
            }
            body {
                header { span.brand { (MARK) "Nightjar" } }
                main {
                    section.sky {
                        h1 { (seen.run) }
                        @if !seen.description.is_empty() { p.words { (seen.description) } }
                        @if let Some(operator) = operator { p { "Run by " b { (operator.name) } @if !operator.contact.is_empty() { ", " (contact(&operator.contact)) } } }
                        progress max="1" value=(format!("{done:.4}")) aria-label="Tokens of the budget" {}
                        p { (si(seen.tokens as f64)) " of " (si(seen.token_budget as f64)) " tokens, " (format!("{:.1} %", done * 100.0))
                            @if seen.finished { ". The run is over." } @else if seen.tokens_per_s > 0.0 { ". At today’s speed it is over in " (span(left / seen.tokens_per_s)) "." } }
                    }
                    section aria-labelledby="training" {
                        h2 #training { "What it trains" }
                        dl {
                            div { dt { "Model" } dd { (si(seen.parameters as f64)) " parameters" } }
                            div { dt { "Version" } dd { @if let Some(version) = seen.version { (version) } @else { "–" } } }
                            div { dt { "Held-out loss" } dd { @if let Some(loss) = seen.heldout_loss { (format!("{loss:.4}")) } @else { "–" } } }
                            div { dt { "Tokens a second" } dd { (si(seen.tokens_per_s)) } }
                        }
                        @if seen.losses.len() > 1 { h3 { "Held-out loss, nats a byte, by tokens" } (curve(&seen.losses)) }
                    }
                    section aria-labelledby="helpers" {
                        h2 #helpers { "Who helps" }
                        p { (count(seen.devices, "device")) " of volunteers and of the lab " (if seen.devices == 1 { "is" } else { "are" }) " part of this run, and " (seen.training) " of them " (if seen.training == 1 { "trains" } else { "train" }) " at the moment." }
                        @if !seen.helpers.is_empty() {
                            h3 { "By the names that they chose" }
                            ul.names { @for name in &seen.helpers { li { bdi { (name) } } } }
                            @if seen.more_helpers > 0 { p { "and " (seen.more_helpers) " more" } }
                        }
                    }
                    section aria-labelledby="join" {
                        h2 #join { "How to join" }
                        ol {
                            li { "Ask " @if let Some(operator) = operator { b { (operator.name) } } @else { "whoever runs it" } " for an invite" @if let Some(operator) = operator.filter(|o| !o.contact.is_empty()) { ": " (contact(&operator.contact)) } "." }
                            li { "Install Nightjar on your computer." }
                            li { "Open it with " code { "nightjar open" } " and paste the invite. It trains when nobody needs the computer, and you can pause it at any time." }
                        }
                    }
                }
                footer { p { "The same as JSON: " a href="/run.json" { "/run.json" } "." } }
            }
        }
    }
}
