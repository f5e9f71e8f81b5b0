//! The comparison as one page: it asks for nothing from outside.

use super::Comparison;
use maud::{Markup, PreEscaped, html};
use nightjar_coordinator::chart::{self, Curve};

/// How such a page begins, by which it is known.
pub const BEGIN: &str = "<!DOCTYPE html><!-- Nightjar: a comparison of runs -->";

/// The page.
pub fn page(comparison: &Comparison) -> String {
    let [one, other] = &comparison.sides;
    let title = format!("{} and {}", one.name, other.name);
    let by = |across: fn(&super::Side, usize) -> f64| -> Vec<Curve<'_>> {
        let sides = comparison.sides.iter();
        let points =
            |side: &super::Side| (0..side.losses.len()).map(|at| (across(side, at), side.losses[at].loss)).collect();
        sides.map(|side| Curve { name: &side.name, points: points(side) }).collect()
    };
    let tokens = by(|side, at| side.losses[at].tokens as f64);
    let hours = by(|side, at| {
        let begun = side.marks.first().map_or(0, |mark| mark.at.unix_ms);
        side.losses[at].wall.unix_ms.saturating_sub(begun) as f64 / 3.6e6
    });
    let body = html! {
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(include_str!("../../dataset/report.css"))) }
            }
            body {
                header { h1 { (title) } }
                section { h2 { "Held-out loss over tokens" } (chart::draw("tokens merged", "nats a byte", &tokens)) }
                section { h2 { "Held-out loss over time" } (chart::draw("hours since the first version", "nats a byte", &hours)) }
                section { h2 { "Figures" } (table(comparison, comparison.rows.iter().map(|(what, cells)| (*what, cells)))) }
                section {
                    h2 { "Settings that differ" }
                    @if comparison.settings.is_empty() { p { "There are none." } }
                    @else { (table(comparison, comparison.settings.iter().map(|(key, cells)| (key.as_str(), cells)))) }
                }
            }
        }
    };
    format!("{BEGIN}{}", body.into_string())
}

fn table<'a>(comparison: &Comparison, rows: impl Iterator<Item = (&'a str, &'a [String; 2])>) -> Markup {
    html! {
        table {
            tr { th {} @for side in &comparison.sides { th { (side.name) } } }
            @for (what, cells) in rows {
                tr { td { (what) } @for cell in cells { td { (cell) } } }
            }
        }
    }
}
