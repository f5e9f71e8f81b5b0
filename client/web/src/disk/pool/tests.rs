//! The pool over files that crash: what was not flushed is there in part, in any order, torn anywhere.

use super::*;
use nightjar_shared::rng;
use std::{cell::RefCell, rc::Rc};

enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    /// What the next flush makes durable, and the bytes as they were before it.
    pending: Vec<Change>,
    durable: Vec<u8>,
}

/// A disk of such files, on which nothing works any more after so many operations.
#[derive(Default)]
struct Storage {
    files: RefCell<Vec<Stored>>,
    operations_left: RefCell<Option<u32>>,
}

#[derive(Clone)]
struct Fragile {
    storage: Rc<Storage>,
    file: usize,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, new) => {
            let end = *at as usize + new.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at as usize..end].copy_from_slice(new);
        }
        Change::Truncate(size) => bytes.resize(*size as usize, 0),
    }
}

impl Storage {
    fn with(files: usize) -> Rc<Self> {
        let storage = Storage::default();
        storage.files.borrow_mut().resize_with(files, Stored::default);
        Rc::new(storage)
    }

    fn open(self: &Rc<Self>) -> Pool<Fragile> {
        let count = self.files.borrow().len();
        let mut pool = Pool::default();
        pool.add((0..count).map(|file| Fragile { storage: self.clone(), file })).unwrap();
        pool
    }

    fn dies_after(&self, operations: Option<u32>) {
        *self.operations_left.borrow_mut() = operations;
    }

    /// Keeps of what was not flushed what chance says: each change whole, in part, or not at all.
    fn crash(&self, seed: u64) {
        for (n, file) in (0..).zip(self.files.borrow_mut().iter_mut()) {
            let mut bytes = file.durable.clone();
            for (m, change) in (0..).zip(&file.pending) {
                match (rng::draw(seed, n, m) % 3, change) {
                    (0, _) => {}
                    (1, Change::Write(at, new)) => {
                        let kept = rng::draw(seed, n, m + 1000) as usize % (new.len() + 1);
                        apply(&mut bytes, &Change::Write(*at, new[..kept].to_vec()));
                    }
                    _ => apply(&mut bytes, change),
                }
            }
            file.pending.clear();
            (file.durable, file.bytes) = (bytes.clone(), bytes);
        }
        self.dies_after(None);
    }
}

impl Fragile {
    fn operation(&self) -> io::Result<std::cell::RefMut<'_, Stored>> {
        if let Some(left) = &mut *self.storage.operations_left.borrow_mut() {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        }
        Ok(std::cell::RefMut::map(self.storage.files.borrow_mut(), |files| &mut files[self.file]))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut file = self.operation()?;
        apply(&mut file.bytes, &change);
        file.pending.push(change);
        Ok(())
    }
}

impl Handle for Fragile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.operation()?.bytes.len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.operation()?;
        let from = file.bytes.get(at as usize..).unwrap_or_default();
        let read = from.len().min(into.len());
        into[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(Change::Write(at, bytes.to_vec()))
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.change(Change::Truncate(size))
    }

    fn flush(&self) -> io::Result<()> {
        let mut file = self.operation()?;
        file.pending.clear();
        file.durable = file.bytes.clone();
        Ok(())
    }
}

fn whole(pool: &Pool<Fragile>, name: &str) -> Option<Vec<u8>> {
    let bytes = pool.length(name).unwrap()?;
    Some(pool.read_at(name, 0, bytes as usize).unwrap())
}

#[test]
fn files_are_kept_under_their_names() {
    let storage = Storage::with(4);
    let mut pool = storage.open();
    pool.write("journal.json", b"one").unwrap();
    pool.write("journal.json", b"second").unwrap();
    pool.write_at("blobs/a.new", 0, b"hello").unwrap();
    pool.write_at("blobs/a.new", 3, b"p!").unwrap();
    pool.sync("blobs/a.new").unwrap();
    pool.rename("blobs/a.new", "blobs/a").unwrap();
    let mut again = storage.open();
    for pool in [&mut pool, &mut again] {
        assert_eq!(whole(pool, "journal.json").unwrap(), b"second");
        assert_eq!(pool.read_at("blobs/a", 2, 100).unwrap(), b"lp!");
        assert_eq!((pool.list("blobs"), pool.list("")), (vec!["a".to_owned()], vec!["journal.json".to_owned()]));
        assert_eq!((pool.free(), pool.len()), (2, 4));
    }
    again.remove("blobs/a").unwrap();
    again.remove("blobs/a").unwrap();
    assert_eq!((again.length("blobs/a").unwrap(), again.free()), (None, 3));
    assert_eq!(again.read_at("blobs/a", 0, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    for n in 0..3 {
        again.write(&format!("{n}"), b"").unwrap();
    }
    assert_eq!(again.write("one more", b"").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(again.write(&"x".repeat(256), b"").is_err() && again.rename("0", "").is_err());
}

/// Wherever it is cut, what was promised holds: a replaced file is old or new, and what was acknowledged is there.
#[test]
fn a_crash_between_any_two_operations_breaks_no_promise() {
    let (mut cut, mut kept_old, mut kept_new) = (0, 0, 0);
    for dies_after in 0..60 {
        for seed in 0..40 {
            let storage = Storage::with(6);
            let mut pool = storage.open();
            pool.write("journal", b"old").unwrap();
            pool.write("blob", &[7; 9000]).unwrap();
            storage.dies_after(Some(dies_after));
            let mut steps: Vec<&str> = vec![];
            let done = (|| {
                pool.write("journal", &[1; 6000])?;
                steps.push("written");
                pool.write_at("part", 0, &[2; 5000])?;
                pool.sync("part")?;
                steps.push("synced");
                pool.rename("part", "blob")?;
                steps.push("renamed");
                pool.remove("journal")?;
                pool.write("other", b"other")?;
                steps.push("other");
                io::Result::Ok(())
            })();
            cut += u32::from(done.is_err());
            storage.crash(seed);
            let pool = storage.open();
            let told = format!("after {dies_after}, seed {seed}: {steps:?}");
            match whole(&pool, "journal") {
                Some(journal) if journal == b"old" => {
                    assert!(!steps.contains(&"written"), "{told}");
                    kept_old += 1;
                }
                Some(journal) => {
                    assert_eq!(journal, [1; 6000], "{told}");
                    kept_new += 1;
                }
                None => assert!(steps.contains(&"renamed"), "{told}"),
            }
            let blob = whole(&pool, "blob").unwrap();
            assert!(blob == [2; 5000] || (blob == [7; 9000] && !steps.contains(&"renamed")), "{told}");
            let is_kept = [whole(&pool, "part"), Some(blob)].iter().flatten().any(|bytes| *bytes == [2; 5000]);
            assert!(is_kept || !steps.contains(&"synced"), "under one name or the other: {told}");
            let other = whole(&pool, "other");
            assert!(
                other.is_none() && !steps.contains(&"other") || other.is_some_and(|other| other == b"other"),
                "{told}"
            );
            assert_eq!(pool.free() + pool.list("").len(), 6, "no file is lost: {told}");
        }
    }
    assert!(cut > 500 && kept_old > 50 && kept_new > 50, "what matters came up: {cut} {kept_old} {kept_new}");
}
