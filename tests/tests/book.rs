//! The documents hang together: every link leads somewhere, and the book has every page.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}

/// All documents below a folder, as paths from the root.
fn documents(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).expect("a folder of the repository").flatten() {
        let path = folder.join(entry.file_name());
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            if !name.starts_with('.') && name != "target" && name != "demo-out" {
                documents(&path, found);
            }
        } else if name.ends_with(".md") {
            found.insert(path);
        }
    }
}

fn all() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    documents(Path::new(""), &mut found);
    assert!(found.len() > 20, "the documents were not found");
    found
}

fn text(document: &Path) -> String {
    fs::read_to_string(root().join(document)).expect("a document")
}

/// A document's lines without those of code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of a line's links, `[words](target)`, and of what it defines, `[words]: target`. Code is no link.
fn links(line: &str) -> Vec<String> {
    let outside_code: String = line.split('`').step_by(2).collect();
    let mut found: Vec<String> =
        outside_code.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect();
    if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
        found.push(target.trim().to_owned());
    }
    found
}

/// The name by which a link finds a heading: as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| line.strip_prefix('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#'))).collect()
}

/// A path without its detours; `None` where it leads out of the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => plain.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// What is wrong with a link, if anything is.
fn fault(document: &Path, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
    let folder = document.parent().unwrap_or(Path::new(""));
    let Some(led) = (if file.is_empty() { Some(document.to_owned()) } else { plain(&folder.join(file)) }) else {
        return Some("it leads out of the repository");
    };
    if !root().join(&led).exists() {
        return Some("nothing is there");
    }
    if document.starts_with("docs") && !led.starts_with("docs") {
        return Some("the book holds pages of docs/ only; name other files without a link");
    }
    let heading = heading.filter(|_| led.extension().is_some_and(|kind| kind == "md"))?;
    (!anchors(&text(&led)).contains(heading)).then_some("there is no such heading")
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for document in all() {
        let text = text(&document);
        for (number, target) in
            prose(&text).flat_map(|(number, line)| links(line).into_iter().map(move |l| (number, l)))
        {
            seen += 1;
            let fault = fault(&document, &target);
            broken.extend(fault.map(|fault| format!("{}:{number}: {target}: {fault}", document.display())));
        }
    }
    assert!(seen > 50, "the documents' links were not found");
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_book_has_every_page() {
    let summary = text(Path::new("docs/SUMMARY.md"));
    let listed: BTreeSet<PathBuf> =
        summary.lines().flat_map(links).filter_map(|target| plain(&Path::new("docs").join(target))).collect();
    let mut pages = BTreeSet::new();
    documents(Path::new("docs"), &mut pages);
    pages.remove(Path::new("docs/SUMMARY.md"));
    let missing: Vec<String> = pages.difference(&listed).map(|page| format!("{}", page.display())).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list\n{}", missing.join("\n"));
}

#[test]
fn a_broken_link_is_noticed() {
    let document = Path::new("docs/index.md");
    assert_eq!(fault(document, "volunteers.md#watch-it"), None);
    assert_eq!(fault(document, "https://example.org/nothing"), None);
    assert_eq!(fault(document, "volunteers.md#nowhere"), Some("there is no such heading"));
    assert_eq!(fault(document, "nobody.md"), Some("nothing is there"));
    assert_eq!(fault(document, "../../elsewhere.md"), Some("it leads out of the repository"));
    assert!(fault(document, "../README.md").is_some(), "the book does not hold the repository");
    assert_eq!(links("see [a](b.md), `[no](link)` and [c](d.md#e)"), ["b.md", "d.md#e"]);
    assert_eq!(anchor(" What's new, in `run.toml`? "), "whats-new-in-runtoml");
}
