//! The demo's output folder: whose it is, and how the last demo's run is cleared away. Only what a demo wrote goes;
//! whatever else lies there is named, and nothing is touched.

use anyhow::{Context, Result, bail, ensure};
use nightjar_shared::{
    home_files,
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
        Err(TryLockError::WouldBlock) => {
            bail!("another demo is using {}; wait for it, or choose another --out", out.display())
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", file.display()));
        }
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

/// Removes parts of the last demo, once all of them were looked through, and no program uses any.
pub fn clear(parts: &[(Part, PathBuf)]) -> Result<()> {
    let mut locks = vec![];
    for (part, folder) in parts {
        let users = match part {
            Part::State => vec![folder.clone()],
            Part::Homes => mark::entries(folder)?.into_iter().map(|(name, _)| folder.join(name)).collect(),
            Part::Data => vec![folder.join("work")],
            Part::Logs | Part::Model => vec![],
        };
        for user in users {
            locks.extend(lock_of(&user)?);
        }
    }
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

/// The lock of a program that uses a folder, if there is one; held, so that none begins to use it meanwhile.
fn lock_of(folder: &Path) -> Result<Option<File>> {
    let path = folder.join("lock");
    if !fs::symlink_metadata(&path).is_ok_and(|about| about.is_file()) {
        return Ok(None);
    }
    let file = File::options().write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            bail!("a program is running on {}; stop it, or choose another folder with --out", folder.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Whether a text file may be written anew: one that is not as a demo wrote it is somebody's, and is refused by name.
pub fn check_text(file: &Path) -> Result<()> {
    let is_ours = match fs::symlink_metadata(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("cannot look at {}", file.display())),
        Ok(about) => about.is_file() && fs::read_to_string(file).is_ok_and(|found| signed(unsigned(&found)) == found),
    };
    ensure!(
        is_ours,
        "{} is not as the demo wrote it; move it away, or choose another folder with --out",
        file.display()
    );
    Ok(())
}

/// Writes a text file of the demo's folder anew.
pub fn write_text(file: &Path, text: &str) -> Result<()> {
    check_text(file)?;
    fs::write(file, signed(text)).with_context(|| format!("cannot write {}", file.display()))
}

const SIGNED: &str = "# The demo wrote this: ";

/// A text with a last line by which it is known again.
fn signed(text: &str) -> String {
    format!("{text}{SIGNED}{}\n", BlobHash::of(text.as_bytes()))
}

fn unsigned(text: &str) -> &str {
    text.rfind(SIGNED).map_or(text, |at| &text[..at])
}

/// Whether a demo starts processes of this name: its logs and homes are called so.
fn is_of_demo(name: &str) -> bool {
    let number = name.strip_prefix("volunteer-").filter(|number| number.len() <= 2);
    let is_volunteer = number.is_some_and(|number| number.parse::<u8>().is_ok_and(|number| number > 0));
    is_volunteer || ["coordinator", "anchor", "bench", "sampler"].contains(&name)
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
                "coordinator.spare.pk8",
                "coordinator.spare.pub",
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
                let is_old = || {
                    home.join("identity.pk8").is_file()
                        || mark::foreign(&home, worker_folders).is_ok_and(|f| f.is_none())
                };
                if kind != EntryKind::Folder || !is_of_demo(&name) || !(is_marked() || is_old()) {
                    return Ok(Some(name));
                }
                if let Some(entry) = home_files::foreign(&home)? {
                    return Ok(Some(format!("{name}/{entry}")));
                }
            }
            Ok(None)
        }
        Part::Logs => Ok(mark::foreign(folder, file_that(|name| name.strip_suffix(".log").is_some_and(is_of_demo)))?),
        Part::Model => changed(folder),
        Part::Data => {
            let top =
                mark::foreign(folder, files(&["prepare.json", "tokenizer.json", "manifest.json"], &["blobs", "work"]))?;
            let is_prepared = Mark::read(folder)?.is_some_and(|mark| mark.kind == Kind::Dataset)
                || folder.join("prepare.json").is_file();
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
                fs::read(model.join(&name))
                    .is_ok_and(|found| found.len() as u64 == *bytes && BlobHash::of(&found) == *hash)
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
        for theirs in [
            "state/notes",
            "state/blobs/notes",
            "devices/notes",
            "devices/mine/notes",
            "logs/notes",
            "model/notes",
            "data/notes",
        ]
        .into_iter()
        .chain(["devices/volunteer-1/thesis.txt", "devices/volunteer-1/photos/a.jpg", "devices/volunteer-1/work/draft"])
        .chain(["devices/mine/identity.pk8", "logs/mine.log", "logs/volunteer-x.log"])
        {
            lay();
            write(&at(theirs));
            let told = clear(&parts).unwrap_err().to_string();
            assert!(told.contains("--out"), "{told}");
            assert!(ours.iter().all(|file| at(file).exists()) && at(theirs).exists(), "{theirs}");
            fs::remove_file(at(theirs)).unwrap();
            if theirs.starts_with("devices/mine/") || theirs.contains("photos") {
                fs::remove_dir(at(theirs).parent().unwrap()).unwrap();
            }
        }
        clear(&parts).unwrap();
        assert!(parts.iter().all(|(_, folder)| !folder.exists()));
    }

    #[test]
    fn what_a_program_uses_is_left_to_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let parts = [(Part::Logs, at("logs")), (Part::State, at("state")), (Part::Homes, at("devices"))];
        for used in ["state", "devices/volunteer-1"] {
            for file in
                ["logs/anchor.log", "state/coordinator.pk8", "state/ledger.sqlite", "devices/volunteer-1/identity.pk8"]
            {
                write(&at(file));
            }
            fs::write(at(used).join("lock"), "").unwrap();
            let lock = File::create(at(used).join("lock")).unwrap();
            lock.lock().unwrap();
            let told = clear(&parts).unwrap_err().to_string();
            assert!(told.contains(used) && told.contains("--out"), "{told}");
            assert!(at("logs/anchor.log").exists() && at("state/ledger.sqlite").exists());
            drop(lock);
            clear(&parts).unwrap();
            assert!(!at("state").exists());
        }
    }

    #[test]
    fn a_run_file_that_was_edited_stays() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("run.toml");
        write_text(&file, "name = \"demo\"\n").unwrap();
        write_text(&file, "name = \"demo\"\ntoken_budget = 7\n").unwrap();
        let ours = fs::read_to_string(&file).unwrap();
        assert!(ours.contains("token_budget = 7\n"));
        for theirs in [ours.replace('7', "8"), format!("{ours}# mine\n"), "name = \"mine\"\n".to_owned(), String::new()]
        {
            fs::write(&file, &theirs).unwrap();
            let told = write_text(&file, "name = \"demo\"\n").unwrap_err().to_string();
            assert!(told.contains("run.toml"), "{told}");
            assert_eq!(fs::read_to_string(&file).unwrap(), theirs);
        }
    }
}
