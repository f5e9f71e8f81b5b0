//! The dashboard's pages as a whole: their frame, the run's page, a device's page.

use super::{devices, figures};
use crate::{
    server::{
        feed::{DevicePage, DeviceRow, Feed, Wanted},
        rates::Bite,
        words::count,
    },
    store::LeaseOfDevice,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const BIRD: PreEscaped<&str> = PreEscaped(include_str!("bird.svg"));
const MARK: PreEscaped<&str> = PreEscaped(include_str!("mark.svg"));

/// What every page has around it.
fn frame(title: &str, run: &str, state: &str, main: Markup, foot: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/board.css";
                script type="module" src="/assets/board.js" {}
            }
            body data-state=(state) {
                a.skip href="#main" { "Skip to the figures" }
                header.bar {
                    a.brand href="/" { (MARK) "Nightjar" }
                    span #whose { bdi { (run) } }
                    span #live data-state="asking" { i aria-hidden="true" {} span #live-words { "connecting" } }
                }
                main #main tabindex="-1" { (main) }
                footer { (foot) (sign()) }
                (dialog())
            }
        }
    }
}

/// What is asked before anything is done; a script fills it.
fn dialog() -> Markup {
    html! {
        dialog #confirm aria-labelledby="confirm-title" aria-describedby="confirm-words" {
            form #confirm-form method="dialog" {
                h2 #confirm-title {}
                p #confirm-words {}
                div #confirm-fields {}
                div #confirm-result {}
                p #confirm-said role="alert" {}
                div.actions {
                    button #confirm-go.primary type="submit" {}
                    button #confirm-cancel.quiet type="button" { "Close" }
                }
            }
        }
    }
}

/// What an operator may have done: a call of the admin API.
struct Deed<'a> {
    path: &'a str,
    word: &'a str,
    title: &'a str,
    words: &'a str,
    /// What is asked for, as JSON: names of the call's fields, their labels and kinds.
    fields: &'a str,
}

const DEEDS: [Deed<'static>; 4] = [
    Deed {
        path: "/api/v1/run/pause",
        word: "Pause",
        title: "Pause the run?",
        words: "No new lease is given out. What devices train now is still taken, and this page says when the last lease is back: then the run is drained, and the coordinator may be stopped.",
        fields: "[]",
    },
    Deed {
        path: "/api/v1/run/resume",
        word: "Resume",
        title: "Resume the run?",
        words: "Devices are given leases again.",
        fields: "[]",
    },
    Deed {
        path: "/api/v1/run/extend",
        word: "Extend",
        title: "Extend the run?",
        words: "The run is over when this many tokens are merged.",
        fields: r#"[{"name": "token_budget", "label": "New token budget, in tokens", "kind": "number"}]"#,
    },
    Deed {
        path: "/api/v1/invites/create",
        word: "Invite",
        title: "Make an invite?",
        words: "Whoever has its link can enrol devices as volunteers.",
        fields: r#"[{"name": "addresses", "label": "Where devices reach the coordinator: HOST:PORT", "kind": "list"},
                    {"name": "devices_max", "label": "Devices at most; empty: any number", "kind": "number?"},
                    {"name": "expires_days", "label": "Days until it ends; empty: never", "kind": "number?"}]"#,
    },
];

fn deed(deed: &Deed, class: &str) -> Markup {
    html! {
        button.(class) type="button" data-path=(deed.path) data-title=(deed.title) data-words=(deed.words)
            data-go=(deed.word) data-fields=(deed.fields) { (deed.word) }
    }
}

/// Who is signed in, where that is asked for.
fn sign() -> Markup {
    let enter = Deed {
        path: "/api/v1/login",
        word: "Sign in",
        title: "Sign in",
        words: "With a token of `nightjar-coordinator token create`, made on the coordinator’s computer.",
        fields: r#"[{"name": "token", "label": "Token", "kind": "secret"}]"#,
    };
    let leave = Deed {
        path: "/api/v1/logout",
        word: "Sign out",
        title: "Sign out?",
        words: "The dashboard stays; its buttons go.",
        fields: "[]",
    };
    html! {
        span.sign {
            span data-signed="out" hidden { (deed(&enter, "link")) }
            span data-signed="in" hidden { span #signed {} " " (deed(&leave, "link")) }
        }
    }
}

/// A picture of curves: an empty canvas that a script draws on, what can be chosen, and the same as a table.
struct Chart {
    name: &'static str,
    title: &'static str,
    lead: &'static str,
    empty: &'static str,
    value: &'static str,
    is_whole: bool,
}

fn chart(chart: &Chart) -> Markup {
    let Chart { name, title, lead, empty, value, is_whole } = chart;
    let id = |part: &str| format!("{name}-{part}");
    html! {
        figure.card.chart data-chart=(name) data-empty=(empty) aria-labelledby=(id("title")) {
            h2 id=(id("title")) { (title) }
            p.lead { (lead) }
            form.tools {
                span { label for=(id("x")) { "By" } " " select id=(id("x")) name="x" { option value="tokens" { "tokens" } option value="time" { "time" } option value="version" { "version" } } }
                @if *is_whole {
                    span { label for=(id("smooth")) { "Smoothed" } " " select id=(id("smooth")) name="smooth" { option value="1" { "not" } option value="5" { "a little" } option value="20" { "much" } } }
                    label { input type="checkbox" name="logx"; " log x" }
                }
                label { input type="checkbox" name="logy"; " log y" }
                span.zooms role="group" aria-label="Zoom" {
                    button type="button" data-do="in" aria-label="Zoom in" { "+" } button type="button" data-do="out" aria-label="Zoom out" { "−" } button type="button" data-do="all" { "All" }
                }
                span.saves role="group" aria-label="Save" { button type="button" data-do="csv" { "CSV" } button type="button" data-do="png" { "PNG" } }
            }
            canvas tabindex="0" role="img" aria-label=(title) {}
            p.readout aria-live="polite" { "Point at the curve, or use the arrow keys. Drag to zoom." }
            details {
                summary { "As a table" }
                div.scroll tabindex="0" role="group" aria-label={ (title) " as a table" } { table {
                    thead { tr { th scope="col" { "Version" } th scope="col" { "Tokens" } th scope="col" { "Time" } th scope="col" { (value) } } }
                    tbody {}
                } }
            }
            noscript { p.none { "Curves are drawn with JavaScript; the same numbers are at " a href="/api/curves" { "/api/curves" } "." } }
        }
    }
}

/// The run's page.
pub fn run(feed: &Feed, asked: &Wanted, devices: &DevicePage, bites: &[Bite]) -> Markup {
    let (now, name) = (feed.figures(), &feed.spec.name);
    let part = devices::address("/devices", asked);
    let main = html! {
        section.sky aria-labelledby="sentence" data-paused[now.paused_unix_ms.is_some()] {
            (BIRD)
            div.now {
                div #sky { (figures::sky(&now)) }
                div.actions data-operator hidden { @for one in &DEEDS { (deed(one, if one.word == "Invite" { "primary" } else { "quiet" })) } }
                p #acted role="status" {}
            }
        }
        div #limits { (figures::limits(bites)) }
        section.card aria-label="Figures" { div #figures { (figures::figures(&now)) } }
        (chart(&Chart { name: "loss", title: "Held-out loss", lead: "Nats a byte of text that no device trains on. Less is better.",
            empty: "Drawn once an anchor node has measured two versions.", value: "Nats a byte", is_whole: true }))
        section #devices.card aria-labelledby="devices-title" {
            h2 #devices-title { "Devices" }
            div #states { (figures::states(&now)) }
            (devices::filter(asked))
            div data-part=(part) { (devices::table(asked, devices, now.version)) }
        }
        div.pair {
            (chart(&Chart { name: "speed", title: "Speed", lead: "Tokens merged a second, from version to version.", empty: "Drawn from the second version on.", value: "Tokens a second", is_whole: false }))
            (chart(&Chart { name: "round", title: "Rounds", lead: "Time from one version to the next.", empty: "Drawn from the second version on.", value: "Seconds", is_whole: false }))
            (chart(&Chart { name: "agreement", title: "Agreement", lead: "The share of signal in the deltas of a version.", empty: "Drawn once versions are made of several deltas.", value: "Share", is_whole: false }))
            section.card aria-labelledby="ends-title" { h2 #ends-title { "How leases ended" } p.lead { "Since this start of the coordinator." } div #ends { (figures::ends(&now)) } }
        }
        section.card aria-labelledby="versions-title" {
            h2 #versions-title { "Newest versions" }
            div.scroll tabindex="0" role="group" aria-labelledby="versions-title" { div #versions { (figures::versions(&feed.newest_versions())) } }
        }
    };
    let foot = html! {
        p { "Generation " (now.generation) ". The same figures as JSON: " a href="/api/status" { "/api/status" } ", " a href="/api/curves" { "/api/curves" } ", " a href="/api/devices" { "/api/devices" } "." }
        p { "Nothing on this page comes from another server." }
    };
    frame(&format!("{name} · Nightjar"), name, figures::state(&now), main, foot)
}

/// A device's page.
pub fn device(feed: &Feed, row: &DeviceRow, leases: &[LeaseOfDevice], now_ms: u64) -> Markup {
    let called = devices::called(row);
    let (path, title) = (format!("/api/v1/devices/{}/revoke", row.record.id), format!("Revoke {called}?"));
    let revoke = Deed {
        path: &path,
        word: "Revoke",
        title: &title,
        words: "Its lease ends, and it is not let in again, whatever invite it has. What it has given stays.",
        fields: "[]",
    };
    let main = html! {
        section.card.lone {
            p { a href="/#devices" { "‹ All devices" } }
            h1 { bdi { (called) } }
            div data-part={ "/devices/" (row.record.id) "/about" } { (devices::about(row, now_ms)) }
            div.actions data-operator hidden { (deed(&revoke, "danger")) }
            p #acted role="status" {}
        }
        section #leases.card aria-labelledby="leases-title" {
            h2 #leases-title { "Leases that ended" }
            (devices::leases(row, leases))
        }
    };
    let foot = html! { p { (count(feed.devices.counts().iter().sum(), "device")) " in this run." } };
    frame(&format!("{called} · {} · Nightjar", feed.spec.name), &feed.spec.name, "quiet", main, foot)
}

/// What is said where nothing is.
pub fn nothing(feed: &Feed, words: &str) -> Markup {
    let main =
        html! { section.card.lone { h1 { "Nothing is here" } p { (words) } p { a href="/" { "The run’s page" } } } };
    frame("Nightjar", &feed.spec.name, "quiet", main, html! {})
}
