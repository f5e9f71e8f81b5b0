//! The message that a cohort works on, kept on the disk: a SuperLink gives each message once, so a program that is
//! started anew goes on with it.

use crate::wire::{incoming::Arrangement, proto::Metadata};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A message, and how far its answer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The message.
    pub message: Metadata,
    /// When it came, in seconds since 1970.
    pub came_s: f64,
    /// What was read of it and stored at the coordinator; `None`: its objects are still at the SuperLink.
    pub given: Option<Given>,
}

/// A message's weights, once they are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Their name there.
    pub weights: String,
    /// How the lab arranged them.
    pub arrangement: Arrangement,
}

/// Where it is kept.
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// In this file.
    pub fn new(path: PathBuf) -> Self {
        Journal { path }
    }

    /// The message at hand, if there is one. A file that cannot be read is put aside: no answer can be made of it.
    pub fn read(&self) -> io::Result<Option<Task>> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        match serde_json::from_slice(&text) {
            Ok(task) => Ok(Some(task)),
            Err(error) => {
                let aside = self.path.with_extension("unreadable");
                tracing::warn!(%error, "the message at hand cannot be read; it is kept as {}", aside.display());
                fs::rename(&self.path, aside)?;
                Ok(None)
            }
        }
    }

    /// Keeps the message: when this returns, a kill loses nothing.
    pub fn write(&self, task: &Task) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(task)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        sync(self.path.parent())
    }

    /// The message is answered.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn sync(folder: Option<&Path>) -> io::Result<()> {
    // Other systems have no such call.
    match folder {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::npy::Dtype;

    #[test]
    fn a_message_is_kept_until_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().join("north.json"));
        assert_eq!(journal.read().unwrap(), None);
        let message = Metadata { run_id: u64::MAX, message_id: "m".into(), ttl: 3600.0, ..Metadata::default() };
        let arrangement = Arrangement { record: "arrays".into(), arrays: vec![(0, Dtype::Float64)] };
        let mut task = Task { message, came_s: 1.5, given: None };
        journal.write(&task).unwrap();
        task.given = Some(Given { weights: "w".into(), arrangement });
        journal.write(&task).unwrap();
        assert_eq!(journal.read().unwrap(), Some(task));
        journal.clear().unwrap();
        journal.clear().unwrap();
        assert_eq!(journal.read().unwrap(), None);
    }

    #[test]
    fn what_cannot_be_read_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path().join("north.json"));
        fs::write(folder.path().join("north.json"), b"{\"message\": 7").unwrap();
        assert_eq!(journal.read().unwrap(), None);
        assert_eq!(fs::read(folder.path().join("north.unreadable")).unwrap(), b"{\"message\": 7");
    }
}
