//! The devices that are enrolled, as far as the ledger has it: only they may download.

use crate::engine::record::DeviceRecord;
use nightjar_shared::ids::DeviceId;
use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

/// See the module.
#[derive(Default)]
pub struct Members {
    ids: RwLock<HashSet<DeviceId>>,
}

impl Members {
    /// Takes in what was written to the ledger.
    pub fn note(&self, device: &DeviceRecord) {
        // Whoever panicked while holding the lock left a whole set behind.
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        if device.left {
            ids.remove(&device.id)
        } else {
            ids.insert(device.id)
        };
    }

    /// Whether a device is enrolled and has not left.
    pub fn has(&self, device: DeviceId) -> bool {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).contains(&device)
    }
}
