//! The programs that are packed: built once in the profile `dist`, or taken from a folder; and what they say of
//! themselves: their version, their manual's pages, what shells complete.

use super::{
    output,
    product::Package,
    release::{OWN, Release},
};
use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Shells that complete the programs' commands.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

pub struct Program {
    pub package: &'static Package,
    /// Stripped.
    pub file: PathBuf,
    /// Names and texts.
    pub pages: Vec<(String, Vec<u8>)>,
    /// One for each of `SHELLS`.
    pub completions: Vec<String>,
}

/// Builds what is packed; gives back the folder that it lies in. The builder's own paths stay out of the programs.
pub fn build(packages: &[&Package], target: &Path, children: &Children) -> Result<PathBuf> {
    let cargo_home =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let cargo_home = cargo_home.context("this user has no home folder, and CARGO_HOME is not set")?;
    let flags = [(cargo_home.as_path(), "/cargo"), (root()?.as_path(), "/nightjar")]
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let mut build = cargo();
    build.args(["build", "--locked", "--profile", "dist"]).current_dir(root()?);
    for package in packages {
        build.args(["--package", package.name]);
    }
    // Unlike RUSTFLAGS it takes paths with spaces.
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    ensure!(children.run("cargo", &mut build)?.success(), "the build failed; see above");
    Ok(target.join("dist"))
}

impl Program {
    /// Takes a program from a folder, and has it say what belongs into its package.
    pub fn take(
        package: &'static Package,
        folder: &Path,
        work: &Path,
        release: &Release,
        children: &Children,
    ) -> Result<Program> {
        let from = folder.join(package.name);
        ensure!(from.is_file(), "{} has no {}: build it there, or leave --from out", folder.display(), package.name);
        let file = output::emptied(&work.join("programs").join(package.name))?.join(package.name);
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&file).arg(&from);
        children.output("strip", &mut strip)?;
        let say = |words: &[&str]| children.output(package.name, Command::new(&file).args(words));
        let version = say(&["--version"])?;
        ensure!(
            version.trim() == format!("{} {OWN}", package.name),
            "{} says that it is {}, and this is {}",
            from.display(),
            version.trim(),
            release.version
        );
        let folder = output::emptied(&work.join("man").join(package.name))?;
        say(&["man", &folder.display().to_string()])?;
        let mut pages = vec![];
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            pages.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
        }
        pages.sort();
        let completions = SHELLS.iter().map(|shell| say(&["completions", shell])).collect::<Result<_>>()?;
        Ok(Program { package, file, pages, completions })
    }
}
