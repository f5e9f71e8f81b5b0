//! The files of a package, in memory or on the disk, as they will lie on a computer; every archive is made of one.

use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Files by their path from the root, without a slash before it; in the order of their names.
#[derive(Default)]
pub struct Tree(pub BTreeMap<String, Entry>);

pub struct Entry {
    body: Body,
    mode: u32,
    /// Of user and group; root's is 0.
    owner: u32,
}

enum Body {
    Bytes(Vec<u8>),
    /// One on this machine.
    File(PathBuf),
    /// An empty one.
    Folder,
}

impl Tree {
    pub fn add(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), Entry { body: Body::Bytes(bytes.into()), mode: 0o644, owner: 0 });
    }

    pub fn add_program(&mut self, path: impl Into<String>, file: &Path) {
        self.0.insert(path.into(), Entry { body: Body::File(file.to_owned()), mode: 0o755, owner: 0 });
    }

    /// A folder that a user may write into, and nobody else look into.
    pub fn add_folder(&mut self, path: impl Into<String>, owner: u32) {
        self.0.insert(path.into(), Entry { body: Body::Folder, mode: 0o700, owner });
    }

    /// Lays the files into an empty folder, as this user's.
    pub fn lay(&self, folder: &Path) -> Result<()> {
        for (path, entry) in &self.0 {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().unwrap_or(folder))?;
            let written = match &entry.body {
                Body::Bytes(bytes) => fs::write(&file, bytes),
                Body::File(from) => fs::copy(from, &file).map(drop),
                Body::Folder => fs::create_dir(&file),
            };
            written.with_context(|| format!("cannot write {}", file.display()))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(entry.mode))?;
        }
        Ok(())
    }

    /// Writes a tar archive, of one time: the same bytes for the same files. Folders are root's, and come before
    /// what is in them.
    pub fn tar(&self, prefix: &str, unix_s: u64, out: &mut impl Write) -> Result<()> {
        let mut folders = std::collections::BTreeSet::new();
        for (path, entry) in &self.0 {
            let path = format!("{prefix}{path}");
            for (at, _) in path.match_indices('/') {
                if folders.insert(path[..at].to_owned()) {
                    out.write_all(&Head { mode: 0o755, owner: 0, length: 0, unix_s, kind: FOLDER }.of(&path[..=at])?)?;
                }
            }
            let (kind, end) = if matches!(entry.body, Body::Folder) { (FOLDER, "/") } else { (FILE, "") };
            let length = entry.body.length()?;
            let head = Head { mode: entry.mode, owner: entry.owner, length, unix_s, kind };
            out.write_all(&head.of(&format!("{path}{end}"))?)?;
            let written = match &entry.body {
                Body::Bytes(bytes) => out.write_all(bytes).map(|()| length),
                Body::File(from) => File::open(from).and_then(|mut file| io::copy(&mut file, out)),
                Body::Folder => Ok(0),
            };
            ensure!(written? == length, "{path} changed while it was read");
            out.write_all(&vec![0; (BLOCK - (length % BLOCK as u64) as usize) % BLOCK])?;
        }
        Ok(out.write_all(&[0; 2 * BLOCK])?)
    }
}

impl Body {
    fn length(&self) -> Result<u64> {
        match self {
            Body::Bytes(bytes) => Ok(bytes.len() as u64),
            Body::Folder => Ok(0),
            Body::File(file) => {
                Ok(fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len())
            }
        }
    }
}

const BLOCK: usize = 512;
const FILE: u8 = b'0';
const FOLDER: u8 = b'5';

/// What a tar archive says of an entry, in the format ustar (POSIX.1-1988).
struct Head {
    mode: u32,
    owner: u32,
    length: u64,
    unix_s: u64,
    kind: u8,
}

impl Head {
    fn of(&self, path: &str) -> Result<[u8; BLOCK]> {
        let Head { mode, owner, length, unix_s, kind } = self;
        // A long path is cut at a slash: 155 bytes for what comes before it, a hundred for what comes after.
        let slashes = path.match_indices('/').map(|(at, _)| at);
        let cut = if path.len() > 100 { slashes.into_iter().find(|at| path.len() - at <= 101) } else { None };
        let (before, name) = cut.map_or(("", path), |at| (&path[..at], &path[at + 1..]));
        ensure!(
            name.len() <= 100 && before.len() <= 155 && *length < 1 << 33,
            "{path} does not fit into a tar archive"
        );
        let mut head = [0; BLOCK];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(345, before);
        put(100, &format!("{mode:07o}\0{owner:07o}\0{owner:07o}\0{length:011o}\0{unix_s:011o}\0"));
        put(148, "        ");
        put(257, "ustar\0");
        put(263, "00");
        head[156] = *kind;
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// tar itself reads what is written, long paths and all, and reads it the same twice.
    #[test]
    fn tar_unpacks_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let deep = format!("usr/share/{}/page.1", "deep/".repeat(25).trim_end_matches('/'));
        let mut tree = Tree::default();
        tree.add("usr/share/short", "a text");
        tree.add(deep.clone(), vec![7; 1500]);
        let program = folder.path().join("program");
        fs::write(&program, [1; BLOCK]).unwrap();
        tree.add_program("usr/bin/program", &program);
        tree.add_folder("var/own", 65_532);
        let mut bytes = vec![];
        tree.tar("top/", 1_700_000_000, &mut bytes).unwrap();
        let archive = folder.path().join("archive.tar");
        fs::write(&archive, &bytes).unwrap();
        let tar = |words: &[&str]| {
            let ended = Command::new("tar").args(words).arg(&archive).current_dir(folder.path()).output().unwrap();
            assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
            String::from_utf8(ended.stdout).unwrap()
        };
        tar(&["-xf"]);
        let read = |path: &str| fs::read(folder.path().join("top").join(path)).unwrap();
        assert_eq!((read("usr/share/short"), read(&deep)), (b"a text".to_vec(), vec![7; 1500]));
        let listed = tar(&["--utc", "--numeric-owner", "-tvf"]);
        let program = listed.lines().find(|line| line.ends_with("usr/bin/program")).unwrap();
        assert!(program.starts_with("-rwxr-xr-x 0/0") && program.contains("2023-11-14"), "{program}");
        assert!(
            listed.lines().any(|line| line.starts_with("drwxr-xr-x 0/0") && line.ends_with("top/usr/")),
            "{listed}"
        );
        assert!(
            listed.lines().any(|line| line.starts_with("drwx------ 65532/65532") && line.ends_with("top/var/own/")),
            "{listed}"
        );
        let mut again = vec![];
        tree.tar("top/", 1_700_000_000, &mut again).unwrap();
        assert!(bytes == again);
        let head = Head { mode: 0o644, owner: 0, length: 0, unix_s: 0, kind: FILE };
        assert!(head.of(&"x".repeat(101)).is_err() && head.of(&"x/".repeat(140)).is_err(), "names that fit nowhere");
    }
}
