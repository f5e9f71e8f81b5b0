//! The repository's own rules, checked by reading it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Longest source file, in lines: beyond it, a file holds more than one idea.
const LINES_MAX: usize = 540;

/// Words that are never committed. Spelt in halves, so that this file may hold them.
const FORBIDDEN: [&str; 8] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("allow(dead", "_code)"),
    concat!("/ro", "ot/"),
    concat!("@", "@"),
];

/// What decides is pure: no clock, file or task inside (ARCHITECTURE.md).
const PURE: [&str; 3] = ["coordinator/src/engine", "client/session/src/session", "client/session/src/policy"];
const IMPURE: [&str; 5] = ["async ", "Instant::now", "SystemTime::now", "std::fs", "tokio::"];

/// A crate's layers of modules, from the ground up: each imports only those before it. So the coordinator's engine, which
/// decides, knows neither the ledger nor whoever serves it, and a codec knows nothing of the runs that choose it.
const LAYERS: [(&str, &[&str]); 5] = [
    ("shared/src/", &["range", "model_spec", "fragment", "delta", "version", "wire", "run_spec"]),
    (
        "coordinator/src/",
        &[
            "chart",
            "engine",
            "run_file",
            "dataset",
            "baseline",
            "export",
            "identity",
            "certificate",
            "store",
            "replay",
            "server",
            "backup",
        ],
    ),
    ("client/session/src/", &["preferences", "disk_words", "lease", "journal", "session", "policy"]),
    ("shaders/src/", &["cpu", "runtime", "kernel", "choice", "op", "table", "tuning"]),
    (
        "sim/src/",
        &["draws", "population", "dataset", "setup", "storage", "coordinator", "device", "check", "world", "run"],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}

/// The repository's text files, as paths from its root.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    const SKIPPED: [&str; 4] = [".git", "target", "demo-out", "Cargo.lock"];
    const TEXT: [&str; 8] = ["rs", "wgsl", "toml", "md", "proto", "sql", "html", "sh"];
    for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| TEXT.contains(&e.to_string_lossy().as_ref())) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(root(), &mut found);
    assert!(found.len() > 30, "the repository's files were not found");
    let relative = |path: &Path| path.strip_prefix(root()).unwrap_or(path).display().to_string();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).expect("text"))).collect()
}

fn is_rust(name: &str) -> bool {
    name.ends_with(".rs")
}

/// Asserts that no rule was broken, naming every place at once.
fn all_hold(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let silent = sources().into_iter().filter(|(name, text)| is_rust(name) && !text.starts_with("//! "));
    all_hold(
        silent.map(|(name, _)| format!("{name}: the first line must be `//!` and what the file is for")).collect(),
    );
}

#[test]
fn no_source_file_is_too_long() {
    let long = sources().into_iter().filter(|(name, text)| is_rust(name) && text.lines().count() > LINES_MAX);
    all_hold(long.map(|(name, text)| format!("{name}: {} lines; split it", text.lines().count())).collect());
}

#[test]
fn nothing_unfinished_is_committed() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            let word = FORBIDDEN.iter().find(|word| line.contains(**word));
            broken.extend(word.map(|word| format!("{name}:{number}: {word}")));
        }
    }
    all_hold(broken);
}

#[test]
fn what_decides_is_pure() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        if !PURE.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let word = IMPURE.iter().find(|word| line.contains(**word));
            broken.extend(word.map(|word| format!("{name}:{number}: {word}")));
        }
    }
    all_hold(broken);
}

/// The modules of its crate that a file names: after each `crate::` one, or a list.
fn named_modules(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        let mut depth = 0;
        let mut flat = String::new();
        for letter in after.chars() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                letter if depth <= 1 => flat.push(letter),
                _ => {}
            }
            if depth <= 0 && !(letter.is_alphanumeric() || letter == '_') {
                break;
            }
        }
        let modules =
            flat.split(',').filter_map(|path| path.trim().split(|c: char| !(c.is_alphanumeric() || c == '_')).next());
        named.extend(modules.filter(|module| !module.is_empty()).map(str::to_owned));
    }
    named
}

#[test]
fn layers_form_no_circle() {
    let mut broken = Vec::new();
    let sources = sources();
    for (folder, layers) in LAYERS {
        let mut seen = 0;
        for (name, text) in &sources {
            let Some(path) = name.strip_prefix(folder) else { continue };
            // A test may hold a module against those that rest on it.
            if path.ends_with("tests.rs") || path.contains("/tests/") {
                continue;
            }
            let module = path.split(['/', '.']).next().unwrap_or_default();
            let Some(height) = layers.iter().position(|known| *known == module) else { continue };
            let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let named = named_modules(&code);
            seen += layers[..height].iter().filter(|below| named.contains(**below)).count();
            let above = layers[height + 1..].iter().filter(|above| named.contains(**above));
            broken.extend(above.map(|above| format!("{name}: {module} imports {above}")));
        }
        assert!(seen > 9, "the imports of {folder} were not found");
    }
    all_hold(broken);
}

#[test]
fn an_import_is_seen_however_it_is_written() {
    let text = "use crate::{\n    engine::{Engine, event},\n    store::Blobs,\n};\nuse crate::world;\n";
    let text = format!("{text}fn f() -> crate::replay::Report {{}}");
    assert_eq!(named_modules(&text), ["engine", "replay", "store", "world"].map(str::to_owned).into());
    assert_eq!(
        named_modules("nightjar_shared::ids::LeaseId; use crate::{a, b::c};"),
        ["a", "b"].map(str::to_owned).into()
    );
}
