//! `cargo xtask dist --test`: what was made, looked at by the tools that distributions look with, and made a second
//! time and compared. A tool that is not installed is named, and its check is skipped.

use super::{
    container,
    linux::{self, Format},
    output::{self, Output},
    product::{APP_ID, CLIENT},
    programs::Program,
    release::Release,
    tools,
};
use crate::{children::Children, setup::in_path};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

pub fn run(programs: &[Program], release: &Release, work: &Path, output: &Output, children: &Children) -> Result<()> {
    sums(output, children)?;
    for program in programs {
        let package = program.package;
        if let Some(deb) = output.of(package.name, Format::Deb.word()) {
            let deb = output.path(&deb.file);
            sizes(program, &deb, children)?;
            check("lintian", &[&["--fail-on", "error,warning", "--tag-display-limit", "0"]], &deb, children)?;
            let files = work.join(Format::Deb.word()).join(package.name).join("files");
            units(&files, children)?;
            if package.name == CLIENT.name {
                let entry = files.join(format!("usr/share/applications/{APP_ID}.desktop"));
                check("desktop-file-validate", &[&["--no-hints"]], &entry, children)?;
                let about = files.join(format!("usr/share/metainfo/{APP_ID}.metainfo.xml"));
                check("appstreamcli", &[&["validate", "--no-net"]], &about, children)?;
            }
        }
        if let Some(rpm) = output.of(package.name, Format::Rpm.word()) {
            check(
                "rpm",
                &[&["--query", "--package", "--verify", "--nodeps", "--nofiles"], &["--checksig"]],
                &output.path(&rpm.file),
                children,
            )?;
        }
        if let Some(image) = output.of(package.name, "oci") {
            starts(program, &output.path(&image.file), work, children)?;
        }
    }
    again(programs, release, work, output, children)
}

/// The hashes are those that others compute.
fn sums(output: &Output, children: &Children) -> Result<()> {
    let mut sums = Command::new("sha256sum");
    children.output(
        "sha256sum",
        sums.args(["--check", "--quiet", "--strict", "SHA256SUMS"]).current_dir(output.folder()),
    )?;
    println!("ok     SHA256SUMS are those of the files");
    Ok(())
}

/// Runs a checker on a file, once for each set of words: any complaint fails.
fn check(tool: &str, words: &[&[&str]], file: &Path, children: &Children) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let Some(program) = tools::find(tool) else {
        println!("skip   {tool} is not installed: {name} is not checked by it");
        return Ok(());
    };
    for words in words {
        children.output(tool, Command::new(&program).args(*words).arg(file))?;
    }
    println!("ok     {tool}: {name}");
    Ok(())
}

/// systemd-analyze returns 0 for keys that it does not know, but says so.
fn units(files: &Path, children: &Children) -> Result<()> {
    for (folder, whose) in [("usr/lib/systemd/user", "--user"), ("usr/lib/systemd/system", "--system")] {
        let Ok(units) = fs::read_dir(files.join(folder)) else { continue };
        if in_path("systemd-analyze").is_none() {
            println!("skip   systemd-analyze is not installed: {folder} is not checked by it");
            continue;
        }
        for unit in units {
            // It wants to find the program that the unit starts.
            let (unit, copy) = (unit?.path(), files.with_file_name("units"));
            fs::create_dir_all(&copy)?;
            let text =
                fs::read_to_string(&unit)?.replace("ExecStart=/usr/", &format!("ExecStart={}/usr/", files.display()));
            let file = copy.join(unit.file_name().context("a unit has a name")?);
            fs::write(&file, text)?;
            let mut verify = Command::new("systemd-analyze");
            verify.args(["verify", "--man=no", whose]).arg(&file).env("XDG_RUNTIME_DIR", &copy);
            let ended = verify.stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&ended.stderr);
            ensure!(ended.status.success() && said.trim().is_empty(), "systemd-analyze: {said}");
            println!("ok     systemd-analyze: {}", unit.file_name().unwrap_or_default().to_string_lossy());
            children.check()?;
        }
    }
    Ok(())
}

/// What a deb takes on the way, and on the disk.
fn sizes(program: &Program, deb: &Path, children: &Children) -> Result<()> {
    let (packed, unpacked) = (fs::metadata(deb)?.len(), installed_kib(deb, children)? << 10);
    let (packed_max, unpacked_max) = program.package.bytes_max;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    ensure!(
        packed <= packed_max && unpacked <= unpacked_max,
        "{} has {:.1} MB, {:.1} MB installed: more than {:.0} and {:.0}",
        deb.display(),
        mb(packed),
        mb(unpacked),
        mb(packed_max),
        mb(unpacked_max)
    );
    println!("ok     {} has {:.1} MB, {:.1} MB installed", program.package.name, mb(packed), mb(unpacked));
    Ok(())
}

fn installed_kib(deb: &Path, children: &Children) -> Result<u64> {
    let said = children.output("dpkg-deb", Command::new("dpkg-deb").arg("--field").arg(deb).arg("Installed-Size"))?;
    said.trim().parse().context("the deb does not say how large it is")
}

/// The image is unpacked as an engine does, and its program runs in it.
fn starts(program: &Program, image: &Path, work: &Path, children: &Children) -> Result<()> {
    if tools::find("umoci").is_none() {
        println!("skip   umoci is not installed: the image is not unpacked");
        return Ok(());
    }
    let place = output::emptied(&work.join("oci"))?;
    let (layout, bundle) = (place.join("layout"), place.join("bundle"));
    fs::create_dir(&layout)?;
    children.output("tar", Command::new("tar").arg("-xf").arg(image).arg("-C").arg(&layout))?;
    let index: serde_json::Value = serde_json::from_str(&fs::read_to_string(layout.join("index.json"))?)?;
    let tag =
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().context("it has no tag")?;
    let mut unpack = Command::new("umoci");
    unpack.arg("unpack").arg("--image").arg(format!("{}:{tag}", layout.display()));
    if !rustix::process::geteuid().is_root() {
        unpack.arg("--rootless");
    }
    children.output("umoci", unpack.arg(&bundle))?;
    if !rustix::process::geteuid().is_root() {
        println!("skip   only root may start the image's program in it");
        return Ok(());
    }
    let mut start = Command::new("chroot");
    start.args(["--userspec", &container::USER.to_string()]).arg(bundle.join("rootfs"));
    let said =
        children.output("the image", start.arg(format!("/usr/bin/{}", program.package.name)).arg("--version"))?;
    println!("ok     the image's program starts in it: {}", said.trim());
    Ok(())
}

/// Everything is packed a second time, and is the same byte for byte.
fn again(programs: &[Program], release: &Release, work: &Path, output: &Output, children: &Children) -> Result<()> {
    let place = output::emptied(&work.join("again"))?;
    let mut second = Output::open(place.join("out"))?;
    for program in programs {
        let name = program.package.name;
        for format in Format::ALL.into_iter().filter(|format| output.of(name, format.word()).is_some()) {
            linux::make(program, format, release, &place, &mut second, children)?;
        }
        if output.of(name, "oci").is_some() {
            container::make(program, release, &mut second, children)?;
        }
    }
    for artefact in second.artefacts() {
        let first = output.artefacts().iter().find(|first| first.file == artefact.file);
        if first != Some(artefact) {
            bail!("{} is another each time that it is made", artefact.file);
        }
    }
    println!("ok     {} files are the same byte for byte when they are made again", second.artefacts().len());
    Ok(())
}
