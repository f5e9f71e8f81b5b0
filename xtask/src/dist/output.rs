//! Where packages go: a folder that is empty or holds an earlier release of ours, which is told by its manifest. At the
//! end it holds the packages, SHA256SUMS as `sha256sum -c` reads it, and manifest.json.

use super::release::Release;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const MANIFEST: &str = "manifest.json";
const SUMS: &str = "SHA256SUMS";
/// How a folder of ours is known.
const MADE_BY: &str = "cargo xtask dist";

pub struct Output {
    folder: PathBuf,
    artefacts: Vec<Artefact>,
}

/// A file that is handed out.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Artefact {
    pub file: String,
    /// The package that it holds or describes.
    pub package: String,
    /// Such as deb, rpm, archlinux, archive, oci, cyclonedx.
    pub format: String,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    made_by: String,
    version: String,
    time: String,
    artefacts: Vec<Artefact>,
}

impl Output {
    /// Opens a folder and clears an earlier release away.
    pub fn open(folder: PathBuf) -> Result<Output> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let earlier: Option<Manifest> =
            fs::read_to_string(folder.join(MANIFEST)).ok().and_then(|text| serde_json::from_str(&text).ok());
        match earlier.filter(|manifest| manifest.made_by == MADE_BY) {
            Some(manifest) => {
                let listed = manifest.artefacts.iter().map(|artefact| artefact.file.as_str());
                for file in listed.chain([SUMS, MANIFEST]).filter(|file| !file.contains(['/', '\\'])) {
                    let _ = fs::remove_file(folder.join(file));
                }
            }
            None => ensure!(
                fs::read_dir(&folder)?.next().is_none(),
                "{} holds something else than packages: name an empty folder, or a new one, with --out",
                folder.display()
            ),
        }
        // Broken off, it is known again.
        let output = Output { folder, artefacts: vec![] };
        output.write_manifest("", "")?;
        Ok(output)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a file of this name goes, before it is written.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Takes a file, which lies in the folder, into the release.
    pub fn add(&mut self, file: &str, package: &str, format: &str) -> Result<()> {
        let path = self.path(file);
        let bytes = fs::metadata(&path).with_context(|| format!("{} was not made", path.display()))?.len();
        let artefact = Artefact {
            file: file.to_owned(),
            package: package.to_owned(),
            format: format.to_owned(),
            bytes,
            sha256: sha256_of(&path)?,
        };
        println!("     {file}  {:.1} MB", bytes as f64 / 1e6);
        self.artefacts.push(artefact);
        Ok(())
    }

    /// Writes a small file and takes it into the release.
    pub fn write(&mut self, file: &str, text: &str, package: &str, format: &str) -> Result<()> {
        fs::write(self.path(file), text)?;
        self.add(file, package, format)
    }

    pub fn artefacts(&self) -> &[Artefact] {
        &self.artefacts
    }

    /// The file of a package in a format.
    pub fn of(&self, package: &str, format: &str) -> Option<&Artefact> {
        self.artefacts.iter().find(|artefact| artefact.package == package && artefact.format == format)
    }

    /// Writes the hashes and the manifest.
    pub fn conclude(&mut self, release: &Release) -> Result<()> {
        self.artefacts.sort_by(|a, b| a.file.cmp(&b.file));
        let lines = self.artefacts.iter().map(|artefact| format!("{}  {}\n", artefact.sha256, artefact.file));
        fs::write(self.path(SUMS), lines.collect::<String>())?;
        self.write_manifest(&release.version, &release.moment())?;
        println!("dist: {} files of version {} in {}", self.artefacts.len(), release.version, self.folder.display());
        Ok(())
    }

    fn write_manifest(&self, version: &str, time: &str) -> Result<()> {
        let manifest = Manifest {
            made_by: MADE_BY.to_owned(),
            version: version.to_owned(),
            time: time.to_owned(),
            artefacts: self.artefacts.clone(),
        };
        Ok(fs::write(self.path(MANIFEST), format!("{}\n", serde_json::to_string_pretty(&manifest)?))?)
    }
}

/// The hash of a file, as 64 digits.
pub fn sha256_of(file: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(file)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of cargo's target folder, emptied.
pub fn emptied(folder: &Path) -> Result<PathBuf> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot empty {}", folder.display()))?
        }
        _ => fs::create_dir_all(folder)?,
    }
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_of_ours_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut output = Output::open(out.clone()).unwrap();
        output.write("a.deb", "a package", "nightjar", "deb").unwrap();
        output.conclude(&Release::of("1.0.0")).unwrap();
        let sums = fs::read_to_string(out.join(SUMS)).unwrap();
        let hash = "c0cd5ccfdb563a59366e33e73001b78fdb8cca5a6c48e2f90fffcde44b81f1f6";
        assert_eq!(sums, format!("{hash}  a.deb\n"), "as sha256sum says it");
        fs::write(out.join("thesis.txt"), "mine").unwrap();
        Output::open(out.clone()).unwrap();
        let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.contains(&"thesis.txt".into()) && !left.contains(&"a.deb".into()), "{left:?}");
        let told = Output::open(folder.path().to_owned()).err().unwrap().to_string();
        assert!(told.contains("--out"), "{told}");
    }
}
