//! One sync of a folder for all who have renamed files into it meanwhile: a folder's sync covers whatever was done in it
//! before, whoever did it.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

#[derive(Default)]
struct State {
    /// Syncs that were begun, and the last that has succeeded.
    begun: u64,
    done: u64,
    is_running: bool,
}

#[derive(Default)]
struct Syncs {
    state: Mutex<State>,
    ended: Condvar,
}

/// By folder.
#[derive(Default)]
pub(super) struct FolderSyncs {
    folders: Mutex<HashMap<String, Arc<Syncs>>>,
}

impl FolderSyncs {
    /// Returns once a sync has succeeded that began after this call.
    pub fn sync(&self, folder: &str, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let folders = || self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let Syncs { state, ended } = &*folders().entry(folder.to_owned()).or_default().clone();
        // Whoever panicked left whole numbers behind.
        let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = lock();
        let wanted = now.begun + 1;
        while now.done < wanted {
            if now.is_running {
                now = ended.wait(now).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            now.begun += 1;
            now.is_running = true;
            let number = now.begun;
            drop(now);
            let synced = sync();
            now = lock();
            now.is_running = false;
            if synced.is_ok() {
                now.done = number;
            }
            ended.notify_all();
            synced?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    /// While one sync runs, all that come wait for the next, which is one for all of them.
    #[test]
    fn who_comes_during_a_sync_shares_the_next() {
        let (syncs, count) = (FolderSyncs::default(), AtomicU64::new(0));
        let (begin, begun) = mpsc::channel();
        let (go, may_end) = mpsc::channel::<()>();
        let may_end = Mutex::new(may_end);
        let held = || {
            count.fetch_add(1, Ordering::Relaxed);
            begin.send(()).unwrap();
            // Where the test has said all that it has to say, it may end.
            let _ = may_end.lock().unwrap().recv();
            Ok(())
        };
        std::thread::scope(|threads| {
            let first = threads.spawn(|| syncs.sync("blobs", held).unwrap());
            begun.recv().unwrap();
            let others: Vec<_> = (0..6).map(|_| threads.spawn(|| syncs.sync("blobs", held).unwrap())).collect();
            // All six wait: for the one that runs, which began before they came.
            let waiting = || syncs.folders.lock().unwrap().values().map(Arc::strong_count).sum::<usize>();
            while waiting() < 1 + 1 + 6 {
                std::thread::yield_now();
            }
            assert!(others.iter().all(|thread| !thread.is_finished()));
            go.send(()).unwrap();
            first.join().unwrap();
            begun.recv().unwrap();
            drop(go);
        });
        // One that had come, and had not looked yet when the second began, needs a third.
        assert!((2..=3).contains(&count.into_inner()));
    }

    #[test]
    fn a_sync_that_fails_is_not_taken_for_one() {
        let syncs = FolderSyncs::default();
        assert!(syncs.sync("blobs", || Err(io::ErrorKind::StorageFull.into())).is_err());
        let count = AtomicU64::new(0);
        let counted = || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        syncs.sync("blobs", counted).unwrap();
        assert_eq!(count.into_inner(), 1);
    }
}
