//! What the owner has chosen, so that a page that is opened again goes on by itself. Kept as `wishes.json`.

use nightjar_shared::{disk::Disk, time::Wall};
use serde::{Deserialize, Serialize};
use std::io;

const FILE: &str = "wishes.json";

/// See the module. Whoever has chosen nothing wants nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// Whether it is to train.
    pub is_wanted: bool,
    /// Until when the device stays on its charger, by the owner's word.
    pub plugged_until: Option<Wall>,
}

impl Wishes {
    /// What was chosen last. A file that cannot be understood says nothing.
    pub fn load(disk: &dyn Disk) -> io::Result<Self> {
        Ok(disk.read(FILE)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Keeps it.
    pub fn store(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.write(FILE, &serde_json::to_vec(self)?)
    }
}
