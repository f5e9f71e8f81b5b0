//! Every test run goes through these: each reader on its seeds and on whatever the fuzzer has found. So each finding stays
//! mended, without a fuzzer. It is included by the tests of the crates whose readers are tried.

use crate::target::Target;
use nightjar_shared::rng;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn folder(name: &str) -> PathBuf {
    // Of a file that is included elsewhere, the path is that of whoever includes it.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|folder| folder.join("fuzz/seeds").is_dir()).expect("the repository");
    root.join("fuzz").join(name)
}

/// The files for a target, by name; none where there is no such folder.
fn files(folder_name: &str, target: &Target) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder(folder_name).join(target.name)).into_iter().flatten().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Runs each on all that there is for it, cut short and changed too.
pub fn all_keep_their_promises(targets: &[Target]) {
    for target in targets {
        let seeds = files("seeds", target);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        assert!(target.memory(target.bytes_max) <= 512 << 20, "{} has a bound that bounds nothing", target.name);
        for (name, bytes) in seeds.into_iter().chain(files("found", target)) {
            assert!(bytes.len() <= target.bytes_max, "{}/{name} is longer than what is tried", target.name);
            println!("{} {name}", target.name);
            (target.run)(&bytes);
            // As it comes over a line that is cut, and over one that changes bytes.
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
                (target.run)(&bytes[..at]);
            }
            for n in 0..tries() {
                (target.run)(&changed(&bytes, n));
            }
        }
    }
}

/// Changes that are tried of each input: a blind fuzzer, for systems that libFuzzer is not on. `NIGHTJAR_TRIES` asks for
/// more.
fn tries() -> u64 {
    std::env::var("NIGHTJAR_TRIES").map_or(100, |tries| tries.parse().expect("a number of tries"))
}

/// A few bytes flipped, set to what is next to an edge, left out, or said twice.
fn changed(bytes: &[u8], n: u64) -> Vec<u8> {
    const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
    let mut changed = bytes.to_vec();
    let draw = |k: u64, below: usize| (rng::draw(n, bytes.len() as u64, k) % below.max(1) as u64) as usize;
    for k in (0..=draw(0, 6) as u64).map(|k| 4 * k + 1) {
        let at = draw(k, changed.len());
        let end = (at + draw(k + 1, 9)).min(changed.len());
        match draw(k + 2, 4) {
            _ if at == changed.len() => changed.push(0),
            0 => changed[at] ^= 1 << draw(k + 3, 8),
            1 => changed[at] = EDGES[draw(k + 3, EDGES.len())],
            2 => drop(changed.drain(at..end)),
            _ => {
                let again = changed[at..end].to_vec();
                changed.splice(at..at, again);
            }
        }
    }
    changed
}

/// The seeds with a number for a name are made by code, of values of ours; `NIGHTJAR_WRITE_DOCS=1` writes them again. The
/// others were found.
pub fn seeds_are_those_that_are_made(targets: &[Target]) {
    for target in targets {
        let made: BTreeMap<String, Vec<u8>> = (0..).map(|n: usize| n.to_string()).zip((target.seeds)()).collect();
        if std::env::var_os("NIGHTJAR_WRITE_DOCS").is_some() {
            let folder = folder("seeds").join(target.name);
            fs::create_dir_all(&folder).unwrap();
            made.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        }
        let mut stored = files("seeds", target);
        stored.retain(|name, _| name.parse::<usize>().is_ok());
        assert!(
            stored == made,
            "fuzz/seeds/{}: NIGHTJAR_WRITE_DOCS=1 cargo test --test decoders writes them",
            target.name
        );
    }
}
