//! The demo's output folder: whose it is, and how the last demo's run is cleared away. Only what a demo wrote goes; whatever
//! else lies there is named, and nothing is touched.

use anyhow::{Context, Result, bail, ensure};
use nightjar_shared::{
    ids::BlobHash,
    mark::{self, EntryKind, Kind, Mark},
};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

/// Locked while a demo uses the folder; and the mark of demos of earlier versions.
const LOCK: &str = ".nightjar-demo";

/// Opens a folder for the demo: an empty one, or one that an earlier demo made and that no other demo uses now.
pub fn open(out: &Path) -> Result<(PathBuf, File)> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let file = out.join(LOCK);
    let is_empty_file = |about: fs::Metadata| about.is_file() && about.len() == 0;
    let is_ours = match Mark::read(out)? {
        Some(mark) => mark.kind == Kind::Demo,
        None => mark::is_empty(out)? || fs::symlink_metadata(&file).is_ok_and(is_empty_file),
    };
    ensure!(is_ours, "{} is not empty and was not made by the demo; choose another folder with --out", out.display());
    let is_link = fs::symlink_metadata(&file).is_ok_and(|about| !about.is_file());
    ensure!(!is_link, "{} is no file; choose another folder with --out", file.display());
    let lock = File::options().write(true).create(true).truncate(false).open(&file)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("another demo is using {}; wait for it, or choose another --out", out.display()),
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", file.display())),
    }
    mark::leave(out, &Mark::whole(Kind::Demo)).with_context(|| format!("cannot write to {}", out.display()))?;
    Ok((out.canonicalize()?, lock))
}

/// A part of the demo's folder.
#[derive(Clone, Copy)]
pub enum Part {
    /// The coordinator's state.
    State,
    /// The devices' homes.
    Homes,
    /// What each process says.
    Logs,
    /// The exported model.
    Model,
    /// The prepared data.
    Data,
}

/// Removes parts of the last demo, once all of them were looked through.
pub fn clear(parts: &[(Part, PathBuf)]) -> Result<()> {
    for (part, folder) in parts {
        let found = foreign(*part, folder).with_context(|| format!("cannot look through {}", folder.display()))?;
        if let Some(entry) = found {
            bail!(
                "{} holds {entry}, which the demo did not write or somebody has changed; move it away, or choose another folder \
                 with --out",
                folder.display()
            );
        }
    }
    for (_, folder) in parts {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
    }
    Ok(())
}

/// The first entry that no demo wrote.
fn foreign(part: Part, folder: &Path) -> Result<Option<String>> {
    match fs::symlink_metadata(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        about => {
            if !about?.is_dir() {
                return Ok(Some("no folder".to_owned()));
            }
        }
    }
    if mark::entries(folder)?.is_empty() {
        return Ok(None);
    }
    match part {
        Part::State => {
            const FILES: &[&str] = &[
                "lock",
                "coordinator.pk8",
                "reserve",
                "ledger.sqlite",
                "ledger.sqlite-wal",
                "ledger.sqlite-shm",
                "ledger.sqlite-journal",
            ];
            let top = mark::foreign(folder, files(FILES, &["blobs", "checkpoints", "incoming"]))?;
            let blobs = ["blobs", "incoming"].map(|name| in_folder(folder, name, file_that(is_blob)));
            let checkpoints = in_folder(folder, "checkpoints", file_that(|name| name.ends_with(".njc")));
            let [stored, incoming] = blobs;
            Ok(top.or(stored?).or(incoming?).or(checkpoints?))
        }
        Part::Homes => {
            for (name, kind) in mark::entries(folder)? {
                let home = folder.join(&name);
                let is_marked = || Mark::read(&home).is_ok_and(|mark| mark.is_some_and(|mark| mark.kind == Kind::Home));
                // Homes of earlier versions have no mark. A sampler's is empty but for its worker's folders.
                let is_old =
                    || home.join("identity.pk8").is_file() || mark::foreign(&home, worker_folders).is_ok_and(|f| f.is_none());
                if kind != EntryKind::Folder || !(is_marked() || is_old()) {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        }
        Part::Logs => Ok(mark::foreign(folder, file_that(|name| name.ends_with(".log")))?),
        Part::Model => changed(folder),
        Part::Data => {
            let top = mark::foreign(folder, files(&["prepare.json", "tokenizer.json", "manifest.json"], &["blobs", "work"]))?;
            let is_prepared =
                Mark::read(folder)?.is_some_and(|mark| mark.kind == Kind::Dataset) || folder.join("prepare.json").is_file();
            let unprepared = (!is_prepared).then(|| "no dataset".to_owned());
            Ok(top.or(unprepared).or(in_folder(folder, "blobs", file_that(is_blob))?))
        }
    }
}

fn files(names: &'static [&'static str], folders: &'static [&'static str]) -> impl Fn(&str, EntryKind) -> bool {
    move |name, kind| match kind {
        EntryKind::File => names.contains(&name),
        EntryKind::Folder => folders.contains(&name),
        EntryKind::Other => false,
    }
}

fn file_that(is_ours: fn(&str) -> bool) -> impl Fn(&str, EntryKind) -> bool {
    move |name, kind| kind == EntryKind::File && is_ours(name)
}

fn is_blob(name: &str) -> bool {
    name.parse::<BlobHash>().is_ok()
}

fn worker_folders(name: &str, kind: EntryKind) -> bool {
    kind == EntryKind::Folder && ["blobs", "work", "cache"].contains(&name)
}

fn in_folder(folder: &Path, name: &str, is_ours: impl Fn(&str, EntryKind) -> bool) -> Result<Option<String>> {
    Ok(mark::foreign(&folder.join(name), is_ours)?.map(|entry| format!("{name}/{entry}")))
}

/// A file of an export that is not as it was written.
fn changed(model: &Path) -> Result<Option<String>> {
    let mark = Mark::read(model)?.filter(|mark| mark.kind == Kind::Model);
    for (name, kind) in mark::entries(model)? {
        if name == mark::MARK_FILE {
            continue;
        }
        let expected = mark.as_ref().and_then(|mark| mark.files.get(&name));
        let is_as_it_was = kind == EntryKind::File
            && expected.is_some_and(|(bytes, hash)| {
                fs::read(model.join(&name)).is_ok_and(|found| found.len() as u64 == *bytes && BlobHash::of(&found) == *hash)
            });
        if !is_as_it_was {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &Path) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "dear").unwrap();
    }

    #[test]
    fn only_a_folder_of_the_demos_is_opened() {
        let place = tempfile::tempdir().unwrap();
        let theirs = place.path().join("theirs");
        write(&theirs.join("thesis.tex"));
        assert!(open(&theirs).is_err());
        // The name is ours, and the file is not.
        write(&theirs.join(LOCK));
        assert!(open(&theirs).is_err());
        assert_eq!(fs::read(theirs.join(LOCK)).unwrap(), b"dear");
        let ours = place.path().join("ours");
        drop(open(&ours).unwrap());
        write(&ours.join("notes.txt"));
        drop(open(&ours).unwrap());
        fs::remove_file(ours.join(mark::MARK_FILE)).unwrap();
        let (_, lock) = open(&ours).expect("one of an earlier demo");
        assert!(open(&ours).unwrap_err().to_string().contains("another demo"));
        drop(lock);
    }

    #[test]
    fn what_the_demo_did_not_write_keeps_all_of_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let parts = [
            (Part::State, at("state")),
            (Part::Homes, at("devices")),
            (Part::Logs, at("logs")),
            (Part::Model, at("model")),
            (Part::Data, at("data")),
        ];
        let ours = [
            format!("state/blobs/{}", BlobHash::of(b"x")),
            "state/checkpoints/4.njc".into(),
            "state/ledger.sqlite".into(),
            "devices/volunteer-1/identity.pk8".into(),
            "devices/volunteer-1/cache/driver/anything".into(),
            "logs/anchor.log".into(),
            "data/prepare.json".into(),
        ];
        let lay = || ours.iter().for_each(|file| write(&at(file)));
        for theirs in
            ["state/notes", "state/blobs/notes", "devices/notes", "devices/mine/notes", "logs/notes", "model/notes", "data/notes"]
        {
            lay();
            write(&at(theirs));
            let told = clear(&parts).unwrap_err().to_string();
            assert!(told.contains("--out"), "{told}");
            assert!(ours.iter().all(|file| at(file).exists()) && at(theirs).exists(), "{theirs}");
            fs::remove_file(at(theirs)).unwrap();
            if theirs == "devices/mine/notes" {
                fs::remove_dir(at("devices/mine")).unwrap();
            }
        }
        clear(&parts).unwrap();
        assert!(parts.iter().all(|(_, folder)| !folder.exists()));
    }
}
