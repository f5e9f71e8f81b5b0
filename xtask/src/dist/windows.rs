//! Installers of Windows: one for a user without an administrator's rights (NSIS), and an MSI that a lab rolls out. The
//! program comes from a build elsewhere, as nightjar.exe.

use super::{
    icon::Drawing,
    output::{self, Output},
    product::{CLIENT, ICON, TITLE},
    release::{OWN, Release},
    text_of,
};
use crate::children::Children;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// By this Windows knows that an MSI replaces another; it never changes.
const UPGRADE_CODE: &str = "8D1E5E4A-5F0B-4C3C-9C55-2D0B6E0C7A11";

pub fn make(
    from: Option<&Path>,
    release: &Release,
    work: &Path,
    output: &mut Output,
    children: &Children,
) -> Result<()> {
    let folder = from.context("Windows programs are not built here: name the folder of nightjar.exe with --from")?;
    let program = folder.join("nightjar.exe");
    ensure!(program.is_file(), "{} has no nightjar.exe", folder.display());
    let place = output::emptied(&work.join("windows"))?;
    fs::write(place.join("nightjar.ico"), Drawing::read(&text_of(ICON)?)?.ico()?)?;
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::write(place.join(license), text_of(license)?)?;
    }
    fs::copy(&program, place.join("nightjar.exe"))?;

    let setup = format!("nightjar-{}-windows-x86_64-setup.exe", release.version);
    let script = written(&place, "installers/windows/nightjar.nsi", &output.path(&setup), release)?;
    let mut pack = Command::new("makensis");
    // The time in the file is that of the release.
    pack.args(["-WX", "-V2"]).arg(script).current_dir(&place).env("SOURCE_DATE_EPOCH", release.unix_s.to_string());
    children.output("makensis", &mut pack)?;
    output.add(&setup, CLIENT.name, "nsis")?;

    let msi = format!("nightjar-{}-windows-x86_64.msi", release.version);
    let script = written(&place, "installers/windows/nightjar.wxs", &output.path(&msi), release)?;
    let mut pack = Command::new("wixl");
    children.output(
        "wixl",
        pack.args(["--arch", "x64", "--output"]).arg(output.path(&msi)).arg(script).current_dir(&place),
    )?;
    output.add(&msi, CLIENT.name, "msi")
}

/// A template, filled, beside the files that it packs.
fn written(place: &Path, template: &str, out: &Path, release: &Release) -> Result<PathBuf> {
    let values = [
        ("{title}", TITLE),
        ("{version}", &release.version),
        // Windows' own versions are numbers alone.
        ("{numbers}", OWN),
        ("{upgrade_code}", UPGRADE_CODE),
        ("{summary}", CLIENT.summary),
        ("{out}", &out.display().to_string()),
    ];
    let text = values.iter().fold(text_of(template)?, |text, (key, value)| text.replace(key, value));
    let file = place.join(Path::new(template).file_name().context("a template has a name")?);
    fs::write(&file, text)?;
    Ok(file)
}
