//! Files that tell when they are read (inotify): a terminal is read when something was typed there.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};
use tokio::io::unix::AsyncFd;

/// Files and folders that are watched.
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
    paths: HashMap<i32, PathBuf>,
}

/// What has happened to watched files since they were last asked.
#[derive(Debug, Default, PartialEq)]
pub struct Happened {
    /// These were read.
    pub read: Vec<PathBuf>,
    /// Something came into a folder or went from there.
    pub listed: bool,
}

impl Watch {
    /// Nothing watched yet.
    #[expect(unsafe_code, reason = "tokio has no safe function for this any more")]
    pub fn new() -> io::Result<Self> {
        let socket = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` names the same open file for as long as it lives, and is closed only when it is dropped.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Watch { socket, paths: HashMap::new() })
    }

    /// Watches a file from now on; `false` where this user may not. Again for the same file changes nothing.
    pub fn file(&mut self, path: &Path) -> bool {
        self.add(path, WatchFlags::ACCESS | WatchFlags::ATTRIB)
    }

    /// Watches what a folder holds.
    pub fn folder(&mut self, path: &Path) -> bool {
        self.add(path, WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR)
    }

    fn add(&mut self, path: &Path, what: WatchFlags) -> bool {
        match inotify::add_watch(self.socket.get_ref(), path, what) {
            Ok(number) => {
                self.paths.insert(number, path.to_owned());
                true
            }
            Err(_) => false,
        }
    }

    /// Waits until something happens.
    pub async fn happens(&mut self) -> io::Result<Happened> {
        let mut ready = self.socket.readable().await?;
        let mut happened = Happened::default();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(ready.get_inner(), &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let flags = event.events();
                    if flags.contains(ReadFlags::IGNORED) {
                        self.paths.remove(&event.wd());
                    } else if flags.contains(ReadFlags::ACCESS) {
                        // The file may be known by a watch that was given up meanwhile.
                        happened.read.extend(self.paths.get(&event.wd()).cloned());
                    } else if flags.intersects(ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::QUEUE_OVERFLOW) {
                        happened.listed = true;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        ready.clear_ready();
        Ok(happened)
    }
}
