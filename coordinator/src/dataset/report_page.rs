//! The report as one page: it asks for nothing from outside, so that it can be sent and kept.

use super::report::{Domain, LENGTHS, Report, grouped};
use indicatif::HumanBytes;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use nightjar_shared::shard::Manifest;

/// The picture of lengths, in its own units.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 160;
/// Bars that there is room for at least.
const BARS_MIN: u64 = 8;
/// Below the bars: what they are of.
const FOOT: u64 = 22;
/// Above them: how many.
const HEAD: u64 = 18;

/// The page of a dataset.
pub fn page(report: &Report, manifest: &Manifest) -> String {
    let (tokens, heldout) = (report.sum(|d| d.tokens), report.sum(|d| d.heldout_tokens));
    let (documents, copies) = (report.sum(|d| d.documents), report.sum(|d| d.duplicates));
    let text_bytes = report.sum(|d| d.text_bytes);
    let figures = [
        ("tokens to train on", grouped(tokens)),
        ("tokens held out", grouped(heldout)),
        ("documents", grouped(documents)),
        ("copies left out", grouped(copies)),
        ("bytes of text a token", format!("{:.2}", text_bytes as f64 / (tokens + heldout).max(1) as f64)),
        ("shards", grouped((manifest.train.len() + manifest.heldout.len()) as u64)),
    ];
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "What the dataset holds" }
                style { (PreEscaped(include_str!("report.css"))) }
            }
            body {
                header {
                    h1 { "What the dataset holds" }
                    p {
                        (HumanBytes(text_bytes)) " of text in samples of " (manifest.context) " tokens, of a vocabulary of "
                        (grouped(u64::from(manifest.vocab_size)))
                    }
                    dl { @for (name, figure) in &figures { div { dt { (name) } dd { (figure) } } } }
                }
                section {
                    h2 { "Domains" }
                    p { "A domain is a folder of the input, or files with one name. Violet is held out." }
                    (domains(&report.domains))
                }
                section {
                    h2 { "How long documents are" }
                    p { "Documents by their number of tokens; each bar is of documents twice as long as the one before." }
                    (lengths(&report.lengths()))
                }
                @if !report.heldout_sets.is_empty() {
                    section {
                        h2 { "Held out" }
                        (sets(report, manifest))
                    }
                }
                section {
                    h2 { "What was read, left out or changed" }
                    ul { @for note in &report.notes { li { (note) } } }
                }
            }
        }
    };
    page.into_string()
}

fn domains(domains: &[Domain]) -> Markup {
    let all = |domain: &Domain| domain.tokens + domain.heldout_tokens;
    let largest = domains.iter().map(all).max().unwrap_or(0).max(1);
    let wide = |tokens: u64| format!("{:.2}", 100.0 * tokens as f64 / largest as f64);
    html! {
        table {
            tr { th { "domain" } th { "documents" } th { "copies" } th { "text" } th { "tokens" } th {} }
            @for domain in domains {
                tr {
                    td { (domain.name) }
                    td { (grouped(domain.documents)) }
                    td { (grouped(domain.duplicates)) }
                    td { (HumanBytes(domain.text_bytes)) }
                    td { (grouped(all(domain))) }
                    td.share {
                        svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img"
                            aria-label=(format!("{} to train on, {} held out", domain.tokens, domain.heldout_tokens)) {
                            rect.train width=(wide(domain.tokens)) height="8" {}
                            rect.held x=(wide(domain.tokens)) width=(wide(domain.heldout_tokens)) height="8" {}
                        }
                    }
                }
            }
        }
    }
}

fn lengths(counts: &[u64; LENGTHS]) -> Markup {
    let (Some(first), Some(last)) = (counts.iter().position(|n| *n > 0), counts.iter().rposition(|n| *n > 0)) else {
        return html! { p { "There are none." } };
    };
    let (bars, most) = ((last - first + 1) as u64, counts.iter().copied().max().unwrap_or(1));
    let step = WIDTH as f64 / bars.max(BARS_MIN) as f64;
    let tall = |count: u64| (HEIGHT as f64 * count as f64 / most as f64).max(if count > 0 { 1.0 } else { 0.0 });
    let place = |number: f64| format!("{number:.1}");
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", HEAD + HEIGHT + FOOT)) role="img" aria-label="Documents by length" {
            @for (bar, count) in (0..).zip(&counts[first..=last]) {
                @let left = step * f64::from(bar);
                rect.train x=(place(left + step * 0.1)) y=(place((HEAD + HEIGHT) as f64 - tall(*count)))
                    width=(place(step * 0.8)) height=(place(tall(*count))) {
                    title { (grouped(*count)) " documents of " (grouped(1 << (first + bar as usize))) " tokens and more" }
                }
                text x=(place(left + step / 2.0)) y=(place((HEAD + HEIGHT) as f64 - tall(*count) - 5.0)) { (grouped(*count)) }
                text x=(place(left + step / 2.0)) y=(HEAD + HEIGHT + 16) { (short(1 << (first + bar as usize))) }
            }
        }
    }
}

/// A power of two, as people write it.
fn short(tokens: u64) -> String {
    match tokens {
        1_048_576.. => format!("{}M", tokens >> 20),
        1024.. => format!("{}k", tokens >> 10),
        _ => tokens.to_string(),
    }
}

fn sets(report: &Report, manifest: &Manifest) -> Markup {
    let mut shards = manifest.heldout.iter();
    html! {
        table {
            tr { th { "set" } th { "samples" } th { "text" } }
            @for set in &report.heldout_sets {
                @let own: Vec<_> = shards.by_ref().take(set.shards).collect();
                tr {
                    td { (set.name) }
                    td { (grouped(own.iter().map(|shard| u64::from(shard.samples)).sum())) }
                    td { (HumanBytes(own.iter().map(|shard| shard.text_bytes).sum())) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_is_there_and_asks_for_nothing() {
        let mut report = Report::default();
        let books = report.domain("<books> & more");
        report.domains[books].duplicates = 3;
        report.count(books, 1500, false, true);
        report.count(books, 90, true, true);
        report.notes = vec!["left out: 3 <copies>".to_owned()];
        let manifest = crate::dataset::Dataset::open(made().path()).unwrap().manifest().clone();
        let page = page(&report, &manifest);
        for shown in
            ["&lt;books&gt; &amp; more", "left out: 3 &lt;copies&gt;", ">1 500<", ">1k<", ">64<", "Documents by length"]
        {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        assert!(
            !["http", "<script", "<img", "<link", "@import", "url("].iter().any(|from| page.contains(from)),
            "{page}"
        );
    }

    fn made() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let shard = |name: u8| serde_json::json!({"hash": format!("{:02x}", name).repeat(32), "bytes": 9, "samples": 1, "text_bytes": 9});
        let manifest = serde_json::json!({"format": 1, "context": 8, "vocab_size": 256, "tokenizer": null,
            "train": [shard(1)], "heldout": [shard(2)]});
        std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).unwrap();
        folder
    }
}
