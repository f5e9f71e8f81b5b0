//! The browser's own storage of files (OPFS), as a pool of open files that this worker alone has.

use super::pool::{Handle, Pool};
use crate::browser::{self, Refused};
use nightjar_shared::disk::Disk;
use std::{cell::RefCell, io, path::PathBuf};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions, FileSystemGetFileOptions,
    FileSystemReadWriteOptions, FileSystemSyncAccessHandle,
};

/// The folder of the pool's files in the storage of this page's origin. They are called by their numbers.
const FOLDER: &str = "nightjar";

thread_local! {
    /// Handles belong to the one thread that opened them; a [`Disk`] may be sent anywhere. So they stay here.
    static POOL: RefCell<Pool<OpenFile>> = RefCell::default();
}

struct OpenFile(FileSystemSyncAccessHandle);

fn failed(refused: JsValue) -> io::Error {
    let Refused { name, words } = Refused::of(&refused);
    let kind = if name == "QuotaExceededError" { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, format!("the browser's storage: {words}"))
}

fn at(offset: u64) -> FileSystemReadWriteOptions {
    let options = FileSystemReadWriteOptions::new();
    options.set_at(offset as f64);
    options
}

impl Handle for OpenFile {
    fn size(&self) -> io::Result<u64> {
        self.0.get_size().map(|size| size as u64).map_err(failed)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_with_u8_array_and_options(into, &at(offset)).map(|read| read as usize).map_err(failed)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.0.write_with_u8_array_and_options(bytes, &at(offset)).map_err(failed)?;
        if written as usize == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.truncate_with_f64(size as f64).map_err(failed)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush().map_err(failed)
    }
}

/// The files of this page's origin, as a disk: opened once in a worker, and then in that thread alone.
#[derive(Clone, Copy, Debug)]
pub struct OpfsDisk(());

impl OpfsDisk {
    /// Opens all files that earlier pages left. Fails where another page of this origin has them open.
    pub async fn open() -> io::Result<OpfsDisk> {
        let disk = OpfsDisk(());
        let folder = folder().await.map_err(failed)?;
        let mut opened = vec![];
        while let Some(file) = file(&folder, opened.len(), false).await.map_err(failed)? {
            opened.push(file);
        }
        POOL.with_borrow_mut(|pool| pool.add(opened))?;
        Ok(disk)
    }

    /// Opens more files, until so many can be made without waiting.
    pub async fn reserve(&self, files: usize) -> io::Result<()> {
        let (free, len) = POOL.with_borrow(|pool| (pool.free(), pool.len()));
        if free >= files {
            return Ok(());
        }
        let folder = folder().await.map_err(failed)?;
        for number in len..len + (files - free) {
            let opened = file(&folder, number, true).await.map_err(failed)?;
            POOL.with_borrow_mut(|pool| pool.add(opened))?;
        }
        Ok(())
    }
}

async fn folder() -> Result<FileSystemDirectoryHandle, JsValue> {
    let root: FileSystemDirectoryHandle =
        JsFuture::from(browser::scope().navigator().storage().get_directory()).await?.unchecked_into();
    let options = FileSystemGetDirectoryOptions::new();
    options.set_create(true);
    Ok(JsFuture::from(root.get_directory_handle_with_options(FOLDER, &options)).await?.unchecked_into())
}

/// A file of the pool; `None` where it is not there and not to be made.
async fn file(folder: &FileSystemDirectoryHandle, number: usize, make: bool) -> Result<Option<OpenFile>, JsValue> {
    let options = FileSystemGetFileOptions::new();
    options.set_create(make);
    let found = JsFuture::from(folder.get_file_handle_with_options(&number.to_string(), &options)).await;
    let found: FileSystemFileHandle = match found {
        Ok(found) => found.unchecked_into(),
        Err(refused) if Refused::of(&refused).name == "NotFoundError" => return Ok(None),
        Err(refused) => return Err(refused),
    };
    Ok(Some(OpenFile(JsFuture::from(found.create_sync_access_handle()).await?.unchecked_into())))
}

impl Disk for OpfsDisk {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        POOL.with_borrow(|pool| match pool.length(name)? {
            Some(_) => pool.read_at(name, 0, usize::MAX).map(Some),
            None => Ok(None),
        })
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        POOL.with_borrow(|pool| pool.read_at(name, offset, length))
    }

    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        POOL.with_borrow(|pool| pool.length(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        POOL.with_borrow_mut(|pool| pool.write(name, bytes))
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        POOL.with_borrow_mut(|pool| pool.write_at(name, offset, bytes))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        POOL.with_borrow(|pool| pool.sync(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        POOL.with_borrow_mut(|pool| pool.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        POOL.with_borrow_mut(|pool| pool.remove(name))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        Ok(POOL.with_borrow(|pool| pool.list(folder)))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}
