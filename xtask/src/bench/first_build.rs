//! `cargo xtask bench build`: what a newcomer waits for. The last commit is cloned and built from nothing, in a folder
//! of its own; packages that cargo has downloaded already are not downloaded again.

use super::processor;
use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Around the table in docs/development.md.
const BEGIN: &str = "<!-- written by `cargo xtask bench build --docs` -->";
const END: &str = "<!-- end -->";

/// Something that a developer types, and what it is called in the table.
struct Stage {
    words: &'static [&'static str],
    /// What changes before it; empty: nothing.
    touches: &'static str,
    says: &'static str,
}

const STAGES: [Stage; 7] = [
    Stage { words: &["build", "--package", "xtask"], touches: "", says: "`cargo xtask` itself" },
    Stage { words: &["build", "--workspace", "--timings"], touches: "", says: "then what `cargo xtask demo` builds" },
    Stage {
        words: &["build", "--workspace", "--bins", "--tests", "--timings"],
        touches: "",
        says: "then the rest that `cargo xtask test` builds",
    },
    Stage { words: &["nextest", "run", "--workspace", "--no-fail-fast"], touches: "", says: "then its tests" },
    Stage {
        words: &["clippy", "--workspace", "--all-targets"],
        touches: "",
        says: "`cargo clippy --workspace --all-targets`, cold",
    },
    Stage {
        words: &["build", "--workspace"],
        touches: "coordinator/src/lib.rs",
        says: "`cargo build --workspace` after a change in `coordinator`",
    },
    Stage {
        words: &["build", "--workspace"],
        touches: "shared/src/lib.rs",
        says: "the same after a change in `shared`, on which all rests",
    },
];

/// What a stage took.
struct Took {
    says: &'static str,
    wall: Duration,
    cpu: Duration,
}

/// Measures, prints the table and, where asked to, puts it into docs/development.md. `folder` must not be there yet; it
/// is removed in the end unless it is to be kept.
pub fn measure(folder: &Path, tests: bool, keep: bool, docs: bool, children: &Children) -> Result<()> {
    ensure!(!folder.exists(), "{} is there already; name a folder that is not: --folder DIR", folder.display());
    let (sources, target) = (folder.join("nightjar"), folder.join("target"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut clone = Command::new("git");
    if !children.run("git", clone.args(["clone", "--quiet"]).arg(root()?).arg(&sources))?.success() {
        bail!("the repository could not be cloned; see above");
    }
    // Tests read what lies beside a checkout.
    if let Some(beside) = root()?.parent().map(|parent| parent.join("shared")).filter(|data| data.exists()) {
        let _ = std::os::unix::fs::symlink(beside, folder.join("shared"));
    }
    let mut table = Vec::new();
    for stage in STAGES.iter().filter(|stage| tests || stage.words[0] != "nextest") {
        if !stage.touches.is_empty() {
            fs::File::options()
                .append(true)
                .open(sources.join(stage.touches))?
                .set_modified(std::time::SystemTime::now())?;
        }
        let mut command = cargo();
        command.args(stage.words).current_dir(&sources).env("CARGO_TARGET_DIR", &target);
        println!("\n== cargo {}", stage.words.join(" "));
        let (since, before) = (Instant::now(), children_cpu());
        let ended = children.run("cargo", &mut command)?;
        // A failed test takes nothing from the figure of all.
        ensure!(ended.success() || stage.words[0] == "nextest", "cargo {} failed; see above", stage.words.join(" "));
        table.push(Took { says: stage.says, wall: since.elapsed(), cpu: children_cpu().saturating_sub(before) });
        println!("\n{}", rows(&table));
    }
    if docs {
        keep_in(&root()?.join("docs").join("development.md"), &table)?;
    }
    if keep {
        println!("where the time went, crate by crate: {}", target.join("cargo-timings").display());
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Where to measure unless told otherwise.
pub fn usual_folder() -> PathBuf {
    std::env::temp_dir().join(format!("nightjar-first-build-{}", std::process::id()))
}

/// Processor time of all children that have ended, theirs included; zero where the system does not tell.
fn children_cpu() -> Duration {
    const CHILDREN_USER: usize = 13;
    // What Linux tells programs in, on every processor.
    const TICKS_PER_S: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields behind the program's name, which may hold spaces: state is the first.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = fields.iter().skip(CHILDREN_USER).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS_PER_S)
}

/// A duration as people read it.
fn words(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

fn rows(table: &[Took]) -> String {
    let mut text = String::from("| what | wall | CPU |\n|---|---|---|\n");
    for took in table {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {} | {} |", took.says, words(took.wall), words(took.cpu));
    }
    text
}

/// Puts the table in the place of the one before.
fn keep_in(page: &Path, table: &[Took]) -> Result<()> {
    let text = fs::read_to_string(page)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let measured = format!("On {cores} cores ({}):\n\n{}", processor(), rows(table));
    fs::write(page, replaced(&text, &measured).with_context(|| format!("{} has no place for it", page.display()))?)?;
    Ok(())
}

fn replaced(text: &str, measured: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{measured}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let table = [Took { says: "all", wall: Duration::from_secs(61), cpu: Duration::from_secs(59) }];
        let new = replaced(&page, &rows(&table)).unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("\nafter\n") && !new.contains("old"), "{new}");
        assert!(new.contains("| all | 1 min 1 s | 59 s |"), "{new}");
        assert_eq!(replaced(&new, &rows(&table)).as_deref(), Some(new.as_str()), "again, it is the same");
        assert!(replaced("no place", "x").is_none());
    }

    #[test]
    fn the_table_has_its_place_in_the_guide() {
        let page = fs::read_to_string(root().unwrap().join("docs").join("development.md")).unwrap();
        assert!(replaced(&page, "").is_some());
    }

    #[test]
    fn children_that_computed_are_counted() {
        let before = children_cpu();
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", busy]).status().unwrap().success());
        assert!(children_cpu() > before);
    }
}
