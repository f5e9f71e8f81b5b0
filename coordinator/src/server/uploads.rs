//! What is uploaded for which lease: one delta a lease, one upload of it at a time, and so many bytes a device and day
//! that come to nothing. What a lease leaves behind that was not merged goes with it. Time is an argument, and files
//! are others'.

use super::{
    bucket::{Buckets, Rate},
    news::News,
};
use crate::engine::record::LeaseRecord;
use nightjar_shared::{
    ids::{BlobHash, DeviceId, Generation, LeaseId},
    wire::{
        Refusal, RefusalAction, RefusalCode,
        limits::{ADDRESSES_MAX, UNMERGED_DELTAS_A_DAY, UPLOADS_DAMAGED_MAX},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// An open lease to train, and what came for it.
struct Open {
    device: DeviceId,
    generation: Generation,
    blob: Option<Uploaded>,
    /// What the device offered, which may have come for another lease.
    offered: Option<Uploaded>,
    is_writing: bool,
    /// Uploads of it that came to nothing.
    failures: u32,
}

impl Open {
    fn blobs(&self) -> impl Iterator<Item = &Uploaded> {
        self.blob.iter().chain(&self.offered)
    }

    fn blobs_mut(&mut self) -> impl Iterator<Item = &mut Uploaded> {
        self.blob.iter_mut().chain(&mut self.offered)
    }

    /// A blob gave its place to another; it may have the other place too.
    fn forget(&self, hash: BlobHash, lease: LeaseId, names: &mut BTreeSet<(BlobHash, LeaseId)>) {
        if self.blobs().all(|blob| blob.hash != hash) {
            names.remove(&(hash, lease));
        }
    }
}

struct Uploaded {
    hash: BlobHash,
    is_stored: bool,
    /// Whether it came for this lease, and was not there already.
    is_its_own: bool,
}

struct Inner {
    open: BTreeMap<LeaseId, Open>,
    /// Which open leases name a blob.
    names: BTreeSet<(BlobHash, LeaseId)>,
    /// Bytes a device and day.
    unmerged: Buckets<DeviceId>,
    /// What is to be removed, and is not yet.
    rubbish: BTreeSet<BlobHash>,
    /// Uploads on the disk that belonged to no open lease when they were last looked at.
    stray: BTreeSet<BlobHash>,
}

/// See the module.
pub struct Uploads {
    inner: Mutex<Inner>,
}

/// A blob that is wanted no longer, whole or in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rubbish {
    /// Its name.
    pub hash: BlobHash,
    /// Whether it is stored, or still an upload.
    pub is_stored: bool,
}

/// An upload under way; dropped, another may begin.
pub struct Writing {
    uploads: Arc<Uploads>,
    device: DeviceId,
    lease: LeaseId,
    /// Bytes that are paid for and have not come.
    missing: AtomicU64,
    hash: BlobHash,
}

impl Uploads {
    /// With leases that are open already. `delta_bytes_max` is the longest delta of the run.
    pub fn new<'a>(open: impl Iterator<Item = &'a LeaseRecord>, delta_bytes_max: u64) -> Self {
        let a_day = delta_bytes_max.saturating_mul(UNMERGED_DELTAS_A_DAY) as f64;
        let unmerged = Buckets::new(Rate { burst: a_day, per_s: a_day / 86_400.0 }, ADDRESSES_MAX);
        let mut inner = Inner {
            open: BTreeMap::new(),
            names: BTreeSet::new(),
            unmerged,
            rubbish: BTreeSet::new(),
            stray: BTreeSet::new(),
        };
        open.filter(|lease| lease.kind.trains()).for_each(|l| inner.opened(l.id, l.generation, l.device));
        Uploads { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked while holding the lock left whole maps behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was written to the ledger; what is rubbish now is to be removed, by [`Uploads::clear`].
    pub fn note(&self, news: &News) -> Vec<Rubbish> {
        let mut inner = self.lock();
        match news {
            News::LeaseOpened { id, generation, device } => inner.opened(*id, *generation, *device),
            News::DeltaMerged { device, delta } => {
                inner.unmerged.give_back(device, delta.bytes as f64);
                // Whoever uploaded it: from now on it is the ledger's.
                inner.rubbish.remove(&delta.hash);
                for lease in inner.naming(delta.hash) {
                    inner.named(lease, delta.hash).for_each(|blob| blob.is_its_own = false);
                }
            }
            News::LeaseClosed(id) => return inner.closed(*id),
            News::Member(_) | News::Published(_) | News::Revoked(_) => {}
        }
        vec![]
    }

    /// Ends all leases but these, of which this process had no news for a while. What was merged meanwhile is not known
    /// here, so that nothing is rubbish: what is left over is swept by the leader.
    pub fn end_all_but(&self, is_open: impl Fn(LeaseId) -> bool) {
        let Inner { open, names, .. } = &mut *self.lock();
        open.retain(|id, _| is_open(*id));
        names.retain(|(_, id)| is_open(*id));
    }

    /// A device offers a delta for its lease, and it is about to be read: from now on nobody clears it away.
    pub fn offered(&self, lease: LeaseId, hash: BlobHash) {
        let Inner { open, names, .. } = &mut *self.lock();
        if let Some(open) = open.get_mut(&lease)
            && names.insert((hash, lease))
            && let Some(before) = open.offered.replace(Uploaded { hash, is_stored: true, is_its_own: false })
        {
            open.forget(before.hash, lease, names);
        }
    }

    /// Removes what a lease left behind, unless it was merged meanwhile, or another lease names it: then it is that
    /// one's.
    pub fn clear<E>(&self, rubbish: Rubbish, remove: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        // Nobody else names it while its file goes.
        let mut inner = self.lock();
        if !inner.rubbish.remove(&rubbish.hash) {
            return Ok(());
        }
        if let Some(lease) = inner.naming(rubbish.hash).first() {
            inner.named(*lease, rubbish.hash).take(1).for_each(|heir| heir.is_its_own = true);
            return Ok(());
        }
        remove()
    }

    /// A device wants to upload a blob, of which so many bytes are still to come. What it began before under another
    /// name for this lease, and did not end, is rubbish.
    pub fn begin(
        self: &Arc<Self>,
        device: DeviceId,
        lease: LeaseId,
        hash: BlobHash,
        missing: u64,
        now: Instant,
    ) -> Result<(Writing, Option<Rubbish>), Refusal> {
        let gone = || Refusal::lease_gone("The lease has ended, or what was offered is no delta of this model.");
        let mut inner = self.lock();
        let Inner { open, names, unmerged, rubbish, .. } = &mut *inner;
        let its = open.get_mut(&lease).filter(|open| open.device == device).ok_or_else(gone)?;
        if its.is_writing {
            let sentence = "The same delta is being uploaded already.";
            return Err(Refusal::retry(RefusalCode::Busy, sentence, Duration::from_secs(1)));
        }
        let other = its.blob.as_ref().filter(|blob| blob.hash != hash);
        if other.is_some_and(|blob| blob.is_stored) {
            let sentence = "There is a delta for this lease already: a lease has one.";
            return Err(Refusal::with(RefusalCode::Limit, RefusalAction::DropLease, sentence));
        }
        let other = other.filter(|blob| blob.is_its_own).map(Uploaded::rubbish);
        unmerged.take(device, missing as f64, now).map_err(|wait| {
            let sentence = "This device has sent too many bytes of which nothing could be merged. It may go on later.";
            Refusal::retry(RefusalCode::Limit, sentence, wait.max(Duration::from_secs(60)))
        })?;
        rubbish.extend(other.map(|other| other.hash));
        its.is_writing = true;
        if its.blob.as_ref().is_none_or(|blob| blob.hash != hash) {
            names.insert((hash, lease));
            if let Some(before) = its.blob.replace(Uploaded { hash, is_stored: false, is_its_own: missing > 0 }) {
                its.forget(before.hash, lease, names);
            }
        }
        Ok((Writing { uploads: self.clone(), device, lease, missing: AtomicU64::new(missing), hash }, other))
    }

    /// Uploads that lie on the disk: those that have belonged to no open lease for two looks in a row are rubbish.
    /// After a start it is not known which lease they are of; a device that goes on with its own makes it known.
    pub fn strays(&self, on_disk: impl Iterator<Item = BlobHash>) -> Vec<BlobHash> {
        let mut inner = self.lock();
        let wanted: BTreeSet<BlobHash> = inner.open.values().filter_map(|o| o.blob.as_ref()).map(|b| b.hash).collect();
        let stray: BTreeSet<BlobHash> = on_disk.filter(|hash| !wanted.contains(hash)).collect();
        let (rubbish, stray): (BTreeSet<_>, BTreeSet<_>) =
            stray.into_iter().partition(|hash| inner.stray.contains(hash));
        inner.stray = stray;
        rubbish.into_iter().collect()
    }

    /// Uploads under way.
    pub fn under_way(&self) -> usize {
        self.lock().open.values().filter(|open| open.is_writing).count()
    }

    /// Whose an open lease to train is.
    pub fn device_of(&self, lease: LeaseId) -> Option<DeviceId> {
        self.lock().open.get(&lease).map(|open| open.device)
    }

    /// Whose an open lease is, and its generation, once its uploads have come to nothing too often.
    pub fn is_hopeless(&self, lease: LeaseId) -> Option<(DeviceId, Generation)> {
        let inner = self.lock();
        let open = inner.open.get(&lease).filter(|open| open.failures >= UPLOADS_DAMAGED_MAX)?;
        Some((open.device, open.generation))
    }
}

impl Uploaded {
    fn rubbish(&self) -> Rubbish {
        Rubbish { hash: self.hash, is_stored: self.is_stored }
    }
}

impl Inner {
    /// A lease has ended; gives back what it leaves behind.
    fn closed(&mut self, lease: LeaseId) -> Vec<Rubbish> {
        let Some(open) = self.open.remove(&lease) else { return vec![] };
        for blob in open.blobs() {
            self.names.remove(&(blob.hash, lease));
        }
        let left: Vec<Rubbish> = open.blobs().filter(|b| b.is_its_own).map(Uploaded::rubbish).collect();
        self.rubbish.extend(left.iter().map(|rubbish| rubbish.hash));
        left
    }

    /// Open leases that name a blob.
    fn naming(&self, hash: BlobHash) -> Vec<LeaseId> {
        self.names.range((hash, LeaseId(0))..=(hash, LeaseId(u64::MAX))).map(|(_, lease)| *lease).collect()
    }

    /// Where an open lease has a blob of this name.
    fn named(&mut self, lease: LeaseId, hash: BlobHash) -> impl Iterator<Item = &mut Uploaded> {
        self.open.get_mut(&lease).into_iter().flat_map(Open::blobs_mut).filter(move |blob| blob.hash == hash)
    }

    /// What is known already of a lease stays: a door hears of some twice.
    fn opened(&mut self, lease: LeaseId, generation: Generation, device: DeviceId) {
        let open = Open { device, generation, blob: None, offered: None, is_writing: false, failures: 0 };
        self.open.entry(lease).or_insert(open);
    }
}

impl Writing {
    /// The whole blob is stored. Where the lease has ended meanwhile, it is rubbish.
    pub fn stored(&self, was_there: bool) -> Option<Rubbish> {
        let mut inner = self.uploads.lock();
        let Some(blob) = inner.open.get_mut(&self.lease).and_then(|open| open.blob.as_mut()) else {
            return (!was_there).then(|| {
                inner.rubbish.insert(self.hash);
                Rubbish { hash: self.hash, is_stored: true }
            });
        };
        // Whoever sends it twice finds his own.
        blob.is_its_own &= blob.is_stored || !was_there;
        blob.is_stored = true;
        None
    }

    /// So many of its bytes have come.
    pub fn received(&self, bytes: u64) {
        let left = self.missing.load(Ordering::Relaxed).saturating_sub(bytes);
        self.missing.store(left, Ordering::Relaxed);
    }

    /// Its bytes were not those of its name.
    pub fn failed(&self) {
        if let Some(open) = self.uploads.lock().open.get_mut(&self.lease) {
            open.failures += 1;
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut inner = self.uploads.lock();
        // A line that breaks again and again sends no byte twice, and pays for none twice.
        inner.unmerged.give_back(&self.device, self.missing.load(Ordering::Relaxed) as f64);
        if let Some(open) = inner.open.get_mut(&self.lease) {
            open.is_writing = false;
            tracing::trace!(hash = %self.hash, "an upload has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{blob::BlobRef, ids::Version, lease::LeaseKind, time::Wall};

    const DEVICE: DeviceId = DeviceId([1; 32]);
    const DELTA_BYTES: u64 = 1000;

    fn lease(id: u64) -> LeaseRecord {
        LeaseRecord {
            id: LeaseId(id),
            generation: Generation(7),
            device: DEVICE,
            kind: LeaseKind::Train,
            base_version: Version(0),
            epoch: 0,
            shard: 0,
            first_sample: 0,
            samples: 4,
            steps: 1,
            issued_at: Wall::default(),
        }
    }

    fn closed(id: u64) -> News {
        News::LeaseClosed(LeaseId(id))
    }

    fn opened(id: u64) -> News {
        News::LeaseOpened { id: LeaseId(id), generation: Generation(7), device: DEVICE }
    }

    fn merged(hash: BlobHash) -> News {
        News::DeltaMerged { device: DEVICE, delta: BlobRef { hash, bytes: DELTA_BYTES } }
    }

    fn uploads(leases: &[u64]) -> Arc<Uploads> {
        let leases: Vec<LeaseRecord> = leases.iter().map(|id| lease(*id)).collect();
        Arc::new(Uploads::new(leases.iter(), DELTA_BYTES))
    }

    fn begin(uploads: &Arc<Uploads>, id: u64, name: u8) -> Result<(Writing, Option<Rubbish>), Refusal> {
        uploads.begin(DEVICE, LeaseId(id), BlobHash([name; 32]), DELTA_BYTES, Instant::now())
    }

    #[test]
    fn a_lease_has_one_delta_and_one_upload_at_a_time() {
        let uploads = uploads(&[1]);
        let (writing, _) = begin(&uploads, 1, 1).unwrap();
        assert_eq!(begin(&uploads, 1, 1).err().unwrap().code(), RefusalCode::Busy);
        drop(writing);
        // Another name takes the place of what was not ended.
        let (writing, rubbish) = begin(&uploads, 1, 2).unwrap();
        assert_eq!(rubbish, Some(Rubbish { hash: BlobHash([1; 32]), is_stored: false }));
        assert!(writing.stored(false).is_none());
        drop(writing);
        begin(&uploads, 1, 2).unwrap();
        for name in 3..100 {
            assert_eq!(begin(&uploads, 1, name).err().unwrap().action(), RefusalAction::DropLease);
        }
        assert!(begin(&uploads, 2, 1).is_err(), "no such lease");
        let stranger = uploads.begin(DeviceId([2; 32]), LeaseId(1), BlobHash([2; 32]), 1, Instant::now());
        assert_eq!(stranger.err().unwrap().code(), RefusalCode::LeaseGone);
    }

    #[test]
    fn what_a_lease_leaves_behind_goes_unless_the_ledger_names_it() {
        let uploads = uploads(&[1, 2, 3]);
        for id in [1, 2] {
            assert!(begin(&uploads, id, id as u8).unwrap().0.stored(false).is_none());
        }
        assert!(begin(&uploads, 2, 2).unwrap().0.stored(true).is_none(), "once more, the same");
        drop(begin(&uploads, 3, 3).unwrap());
        assert_eq!(uploads.note(&merged(BlobHash([1; 32]))), vec![]);
        assert_eq!(uploads.note(&closed(1)), vec![]);
        let rubbish = |hash, is_stored| vec![Rubbish { hash: BlobHash([hash; 32]), is_stored }];
        assert_eq!(uploads.note(&closed(2)), rubbish(2, true));
        assert_eq!(uploads.note(&closed(3)), rubbish(3, false));
    }

    #[test]
    fn a_delta_that_was_merged_for_another_lease_stays() {
        let uploads = uploads(&[1, 2]);
        assert!(begin(&uploads, 1, 9).unwrap().0.stored(false).is_none());
        uploads.note(&merged(BlobHash([9; 32])));
        uploads.note(&closed(2));
        assert_eq!(uploads.note(&closed(1)), vec![]);
        // One that was there before the lease came is not the lease's.
        uploads.note(&opened(3));
        assert!(begin(&uploads, 3, 9).unwrap().0.stored(true).is_none());
        assert_eq!(uploads.note(&closed(3)), vec![]);
    }

    /// What two leases name goes with neither's end while the other may yet be merged, and with the last one's.
    #[test]
    fn what_another_lease_names_is_left_to_it() {
        let (uploads, blob) = (uploads(&[1, 2]), BlobHash([9; 32]));
        assert!(begin(&uploads, 1, 9).unwrap().0.stored(false).is_none());
        let clear = |rubbish: Vec<Rubbish>| {
            let mut removed = vec![];
            for rubbish in rubbish {
                let remove = || {
                    removed.push(rubbish.hash);
                    Ok::<(), ()>(())
                };
                uploads.clear(rubbish, remove).unwrap();
            }
            removed
        };
        let left = uploads.note(&closed(1));
        assert_eq!(left.len(), 1);
        // It is offered for the other before it is removed.
        uploads.offered(LeaseId(2), blob);
        assert_eq!(clear(left), []);
        let left = uploads.note(&closed(2));
        // By now another merges it.
        uploads.note(&merged(blob));
        assert_eq!(clear(left), []);
        uploads.note(&opened(4));
        assert!(begin(&uploads, 4, 8).unwrap().0.stored(false).is_none());
        assert_eq!(clear(uploads.note(&closed(4))), [BlobHash([8; 32])]);
    }

    #[test]
    fn a_day_has_so_many_bytes_that_come_to_nothing() {
        let uploads = uploads(&[1]);
        let sends = |bytes| begin(&uploads, 1, 1).map(|(writing, _)| writing.received(bytes)).is_ok();
        for _ in 0..10 * UNMERGED_DELTAS_A_DAY {
            assert!(sends(0), "what did not come costs nothing");
        }
        let taken = (0..2 * UNMERGED_DELTAS_A_DAY).take_while(|_| sends(DELTA_BYTES)).count() as u64;
        assert_eq!(taken, UNMERGED_DELTAS_A_DAY);
        assert!(begin(&uploads, 1, 1).err().unwrap().retry_ms > 0);
        uploads.note(&merged(BlobHash([8; 32])));
        begin(&uploads, 1, 1).unwrap();
    }

    #[test]
    fn strays_go_at_the_second_look() {
        let uploads = uploads(&[1]);
        drop(begin(&uploads, 1, 1).unwrap());
        let on_disk = [1, 2, 3].map(|name| BlobHash([name; 32]));
        assert!(uploads.strays(on_disk.into_iter()).is_empty());
        assert_eq!(uploads.strays(on_disk.into_iter().take(2)), [BlobHash([2; 32])]);
        assert!(uploads.strays(on_disk.into_iter().skip(2)).is_empty(), "it was away for a look");
    }

    #[test]
    fn a_lease_whose_uploads_come_to_nothing_is_hopeless() {
        let uploads = uploads(&[1]);
        for _ in 0..UPLOADS_DAMAGED_MAX {
            assert_eq!(uploads.is_hopeless(LeaseId(1)), None);
            begin(&uploads, 1, 1).unwrap().0.failed();
        }
        assert_eq!(uploads.is_hopeless(LeaseId(1)), Some((DEVICE, Generation(7))));
    }
}
