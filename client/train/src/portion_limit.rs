//! How much of a batch a GPU bears at once. Nobody tells how much of its memory is free, so the portion that goes
//! through the model together is a guess ([`crate::Portion::fitting`]), and a guess too large may take worker and driver
//! down. So it is written down before it is tried, and struck out once a step has gone well: what the next start finds
//! there was too much.

use nightjar_shared::disk::{Disk, FolderDisk};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// In the cache's folder, by the device's name.
const FILE: &str = "portions.json";
/// An owner who ends the worker in its very first step looks like a portion too large, so after so many starts that
/// went well the device may be given twice as much again.
const FORGIVEN_AFTER: u32 = 32;

/// What is known of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    /// Bytes that are being tried.
    trying: Option<u64>,
    /// Bytes that may be tried.
    most: Option<u64>,
    /// Starts since that was found.
    starts: u32,
}

impl Known {
    /// As a start takes it up.
    fn next(self) -> Self {
        match self {
            Known { trying: Some(bytes), .. } => Known { most: Some(bytes / 2), ..Known::default() },
            Known { starts, .. } if starts >= FORGIVEN_AFTER => {
                Known { most: self.most.map(|most| most.saturating_mul(2)), ..Known::default() }
            }
            Known { most: Some(_), starts, .. } => Known { starts: starts + 1, ..self },
            _ => self,
        }
    }
}

/// What one device bears, as far as it was found out.
#[derive(Clone, Debug, Default)]
pub struct PortionLimit {
    folder: Option<PathBuf>,
    device: String,
    known: Known,
    /// The most that this process has seen to go well.
    borne: u64,
}

impl PortionLimit {
    /// At the start of a process, which is when it shows what the one before did not survive. Without a folder nothing
    /// is known and nothing kept.
    pub(crate) fn of(device: &str, cache: Option<&Path>) -> Self {
        let mut limit =
            PortionLimit { folder: cache.map(Path::to_owned), device: device.into(), ..PortionLimit::default() };
        let was = limit.all().remove(device).unwrap_or_default();
        limit.known = was.next();
        if limit.known != was {
            limit.write();
        }
        limit
    }

    /// Bytes that a portion may take.
    pub(crate) fn most(&self) -> u64 {
        self.known.most.unwrap_or(u64::MAX)
    }

    /// A step that takes so much is about to be made.
    pub(crate) fn begin(&mut self, bytes: u64) {
        if bytes > self.borne && self.known.trying != Some(bytes) {
            self.known.trying = Some(bytes);
            self.write();
        }
    }

    /// It was made.
    pub(crate) fn end(&mut self) {
        if let Some(bytes) = self.known.trying.take() {
            self.borne = bytes;
            self.write();
        }
    }

    /// It was stopped in the middle, which says nothing.
    pub(crate) fn leave_off(&mut self) {
        if self.known.trying.take().is_some() {
            self.write();
        }
    }

    fn disk(&self) -> Option<FolderDisk> {
        FolderDisk::open(self.folder.as_ref()?).ok()
    }

    /// Of all devices; a damaged file is worth no more than none.
    fn all(&self) -> BTreeMap<String, Known> {
        let bytes = self.disk().and_then(|disk| disk.read(FILE).ok().flatten()).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// What cannot be written is found out again.
    fn write(&self) {
        let Some(disk) = self.disk() else { return };
        let mut all = self.all();
        all.insert(self.device.clone(), self.known);
        let _ = serde_json::to_vec_pretty(&all).map(|bytes| disk.write(FILE, &bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_did_not_survive_is_halved_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let start = || PortionLimit::of("A", Some(folder.path()));
        assert_eq!(start().most(), u64::MAX);
        start().begin(1000);
        let mut second = start();
        assert_eq!(second.most(), 500);
        second.begin(500);
        assert_eq!(start().most(), 250, "killed again");
        let mut third = start();
        assert_eq!(third.most(), 250, "once each");
        third.begin(250);
        third.end();
        third.begin(240);
        assert_eq!(start().most(), 250, "less than what went well is no trial");
        let mut fourth = start();
        fourth.begin(250);
        fourth.leave_off();
        assert_eq!(start().most(), 250, "the owner stopped it");
        fourth.begin(250);
        assert_eq!(start().most(), 125, "and it was begun again");
        assert_eq!(PortionLimit::of("B", Some(folder.path())).most(), u64::MAX, "another device");
    }

    #[test]
    fn a_device_that_does_well_may_have_more_again() {
        let folder = tempfile::tempdir().unwrap();
        let start = || PortionLimit::of("A", Some(folder.path()));
        start().begin(1000);
        let most: Vec<u64> = (0..FORGIVEN_AFTER + 3).map(|_| start().most()).collect();
        assert_eq!(most[..FORGIVEN_AFTER as usize + 1], [500; FORGIVEN_AFTER as usize + 1]);
        assert_eq!(most[FORGIVEN_AFTER as usize + 1..], [1000; 2]);
    }

    #[test]
    fn a_file_that_is_damaged_or_missing_is_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "torn").unwrap();
        let mut limit = PortionLimit::of("A", Some(folder.path()));
        assert_eq!(limit.most(), u64::MAX);
        limit.begin(10);
        assert_eq!(PortionLimit::of("A", Some(folder.path())).most(), 5);
        let mut nowhere = PortionLimit::of("A", None);
        nowhere.begin(10);
        nowhere.end();
        assert_eq!(nowhere.most(), u64::MAX);
    }
}
