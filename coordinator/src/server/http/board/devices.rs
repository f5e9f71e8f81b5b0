//! Devices: the table, sorted, filtered and paged by plain links, and a page for each.

use crate::{
    engine::record::LeaseOutcome,
    server::{
        feed::{DevicePage, DeviceRow, PAGE_MAX, Sort, State, Wanted, role},
        words::{ago, count, si, stamp},
    },
    store::LeaseOfDevice,
};
use maud::{Markup, html};
use nightjar_shared::ids::LeaseId;
use serde::Deserialize;

/// Devices on a page of the dashboard.
const ROWS: usize = 50;
/// Leases on a page of a device.
pub const LEASES: usize = 50;
/// Longest text that is looked for; names are no longer.
const SEARCH_MAX: usize = 64;

/// A question for devices, as an address asks it. What it does not know, it leaves at what is usual.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    sort: String,
    dir: String,
    state: String,
    search: String,
    offset: String,
    limit: String,
}

impl Asked {
    /// What it asks for.
    pub fn wanted(&self) -> Wanted {
        let sort = Sort::ALL.into_iter().find(|(_, word)| *word == self.sort).map(|(sort, _)| sort).unwrap_or_default();
        Wanted {
            sort,
            ascending: self.dir == "up",
            state: State::ALL.into_iter().find(|state| state.name() == self.state),
            search: self.search.chars().take(SEARCH_MAX).collect::<String>().trim().to_lowercase(),
            offset: self.offset.parse().unwrap_or(0),
            limit: self.limit.parse().unwrap_or(ROWS).clamp(1, PAGE_MAX),
        }
    }
}

/// Text that goes into an address.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The address of a list, below a path.
pub fn address(path: &str, wanted: &Wanted) -> String {
    let sort = Sort::ALL.into_iter().find(|(sort, _)| *sort == wanted.sort).map_or("tokens", |(_, word)| word);
    let dir = if wanted.ascending { "up" } else { "down" };
    let state = wanted.state.map_or("", State::name);
    let search = encoded(&wanted.search);
    format!("{path}?sort={sort}&dir={dir}&state={state}&search={search}&offset={}", wanted.offset)
}

/// What a device is called on a page: names are its owner's, and may be missing.
pub fn called(row: &DeviceRow) -> String {
    match row.record.name.trim() {
        "" => row.record.id.to_string()[..8].to_owned(),
        name => name.to_owned(),
    }
}

/// The form that filters.
pub fn filter(wanted: &Wanted) -> Markup {
    let sort = Sort::ALL.into_iter().find(|(sort, _)| *sort == wanted.sort).map_or("tokens", |(_, word)| word);
    html! {
        form.filter method="get" action="/" data-auto {
            input type="hidden" name="sort" value=(sort);
            input type="hidden" name="dir" value=(if wanted.ascending { "up" } else { "down" });
            label for="state-choice" { "State" }
            select #state-choice name="state" {
                option value="" { "all" }
                @for state in State::ALL { option value=(state.name()) selected[wanted.state == Some(state)] { (state.name()) } }
            }
            label for="search" { "Name or id" }
            input #search type="search" name="search" maxlength=(SEARCH_MAX) value=(wanted.search) autocomplete="off";
            button type="submit" { "Find" }
        }
    }
}

/// A page of devices.
pub fn table(wanted: &Wanted, page: &DevicePage, newest: Option<u64>) -> Markup {
    let columns = [
        (Sort::Name, "Device", ""),
        (Sort::State, "State", ""),
        (Sort::Speed, "Tokens/s", "number"),
        (Sort::Version, "Version", "number"),
        (Sort::Staleness, "Staleness", "number"),
        (Sort::Leases, "Leases", "number"),
        (Sort::Tokens, "Tokens", "number"),
    ];
    let or_dash = |number: Option<u64>| number.map_or("–".into(), |n| n.to_string());
    let by = |sort: Sort| {
        // A second time turns the order round; names begin with A.
        let ascending = if wanted.sort == sort { !wanted.ascending } else { sort == Sort::Name };
        address("/", &Wanted { sort, ascending, offset: 0, ..wanted.clone() }) + "#devices"
    };
    let last = wanted.offset + page.rows.len();
    html! {
        @if page.rows.is_empty() {
            p.none { @if page.matching == 0 { "No device matches." } @else { "So far into the list no page begins: look for a name, or choose a state." } }
        } @else {
            div.scroll tabindex="0" role="group" aria-label="Devices" {
                table {
                    thead { tr {
                        @for (sort, title, class) in columns {
                            th.(class) scope="col" aria-sort=[(wanted.sort == sort).then_some(if wanted.ascending { "ascending" } else { "descending" })] {
                                a href=(by(sort)) { (title) @if wanted.sort == sort { span aria-hidden="true" { (if wanted.ascending { " ↑" } else { " ↓" }) } } }
                            }
                        }
                    } }
                    tbody { @for row in &page.rows {
                        @let state = row.state().map_or("left", State::name);
                        tr {
                            th scope="row" { a href={ "/devices/" (row.record.id) } { bdi { (called(row)) } } @if role(row.record.role) == "anchor" { " " small.chip { "anchor" } } }
                            td { i class={ "dot of-" (state) } aria-hidden="true" {} (state) @if row.lease.is_some() && !row.online { small { " away" } } }
                            td.number { (si(row.record.tokens_per_s)) }
                            td.number { (or_dash(row.version)) @if let (Some(of), Some(newest)) = (row.version, newest) { @if of < newest && row.lease.is_some() { small { " −" (newest - of) } } } }
                            td.number { (or_dash(row.staleness)) }
                            td.number { (row.merged) }
                            td.number { (si(row.tokens as f64)) }
                        }
                    } }
                }
            }
        }
        p.under { (count(page.matching, "device")) @if page.matching > page.rows.len() && !page.rows.is_empty() { ", " (wanted.offset + 1) " to " (last) " shown" } }
        nav.pages aria-label="Pages of devices" {
            @if wanted.offset > 0 { a href=(address("/", &Wanted { offset: wanted.offset.saturating_sub(wanted.limit), ..wanted.clone() }) + "#devices") { "‹ Before" } }
            @if last < page.matching && !page.rows.is_empty() { a href=(address("/", &Wanted { offset: last, ..wanted.clone() }) + "#devices") { "Next ›" } }
        }
    }
}

/// What is known of one device.
pub fn about(row: &DeviceRow, now_ms: u64) -> Markup {
    let [screened, returned, expired] = row.unmerged;
    let state = row.state().map_or("left", State::name);
    let fact = |name: &str, value: Markup| html! { dt { (name) } dd { (value) } };
    html! {
        dl.facts {
            (fact("State", html! { i class={ "dot of-" (state) } aria-hidden="true" {} (state) ", " (if row.online { "connected" } else { "not connected" }) }))
            (fact("Role", html! { (role(row.record.role)) }))
            (fact("Trains on", html! { bdi { (if row.record.device.is_empty() { "not told" } else { &row.record.device }) } }))
            (fact("Public name", html! { @match &row.record.public_name {
                Some(name) => { bdi { (name) } @if row.record.name_hidden { " " small.chip { "hidden" } } }
                None => { "not wanted" }
            } }))
            (fact("Speed", html! { (si(row.record.tokens_per_s)) " tokens a second" }))
            (fact("Merged", html! { (si(row.tokens as f64)) " tokens in " (count(row.merged as usize, "lease")) }))
            (fact("Since this start", html! { (screened) " screened out, " (returned) " returned, " (expired) " expired" }))
            (fact("Works on", html! { @match (&row.lease, row.version) {
                (Some(lease), _) => { "lease " (lease.id) ", " (lease.steps) " steps from version " (lease.base_version) ", since " (ago(lease.issued_at.unix_ms, now_ms)) }
                (None, Some(version)) => { "nothing; its last lease began at version " (version) }
                (None, None) => { "nothing" }
            } }))
            (fact("Enrolled", html! { (stamp(row.record.enrolled_at)) }))
            (fact("Last heard of", html! { @if let Some(heard) = row.heard { (ago(heard.unix_ms, now_ms)) } @else { "before this start" } }))
            (fact("Id", html! { code { (row.record.id) } }))
        }
    }
}

/// A page of a device's leases that have ended, the newest first.
pub fn leases(row: &DeviceRow, leases: &[LeaseOfDevice]) -> Markup {
    let outcome = |lease: &LeaseOfDevice| {
        lease.closed.map_or("open".to_owned(), |closed| match closed.outcome {
            LeaseOutcome::ScreenedOut => "screened out".into(),
            outcome => outcome.name().into(),
        })
    };
    let older = leases.last().filter(|_| leases.len() == LEASES).map(|lease| lease.lease.id);
    html! {
        @if leases.is_empty() { p.none { "None yet." } } @else {
            div.scroll tabindex="0" role="group" aria-label="Leases" { table {
                thead { tr {
                    th scope="col" { "Lease" } th scope="col" { "Issued" } th scope="col" { "Outcome" } th.number scope="col" { "From version" } th.number scope="col" { "Steps" }
                    th.number scope="col" { "Tokens" } th.number scope="col" { "Staleness" } th.number scope="col" { "Loss" }
                } }
                tbody { @for lease in leases { tr {
                    th scope="row" { (lease.lease.id) }
                    td { (stamp(lease.lease.issued_at)) }
                    td { (outcome(lease)) }
                    td.number { (lease.lease.base_version) }
                    td.number { (lease.lease.steps) }
                    @if let Some(delta) = &lease.delta {
                        td.number { (si(delta.tokens as f64)) } td.number { (delta.staleness) } td.number { (format!("{:.3} → {:.3}", delta.loss_first, delta.loss_last)) }
                    } @else { td.number { "–" } td.number { "–" } td.number { "–" } }
                } } }
            } }
        }
        @if let Some(LeaseId(before)) = older { nav.pages aria-label="Pages of leases" { a href={ "/devices/" (row.record.id) "?before=" (before) "#leases" } { "Older ›" } } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_asks_for_what_it_was_made_of_and_nonsense_for_what_is_usual() {
        let wanted = Wanted {
            sort: Sort::Speed,
            ascending: true,
            state: Some(State::Away),
            search: "a&b=\"<ü".into(),
            offset: 100,
            limit: ROWS,
        };
        let address = address("/", &wanted);
        let query = address.strip_prefix("/?").unwrap();
        assert!(query.is_ascii() && !query.contains(['"', '<', ' ']), "{query}");
        let uri = format!("http://x/?{query}").parse().unwrap();
        let axum::extract::Query(asked) = axum::extract::Query::<Asked>::try_from_uri(&uri).unwrap();
        assert_eq!(asked.wanted(), wanted);
        let odd = Asked { sort: "?".into(), offset: "-1".into(), limit: "1e9".into(), ..Asked::default() };
        assert_eq!(odd.wanted(), Wanted { limit: ROWS, ..Wanted::default() });
    }
}
