//! A folder in which somebody else writes who is up to something.

use super::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::{os::unix::fs::symlink, time::Duration};

/// A disk in `home`, and beside it the owner's own file.
struct Place {
    folder: tempfile::TempDir,
    disk: FolderDisk,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path().join("home")).unwrap();
        fs::create_dir(folder.path().join("owner")).unwrap();
        fs::write(folder.path().join("owner/thesis"), b"thesis").unwrap();
        disk.write("work/delta", b"delta").unwrap();
        disk.write("identity", b"key").unwrap();
        Place { folder, disk }
    }

    fn thesis(&self) -> PathBuf {
        self.folder.path().join("owner/thesis")
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.folder.path().join("home").join(name)
    }

    /// Whatever is done with that name, none of the owner's files is read, written, moved or removed.
    fn nothing_comes_of(&self, name: &str) {
        let disk = &self.disk;
        assert!(disk.read(name).is_err(), "{name}");
        assert!(disk.read_at(name, 0, 9).is_err(), "{name}");
        assert!(disk.length(name).is_err(), "{name}");
        assert!(disk.write_at(name, 0, b"x").is_err(), "{name}");
        assert!(disk.sync(name).is_err(), "{name}");
        assert!(disk.open_foreign(name, 6).is_err(), "{name}");
        self.owner_has_all();
    }

    fn owner_has_all(&self) {
        assert_eq!(fs::read(self.thesis()).unwrap(), b"thesis");
        assert_eq!(fs::read_dir(self.folder.path().join("owner")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(self.folder.path()).unwrap().count(), 2);
    }
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[test]
fn a_name_leads_nowhere_but_into_the_folder() {
    let place = Place::new();
    let absolute = place.thesis().display().to_string();
    let names =
        [absolute.as_str(), "../owner/thesis", "work/../../owner/thesis", "..", ".", "", "/", "work/", "/work/delta"];
    for name in names.into_iter().chain(["./work/delta", "work//delta", "work/./delta", "work/a\0b"]) {
        place.nothing_comes_of(name);
        assert!(place.disk.write(name, b"x").is_err(), "{name}");
        assert!(place.disk.write_private(name, b"x").is_err(), "{name}");
        assert!(place.disk.remove(name).is_err(), "{name}");
        assert!(place.disk.rename("work/delta", name).is_err(), "{name}");
        assert!(place.disk.rename(name, "work/mine").is_err(), "{name}");
        assert!(place.disk.path(name).starts_with(place.folder.path().join("home")), "{name}");
    }
    for name in [absolute.as_str(), "..", "../owner", "work/..", "."] {
        assert!(place.disk.list(name).is_err() && place.disk.walk(name).is_err(), "{name}");
        assert!(place.disk.clear(name, &[]).is_err(), "{name}");
    }
    place.owner_has_all();
    assert_eq!(place.disk.read("work/delta").unwrap().unwrap(), b"delta");
    assert_eq!(place.disk.path("work/delta"), place.inside("work/delta"));
}

#[test]
fn links_are_not_followed_and_go_when_they_are_removed() {
    let place = Place::new();
    symlink(place.thesis(), place.inside("work/file")).unwrap();
    symlink("../identity", place.inside("work/within")).unwrap();
    symlink(place.folder.path().join("owner"), place.inside("work/folder")).unwrap();
    symlink(place.folder.path().join("owner/new"), place.inside("work/dangling")).unwrap();
    for name in ["work/file", "work/within", "work/folder/thesis", "work/dangling"] {
        place.nothing_comes_of(name);
    }
    assert!(place.disk.list("work/folder").is_err());
    assert!(place.disk.remove("work/folder/thesis").is_err());
    assert!(place.disk.rename("work/folder/thesis", "work/mine").is_err());
    assert!(place.disk.rename("work/delta", "work/folder/delta").is_err());
    assert!(place.disk.clear("work/folder", &[]).is_err());
    assert_eq!(place.disk.list("work").unwrap(), ["delta"]);
    // A link in the way of what is written is replaced, not written through.
    symlink(place.thesis(), place.inside("work/new.new")).unwrap();
    place.disk.write("work/new", b"new").unwrap();
    place.disk.write("work/file", b"mine").unwrap();
    assert_eq!(place.disk.read("work/file").unwrap().unwrap(), b"mine");
    place.disk.remove("work/folder").unwrap();
    place.owner_has_all();
}

/// The way to the folder is its owner's: many a home folder is behind a link.
#[test]
fn the_way_to_the_folder_may_be_a_link() {
    let place = Place::new();
    let way = place.inside("../owner/way");
    symlink(place.inside(""), &way).unwrap();
    assert_eq!(FolderDisk::open(way).unwrap().read("work/delta").unwrap().unwrap(), b"delta");
}

#[test]
fn what_is_no_plain_file_keeps_nobody_waiting() {
    let place = Place::new();
    pipe(&place.inside("work/pipe"));
    fs::create_dir(place.inside("work/a folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.inside("work/socket")).unwrap();
    for name in ["work/pipe", "work/a folder", "work/socket"] {
        place.nothing_comes_of(name);
    }
    assert_eq!(place.disk.list("work").unwrap(), ["delta"]);
}

#[test]
fn what_a_stranger_wrote_is_opened_only_as_it_was_said_to_be() {
    let place = Place::new();
    let opened = |name: &str, bytes| place.disk.open_foreign(name, bytes);
    assert!(opened("work/delta", 5).unwrap().is_some());
    assert!(opened("work/none", 5).unwrap().is_none());
    assert!(opened("nowhere/none", 5).unwrap().is_none());
    for bytes in [0, 4, 6, u64::MAX] {
        assert!(opened("work/delta", bytes).is_err(), "{bytes}");
    }
    fs::hard_link(place.thesis(), place.inside("work/second")).unwrap();
    assert!(opened("work/second", 6).is_err());
}

#[test]
fn all_that_lies_in_a_folder_is_counted() {
    let place = Place::new();
    for file in ["work/a/b/c", "work/a/d"] {
        place.disk.write(file, &[0; 10]).unwrap();
    }
    symlink(place.folder.path().join("owner"), place.inside("work/a/link")).unwrap();
    let walk = place.disk.walk("work").unwrap();
    assert_eq!((walk.bytes(), walk.files.len(), walk.is_cut_short), (25, 3, false));
    assert!(place.disk.walk("nowhere").unwrap().files.is_empty());
    // What cannot be named, or lies too deep, is at least known to be there.
    let no_text = std::ffi::OsStr::new("work/a").to_owned();
    let no_text = [no_text.as_encoded_bytes(), b"/\xff"].concat();
    let no_text: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(no_text.as_slice());
    fs::write(place.folder.path().join("home").join(no_text), [0; 9]).unwrap();
    assert!(place.disk.walk("work").unwrap().is_cut_short);
    let deep = Place::new();
    deep.disk.write(&format!("work/{}x", "d/".repeat(30)), b"x").unwrap();
    assert!(deep.disk.walk("work").unwrap().is_cut_short);
}

/// A way longer than any path may be, made step by step.
fn dig(place: &Place, depth: usize) {
    let mut folder = Folder::root(&place.inside("work")).unwrap();
    for _ in 0..depth {
        folder.make("d".as_ref()).unwrap();
        folder = folder.enter("d".as_ref()).unwrap();
    }
    folder.open("x".as_ref(), Access::Write).unwrap();
}

#[test]
fn all_that_is_not_kept_is_removed_whatever_it_is_and_however_deep() {
    let place = Place::new();
    dig(&place, 5000);
    symlink(place.folder.path().join("owner"), place.inside("work/link")).unwrap();
    fs::create_dir_all(place.inside("work/a/b")).unwrap();
    symlink(place.folder.path().join("owner"), place.inside("work/a/b/link")).unwrap();
    pipe(&place.inside("work/pipe"));
    fs::create_dir(place.inside("work/kept too")).unwrap();
    let no_text: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe".as_slice());
    fs::write(place.inside("work").join(no_text), [0; 9]).unwrap();
    place.disk.clear("work", &["delta", "kept too"]).unwrap();
    let left: Vec<_> = fs::read_dir(place.inside("work")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["delta"]);
    place.owner_has_all();
    place.disk.clear("nowhere", &[]).unwrap();
}

#[test]
fn times_tell_which_file_is_older() {
    let place = Place::new();
    let old = fs::File::options().write(true).open(place.inside("work/delta")).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000)).unwrap();
    place.disk.write("work/new", b"new").unwrap();
    let mut files = place.disk.walk("work").unwrap().files;
    files.sort_by_key(|file| file.changed);
    assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["work/delta", "work/new"]);
}
