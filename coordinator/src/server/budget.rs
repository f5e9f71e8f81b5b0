//! Memory for what travels: all blobs and messages under way are paid for from one budget, so what devices hold of it
//! is bounded however many there are.

use super::subnet::Subnet;
use nightjar_shared::wire::limits::{BUFFER_BYTES_MAX, BUFFER_SHARE_OF_ADDRESS, ROOM_S_MAX};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The budget is counted in units of so many bytes.
const UNIT_BYTES: u32 = 1 << 10;

/// No memory in time.
#[derive(Debug)]
pub struct NoRoom;

/// Bytes of memory for what travels.
#[derive(Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    /// All of it.
    limit_bytes: usize,
    /// What each address has taken for blobs, and may at most, in bytes.
    by_subnet: Arc<Mutex<HashMap<Subnet, u64>>>,
    of_subnet: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(BUFFER_BYTES_MAX)
    }
}

impl Budget {
    /// So many bytes.
    pub fn of(bytes: usize) -> Self {
        let units = Arc::new(Semaphore::new(bytes / UNIT_BYTES as usize));
        Budget {
            units,
            limit_bytes: bytes,
            by_subnet: Arc::default(),
            of_subnet: (bytes / BUFFER_SHARE_OF_ADDRESS) as u64,
        }
    }

    /// How much of it there is.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// How much of it is taken.
    pub fn used_bytes(&self) -> usize {
        self.limit_bytes.saturating_sub(self.units.available_permits() * UNIT_BYTES as usize)
    }

    /// Takes some of it for a blob, of the address's share. `None` if that is used up, or if it takes too long.
    pub async fn take_for(&self, subnet: Subnet, bytes: u32) -> Option<Share> {
        let mut share = self.reserve(subnet, bytes.into())?;
        share.paid = Some(self.take(bytes).await?);
        Some(share)
    }

    fn reserve(&self, subnet: Subnet, bytes: u64) -> Option<Share> {
        let mut by_subnet = self.lock();
        let taken = by_subnet.get(&subnet).copied().unwrap_or(0) + bytes;
        if taken > self.of_subnet && !subnet.is_this_machine() {
            return None;
        }
        by_subnet.insert(subnet, taken);
        Some(Share { budget: self.clone(), subnet, bytes, paid: None })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subnet, u64>> {
        // Counts are whole after any panic.
        self.by_subnet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some of it, once there is room; `None` if that takes too long.
    pub async fn take(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let units = self.units.clone().acquire_many_owned(bytes.div_ceil(UNIT_BYTES));
        // The semaphore is never closed.
        timeout(Duration::from_secs(ROOM_S_MAX), units).await.ok()?.ok()
    }

    /// Takes what a message of so many bytes needs.
    pub async fn for_message(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, NoRoom> {
        if bytes <= SMALL_MESSAGE_BYTES {
            return Ok(None);
        }
        self.take(bytes as u32).await.map(Some).ok_or(NoRoom)
    }
}

/// A part of an address's share.
pub struct Share {
    budget: Budget,
    subnet: Subnet,
    bytes: u64,
    paid: Option<OwnedSemaphorePermit>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.paid = None;
        let mut by_subnet = self.budget.lock();
        if let Some(taken) = by_subnet.get_mut(&self.subnet) {
            *taken -= self.bytes;
            if *taken == 0 {
                by_subnet.remove(&self.subnet);
            }
        }
    }
}

/// Messages up to so many bytes are not counted one by one: they are paid for with the connection.
const SMALL_MESSAGE_BYTES: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of it without waiting for anything.
    async fn at_once<T>(work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn all_that_travels_is_paid_for_from_one_budget() {
        let budget = Budget::of(16 << 10);
        let message = budget.for_message(12 << 10).await.unwrap();
        assert!(message.is_some());
        assert!(at_once(budget.take(6 << 10)).await.is_none(), "it waits until there is room");
        assert!(at_once(budget.take(4 << 10)).await.flatten().is_some());
        let small = at_once(budget.for_message(SMALL_MESSAGE_BYTES)).await.expect("it waits for nothing").unwrap();
        assert!(small.is_none(), "it is paid for with the connection");
        drop(message);
        assert!(at_once(budget.take(16 << 10)).await.flatten().is_some(), "what has arrived gives its room back");
    }

    #[tokio::test]
    async fn one_address_takes_a_part_of_it() {
        let budget = Budget::of(16 << 10);
        let [slow, other] = [1, 2].map(|n| Subnet::of([192, 0, 2, n].into()));
        let share = budget.take_for(slow, 4 << 10).await.unwrap();
        assert!(at_once(budget.take_for(slow, 1)).await.expect("it waits for nothing").is_none());
        assert!(budget.take_for(other, 4 << 10).await.is_some());
        drop(share);
        assert!(budget.take_for(slow, 4 << 10).await.is_some());
        assert!(budget.lock().is_empty(), "of those who hold nothing nothing is kept");
        let here = Subnet::of([127, 0, 0, 1].into());
        assert!(budget.take_for(here, 16 << 10).await.is_some());
    }
}
