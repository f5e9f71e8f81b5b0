//! The texts that studies train and measure on, from a folder that the user names.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

/// Which texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corpus {
    /// 1.3 MB of one kind: `train.txt`, `valid.txt`; out of domain: `ood.txt`.
    #[default]
    Small,
    /// 27.6 MB of four kinds under `public-domain/`; out of domain: `ood_latin.txt`.
    PublicDomain,
}

/// A corpus in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpora {
    /// Text to train on, one a domain.
    pub train: Vec<Arc<[u8]>>,
    /// Held-out text of all domains.
    pub heldout: Arc<[u8]>,
    /// Text of another kind.
    pub ood: Arc<[u8]>,
    /// BLAKE3 of all of it, in hex.
    pub digest: String,
}

/// The folder, and what was read of it.
#[derive(Debug)]
pub struct Texts {
    folder: PathBuf,
    read: Mutex<BTreeMap<Corpus, Arc<Corpora>>>,
    /// Weights that were trained on them, by what they were trained as.
    pub(super) trained: Mutex<BTreeMap<String, Arc<[f32]>>>,
}

const DOMAINS: [&str; 4] = ["code_c", "literature", "speeches_law", "tech_docs"];

impl Texts {
    /// In this folder.
    pub fn new(folder: PathBuf) -> Self {
        Texts { folder, read: Mutex::default(), trained: Mutex::default() }
    }

    /// A corpus; read once.
    pub fn get(&self, corpus: Corpus) -> Result<Arc<Corpora>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = read.get(&corpus) {
            return Ok(there.clone());
        }
        let loaded = Arc::new(self.load(corpus)?);
        read.insert(corpus, loaded.clone());
        Ok(loaded)
    }

    fn load(&self, corpus: Corpus) -> Result<Corpora> {
        let (train, heldout, ood) = match corpus {
            Corpus::Small => (vec![self.file("train.txt")?], self.file("valid.txt")?, self.file("ood.txt")?),
            Corpus::PublicDomain => {
                let all = |kind: &str| -> Result<Vec<Vec<u8>>> {
                    DOMAINS.iter().map(|domain| self.file(&format!("public-domain/{kind}-{domain}.txt"))).collect()
                };
                (all("train")?, all("valid")?.concat(), self.file("ood_latin.txt")?)
            }
        };
        let mut hash = blake3::Hasher::new();
        for text in train.iter().chain([&heldout, &ood]) {
            hash.update(&(text.len() as u64).to_le_bytes()).update(text);
        }
        let digest = hash.finalize().to_hex()[..16].to_owned();
        let train = train.into_iter().map(Arc::from).collect();
        Ok(Corpora { train, heldout: heldout.into(), ood: ood.into(), digest })
    }

    /// A file, or what `xz` makes of the packed one beside it.
    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let (plain, packed) = (self.folder.join(name), self.folder.join(format!("{name}.xz")));
        if plain.exists() || !packed.exists() {
            return fs::read(&plain).with_context(|| format!("no text {} (--data names the folder)", plain.display()));
        }
        let unpacked =
            Command::new("xz").args(["-dc"]).arg(&packed).output().context("xz is needed to unpack texts")?;
        ensure!(unpacked.status.success(), "xz cannot unpack {}", packed.display());
        Ok(unpacked.stdout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_is_known_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("train.txt", "abc"), ("valid.txt", "de"), ("ood.txt", "f")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let digest = || Texts::new(folder.path().to_owned()).get(Corpus::Small).map(|c| c.digest.clone());
        let first = digest().unwrap();
        assert_eq!(digest().unwrap(), first);
        fs::write(folder.path().join("train.txt"), "abd").unwrap();
        assert_ne!(digest().unwrap(), first);
        // The same letters, cut elsewhere.
        fs::write(folder.path().join("train.txt"), "ab").unwrap();
        fs::write(folder.path().join("valid.txt"), "cde").unwrap();
        assert_ne!(digest().unwrap(), first);
        fs::remove_file(folder.path().join("ood.txt")).unwrap();
        assert!(digest().unwrap_err().to_string().contains("--data"));
    }
}
