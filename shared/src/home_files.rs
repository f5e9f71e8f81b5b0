//! What a device's home has in it: all else in such a folder is its owner's.

use crate::{
    ids::BlobHash,
    mark::{self, EntryKind},
    work_files,
};
use std::{io, path::Path};

const FILES: [&str; 19] = [
    "identity.pk8",
    "membership.json",
    "journal.json",
    "prefs.toml",
    "prefs.good.toml",
    "prefs.edited.toml",
    "prefs.draft.toml",
    "pause.json",
    "policy.json",
    "control.json",
    "page-port",
    "control.probe",
    "open.html",
    "lock",
    "agent.log",
    "agent.log.old",
    "worker.log",
    "worker.log.old",
    "worker-crashes.json",
];
/// Folders of a home; `cache` is the drivers', who put there what they like.
const FOLDERS: [&str; 4] = ["blobs", "work", "cache", "history"];

/// Whether an entry of a home's folder can be a program's of ours.
pub fn is_ours(name: &str, kind: EntryKind) -> bool {
    match kind {
        EntryKind::File => FILES.contains(&name.strip_suffix(".damaged").unwrap_or(name)),
        EntryKind::Folder => FOLDERS.contains(&name),
        EntryKind::Other => false,
    }
}

/// Whether a name in `blobs` is that of a blob, or of one that is on its way.
pub fn is_blob(name: &str) -> bool {
    name.strip_suffix(".part").unwrap_or(name).parse::<BlobHash>().is_ok()
}

/// Whether a name in `history` is that of a day, a month or the ledger.
fn is_history(name: &str) -> bool {
    let name = name.strip_suffix(".damaged").unwrap_or(name);
    let is_date = |date: &str| !date.is_empty() && date.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    let date = name.strip_suffix(".jsonl").or(name.strip_suffix(".json"));
    ["alive", "ledger.jsonl"].contains(&name) || date.is_some_and(is_date)
}

/// The first thing in a home, as deep as names are known, that no program of ours put there.
pub fn foreign(home: &Path) -> io::Result<Option<String>> {
    if let Some(entry) = mark::foreign(home, is_ours)? {
        return Ok(Some(entry));
    }
    type IsOurs = fn(&str) -> bool;
    let inside: [(&str, IsOurs); 3] = [("blobs", is_blob), ("work", work_files::is_made), ("history", is_history)];
    for (folder, is_ours) in inside {
        let found = mark::foreign(&home.join(folder), |name, kind| kind == EntryKind::File && is_ours(name))?;
        if let Some(entry) = found {
            return Ok(Some(format!("{folder}/{entry}")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_the_owners_is_named_at_any_depth() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let file = home.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        };
        let blob = BlobHash::of(b"x");
        for ours in [
            "identity.pk8",
            "journal.json.damaged",
            "agent.log.new",
            "work/weights-12",
            "work/lease-3.delta",
            "work/lease-3.optimizer.new",
            "work/checkpoint.0",
            "cache/driver/deep/anything",
            "history/2026-11-24.jsonl",
            "history/2026-11.json.damaged",
            "history/alive",
            &format!("blobs/{blob}"),
            &format!("blobs/{blob}.part"),
        ] {
            write(ours);
            assert_eq!(foreign(home.path()).unwrap(), None, "{ours}");
        }
        for theirs in [
            "thesis.txt",
            "photos/a.jpg",
            "x.damaged",
            "work/chapter-1",
            "work/lease-x.delta",
            "blobs/mine",
            "history/notes",
        ] {
            write(theirs);
            assert!(foreign(home.path()).unwrap().is_some_and(|named| theirs.starts_with(&named)), "{theirs}");
            fs::remove_file(home.path().join(theirs)).unwrap();
            let _ = fs::remove_dir(home.path().join("photos"));
        }
    }
}
