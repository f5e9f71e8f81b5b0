//! `compare`: two runs side by side, from their ledgers: where their settings differ, their curves, and what each took to
//! come to the same loss.

mod page;
mod side;

use super::{Failure, say, table};
use clap::Args;
use nightjar_coordinator::server::words::{bytes, si, span};
use nightjar_shared::run_spec::{RunSpec, keys};
use serde_json::Value;
use side::{Place, Side};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Compare two runs
///
/// Shows the settings in which two runs differ, their held-out loss, and the tokens, bytes and hours that each took to come
/// to the same loss. A run is named by the folder that `new` made, or by its state folder. Neither is changed, and both may
/// be served meanwhile.
#[derive(Args)]
#[command(after_help = "Examples:
  nightjar-coordinator compare myrun another
  nightjar-coordinator compare myrun/state other/state --html compare.html")]
pub struct Compare {
    /// One run's folder
    #[arg(value_name = "RUN")]
    one: PathBuf,
    /// The other's
    #[arg(value_name = "RUN")]
    other: PathBuf,
    /// Write it as a page, too, with the curves
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A run's figures as rows have them.
type Row = (&'static str, [String; 2]);

/// Two runs, and what they have in common.
struct Comparison {
    sides: [Side; 2],
    /// Section and key, and what each run has there.
    settings: Vec<(String, [String; 2])>,
    rows: Vec<Row>,
}

impl Compare {
    pub async fn run(self) -> Result<(), Failure> {
        let sides = [Side::read(&self.one).await?, Side::read(&self.other).await?];
        let comparison = Comparison::of(sides);
        comparison.print();
        if let Some(file) = &self.html {
            write_page(file, &comparison)?;
            say(&format!("\nwritten to {}", file.display()));
        }
        Ok(())
    }
}

/// A page of an earlier comparison is replaced; another file is left alone.
fn write_page(file: &Path, comparison: &Comparison) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::midway(format!("{}: {error}", file.display()));
    match fs::read(file) {
        Ok(there) if there.starts_with(page::BEGIN.as_bytes()) => {}
        Ok(_) => {
            let why = format!("{} is no page of a comparison: move it away, or name another file", file.display());
            return Err(Failure::input(why));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    fs::write(file, page::page(comparison)).map_err(failed)
}

impl Comparison {
    fn of(sides: [Side; 2]) -> Self {
        let settings = differences(&sides[0].spec, &sides[1].spec);
        let rows = rows(&sides);
        Comparison { sides, settings, rows }
    }

    fn print(&self) {
        let names = self.sides.each_ref().map(|side| side.name.as_str());
        let line = |what: &str, cells: &[String; 2]| vec![what.to_owned(), cells[0].clone(), cells[1].clone()];
        match self.settings.is_empty() {
            true => say("the settings of both are the same\n"),
            false => {
                let rows: Vec<_> = self.settings.iter().map(|(key, cells)| line(key, cells)).collect();
                table::print(&["setting", names[0], names[1]], &rows);
                say("");
            }
        }
        let rows: Vec<_> = self.rows.iter().map(|(what, cells)| line(what, cells)).collect();
        table::print(&["", names[0], names[1]], &rows);
    }
}

/// Keys in which two specs differ, but for those that only people read.
fn differences(one: &RunSpec, other: &RunSpec) -> Vec<(String, [String; 2])> {
    let values = [keys::values(one), keys::values(other)];
    let all: BTreeSet<&String> = values.iter().flat_map(|values| values.keys()).collect();
    let is_for_people = |key: &str| {
        ["name", "description"].contains(&key) || ["operator.", "track.", "keep."].iter().any(|of| key.starts_with(of))
    };
    let said =
        |value: Option<&Value>| value.map_or("-".to_owned(), |v| v.as_str().map_or(v.to_string(), str::to_owned));
    let differing = all.into_iter().filter(|key| !is_for_people(key) && values[0].get(*key) != values[1].get(*key));
    differing.map(|key| (key.clone(), [said(values[0].get(key)), said(values[1].get(key))])).collect()
}

fn rows(sides: &[Side; 2]) -> Vec<Row> {
    let each = |of: &dyn Fn(&Side) -> String| sides.each_ref().map(of);
    let unknown = || "-".to_owned();
    let mut rows: Vec<Row> = vec![
        ("parameters", each(&|side| si(side.spec.model.parameters() as f64))),
        ("versions", each(&|side| side.marks.len().to_string())),
        ("tokens merged", each(&|side| si(side.tokens() as f64))),
        ("deltas, bytes", each(&|side| bytes(side.delta_bytes()))),
        (
            "in all, up and down",
            each(&|side| format!("{}, {}", bytes(side.counters.bytes_up), bytes(side.counters.bytes_down))),
        ),
        (
            "held-out loss, first",
            each(&|side| side.losses.first().map_or_else(unknown, |loss| format!("{:.4}", loss.loss))),
        ),
        (
            "held-out loss, last",
            each(&|side| side.losses.last().map_or_else(unknown, |loss| format!("{:.4}", loss.loss))),
        ),
        ("held-out loss, least", each(&|side| side.least().map_or_else(unknown, |loss| format!("{loss:.4}")))),
    ];
    // The least loss that both came to.
    if let [Some(one), Some(other)] = sides.each_ref().map(Side::least) {
        let both = one.max(other);
        let places = sides.each_ref().map(|side| side.place_of(both));
        let of =
            |told: &dyn Fn(&Place) -> String| places.each_ref().map(|place| place.as_ref().map_or_else(unknown, told));
        rows.push(("to come to the loss", [format!("{both:.4}"), format!("{both:.4}")]));
        rows.push(("  tokens", of(&|place| si(place.tokens))));
        rows.push(("  deltas, bytes", of(&|place| bytes(place.delta_bytes as u64))));
        rows.push(("  time", of(&|place| span(place.seconds))));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_train_are_compared() {
        let (one, mut other) = (RunSpec::new("a", 1000), RunSpec::new("b", 1000));
        assert_eq!(differences(&one, &other), []);
        other.description = "other".into();
        other.track.csv = Some("x".into());
        other.seed = 7;
        other.merge.quorum = Some(3);
        let cells = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
        let found = differences(&one, &other);
        assert_eq!(found, [("merge.quorum".to_owned(), cells("-", "3")), ("seed".to_owned(), cells("1", "7"))]);
    }

    #[test]
    fn a_page_replaces_a_page_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let comparison = Comparison::of([side::tests::side("a", 1.0), side::tests::side("b <i>", 2.0)]);
        let (page, thesis) = (folder.path().join("page.html"), folder.path().join("thesis.html"));
        write_page(&page, &comparison).unwrap();
        write_page(&page, &comparison).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("b &lt;i&gt;") && text.contains("<polyline") && !text.contains("<script"), "{text}");
        fs::write(&thesis, "dear").unwrap();
        let Err(Failure::Input(why)) = write_page(&thesis, &comparison) else { panic!("it was overwritten") };
        assert!(why.contains("no page of a comparison"), "{why}");
        assert_eq!(fs::read_to_string(&thesis).unwrap(), "dear");
    }
}
