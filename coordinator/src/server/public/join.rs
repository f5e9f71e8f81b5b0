//! The page that makes a browser a device, as `cargo xtask web` wrote it, under `/join/` of the public page. Its files
//! are read once, at the start. Beside them it finds the coordinator's statement of its certificates, as any other
//! place that serves the page may have it too.

use crate::server::{clock::wall_now, context::Context};
use axum::body::Bytes;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where it is.
pub const PATH: &str = "/join/";
/// The statement's file. It is of the moment.
pub const CERTIFICATES: &str = "certificates";
/// What the page may do: run its own program, and connect to coordinators, nothing else.
pub const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
                          style-src 'self'; img-src 'self'; manifest-src 'self'; connect-src 'self' https:; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'none'";
/// Files of a page, and bytes in all.
const FILES_MAX: usize = 64;
const BYTES_MAX: usize = 16 << 20;
/// Compressed beforehand, beside the file.
const BROTLI: &str = ".br";

/// A page that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The folder.
    #[error("the page for browsers cannot be read from {folder}: {error}; `cargo xtask web` builds it, and says where")]
    Read {
        /// Where.
        folder: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// It holds something else.
    #[error("{0} is not the page for browsers: {1}; give the folder that `cargo xtask web` wrote")]
    NotThePage(PathBuf, &'static str),
}

/// The files, by their names.
pub struct PageFiles(BTreeMap<String, Bytes>);

/// A file as it is sent.
pub struct Sent {
    /// What it is.
    pub kind: &'static str,
    /// Its bytes.
    pub body: Bytes,
    /// Whether they are compressed.
    pub is_brotli: bool,
}

/// What the page consists of; the compressed ones beside.
fn kind(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    Some(match ending {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "wasm" => "application/wasm",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        _ => return None,
    })
}

impl PageFiles {
    /// Reads them.
    pub fn open(folder: &Path) -> Result<Self, JoinError> {
        let failed = |error| JoinError::Read { folder: folder.to_owned(), error };
        let not = |why| JoinError::NotThePage(folder.to_owned(), why);
        let (mut files, mut bytes) = (BTreeMap::new(), 0);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_of_page = kind(name.strip_suffix(BROTLI).unwrap_or(&name)).is_some();
            let about = entry.metadata().map_err(failed)?;
            if !is_of_page || !about.is_file() {
                continue;
            }
            bytes += about.len() as usize;
            if files.len() == FILES_MAX || bytes > BYTES_MAX {
                return Err(not("it holds more, or larger files, than a page has"));
            }
            files.insert(name, fs::read(entry.path()).map_err(failed)?.into());
        }
        let has_all = ["index.html", "nightjar_web_bg.wasm"].iter().all(|name| files.contains_key(*name));
        if has_all { Ok(PageFiles(files)) } else { Err(not("index.html or nightjar_web_bg.wasm is missing")) }
    }

    /// The file of a name; `takes_brotli`: whoever asks can unpack it.
    fn get(&self, name: &str, takes_brotli: bool) -> Option<Sent> {
        let name = if name.is_empty() { "index.html" } else { name };
        let (kind, plain) = (kind(name)?, self.0.get(name)?);
        let packed = self.0.get(&format!("{name}{BROTLI}")).filter(|_| takes_brotli);
        Some(Sent { kind, body: packed.unwrap_or(plain).clone(), is_brotli: packed.is_some() })
    }
}

/// The page, with what it is to know of the coordinator.
pub struct Join {
    /// Its files.
    pub files: Arc<PageFiles>,
    /// Whose it is.
    pub context: Arc<Context>,
}

impl Join {
    /// What is at a path below [`PATH`].
    pub fn get(&self, name: &str, takes_brotli: bool) -> Option<Sent> {
        if name != CERTIFICATES {
            return self.files.get(name, takes_brotli);
        }
        let hashes = self.context.web.as_ref()?.hashes(wall_now()).ok()?;
        let body = self.context.identity.seal_certificates(&hashes).into();
        Some(Sent { kind: "application/octet-stream", body, is_brotli: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_is_read_and_only_its_files_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert!(matches!(PageFiles::open(&folder.path().join("none")), Err(JoinError::Read { .. })));
        write("index.html", "<p>");
        assert!(matches!(PageFiles::open(folder.path()), Err(JoinError::NotThePage(..))));
        for (name, text) in
            [("nightjar_web_bg.wasm", "plain"), ("nightjar_web_bg.wasm.br", "packed"), ("secret.key", "s")]
        {
            write(name, text);
        }
        let files = PageFiles::open(folder.path()).unwrap();
        let get = |name, brotli| files.get(name, brotli).map(|sent| (sent.kind, sent.body, sent.is_brotli));
        assert_eq!(get("", true), Some(("text/html; charset=utf-8", "<p>".into(), false)));
        assert_eq!(get("nightjar_web_bg.wasm", true), Some(("application/wasm", "packed".into(), true)));
        assert_eq!(get("nightjar_web_bg.wasm", false), Some(("application/wasm", "plain".into(), false)));
        for name in ["secret.key", "nightjar_web_bg.wasm.br", "../index.html", "other.html"] {
            assert_eq!(get(name, true), None, "{name}");
        }
    }
}
