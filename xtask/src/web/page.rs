//! The page's folder, as any place can serve it: what the browser runs, what it shows, and what the service worker
//! keeps.

use super::{GLUE, MODULE};
use crate::setup::in_path;
use anyhow::{Context, Result, bail};
use std::{fmt::Write as _, fs, path::Path, process::Command};

/// Files that the page shares with the volunteer's page of the native client: one look, one way to word things.
const SHARED: [&str; 2] = ["style.css", "words.js"];
/// What the service worker imports: the files that belong together, and a name for this set of them.
const LIST: &str = "files.js";

/// Puts the page together from its sources and from `pkg`, where its program and the glue to it are.
pub fn assemble(root: &Path, pkg: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let own = fs::read_dir(root.join("client/web/page"))?.map(|entry| Ok(entry?.path()));
    let shared = SHARED.map(|name| Ok(root.join("client/agent/src/page").join(name)));
    let built = [GLUE, MODULE].map(|name| Ok(pkg.join(name)));
    let sources: Vec<_> = own.chain(shared).chain(built).collect::<Result<_>>()?;
    let mut files = vec![];
    for source in sources {
        let name = source.file_name().and_then(|name| name.to_str()).context("a file of the page has a plain name")?;
        let bytes = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        fs::write(to.join(name), &bytes)?;
        files.push((name.to_owned(), bytes));
    }
    files.sort();
    fs::write(to.join(LIST), list(&files))?;
    compress(to)
}

/// The list, and as its version a hash of all that is in it. The service worker itself is not: a browser looks by
/// itself whether there is a newer one.
fn list(files: &[(String, Vec<u8>)]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a: nobody is to be kept from finding another of the same
    let kept = files.iter().filter(|(name, _)| name != "service-worker.js");
    let mut names = String::new();
    for (name, bytes) in kept {
        for byte in name.bytes().chain(bytes.iter().copied()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        let _ = write!(names, "'{name}', "); // a text takes all
    }
    format!(
        "// Written by `cargo xtask web`.\nexport const VERSION = '{hash:016x}';\nexport const FILES = ['./', {names}];\n"
    )
}

/// Compresses what is large, where the tool for it is installed; whoever serves the page may do so too.
fn compress(folder: &Path) -> Result<()> {
    let Some(brotli) = in_path("brotli") else {
        println!("web: without brotli (package brotli) the page is served as it is");
        return Ok(());
    };
    for name in [MODULE, GLUE, "style.css"] {
        let packed = Command::new(&brotli).args(["--best", "--force", "--keep"]).arg(folder.join(name)).status()?;
        if !packed.success() {
            bail!("brotli failed on {name}");
        }
    }
    Ok(())
}
