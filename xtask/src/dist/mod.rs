//! `cargo xtask dist`: every package that this machine can make, from one table (`product`), with their hashes, a list
//! of what is in them, and a bill of materials. The same command makes a release, here and on a hosted CI.

mod charts;
mod checks;
mod container;
mod icon;
mod journey;
mod linux;
mod managers;
mod output;
mod product;
mod programs;
mod progress;
mod release;
mod room;
mod sbom;
mod tools;
mod tree;
mod windows;

use crate::{children::Children, root, setup};
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use linux::Format;
use output::Output;
use product::{PACKAGES, Package};
use programs::Program;
use progress::Progress;
use release::Release;
use std::path::PathBuf;

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Platform {
    /// deb, rpm, an Arch package, and an archive for any distribution.
    Linux,
    /// An OCI image of each program, and a Helm chart.
    Container,
    /// An installer for one user, and an MSI for labs; from programs built elsewhere.
    Windows,
}

#[derive(Args)]
pub struct Options {
    /// What to make [default: linux and container]
    #[arg(long, value_enum, value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Formats for Linux [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    format: Vec<Format>,
    /// Only this package: nightjar or nightjar-coordinator
    #[arg(long, value_parser = product::named)]
    package: Option<&'static Package>,
    /// Take the programs from this folder, instead of building them
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where to put what is made [default: dist in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The version, which begins with the workspace's, as in 1.2.0-rc.1 [default: the workspace's]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Where the files will be published: with it, the descriptions for AUR, Homebrew, Scoop and winget are written too
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Who answers for these packages, as in "Ada <ada@lab.org>"
    #[arg(long, value_name = "NAME <MAIL>", default_value = product::MAINTAINER)]
    maintainer: String,
    /// Check what was made: by linters, by its size, and by making it again
    #[arg(long)]
    test: bool,
    /// Install, join, train, upgrade, remove and purge it in a fresh Debian: takes minutes, and root's rights
    #[arg(long)]
    journey: bool,
}

pub fn run(options: &Options, children: &Children) -> Result<()> {
    let release = Release::new(options, children)?;
    setup::run(setup::Need::Packages, children)?;
    let packages: Vec<&Package> = options.package.map_or(PACKAGES.to_vec(), |package| vec![package]);
    let platforms =
        if options.platform.is_empty() { vec![Platform::Linux, Platform::Container] } else { options.platform.clone() };
    let formats = if options.format.is_empty() { Format::ALL.to_vec() } else { options.format.clone() };
    tools::need(&platforms)?;
    let target = setup::target_folder()?;
    let mut output = Output::open(options.out.clone().unwrap_or_else(|| target.join("dist-out")))?;
    let work = output::emptied(&target.join("dist-work"))?;
    let mut progress = Progress::new(options.from.is_none(), packages.len(), &platforms, formats.len());

    let mut programs = vec![];
    if platforms.iter().any(|platform| *platform != Platform::Windows) {
        let folder = match &options.from {
            Some(folder) => folder.clone(),
            None => progress.step("programs", || programs::build(&packages, &target, children))?,
        };
        for package in &packages {
            programs.push(Program::take(package, &folder, &work, &release, children)?);
            sbom::make(package, false, &release, &mut output, children)?;
        }
    }
    for platform in &platforms {
        match platform {
            Platform::Linux => {
                for (program, format) in each(&programs, &formats) {
                    let what = format!("{} of {}", format.word(), program.package.name);
                    let make = || linux::make(program, *format, &release, &work, &mut output, children);
                    progress.step(&what, make)?;
                }
            }
            Platform::Container => {
                for program in &programs {
                    let what = format!("image of {}", program.package.name);
                    progress.step(&what, || container::make(program, &release, &mut output, children))?;
                }
                charts::make(&release, &mut output)?;
            }
            Platform::Windows => {
                let from = options.from.as_deref();
                progress.step("windows", || windows::make(from, &release, &work, &mut output, children))?;
                sbom::make(&product::CLIENT, true, &release, &mut output, children)?;
            }
        }
    }
    if let Some(url) = &options.url {
        managers::make(url, &release, &mut output)?;
    }
    output.conclude(&release)?;
    if options.test {
        checks::run(&programs, &release, &work, &output, children)?;
    }
    if options.journey {
        ensure!(packages.len() == PACKAGES.len(), "a journey needs both packages: leave --package out");
        journey::run(&programs, &release, &work, &output, children)?;
    }
    Ok(())
}

/// Each program in each format.
fn each<'a>(programs: &'a [Program], formats: &'a [Format]) -> impl Iterator<Item = (&'a Program, &'a Format)> {
    programs.iter().flat_map(move |program| formats.iter().map(move |format| (program, format)))
}

/// The text of a file of the repository.
fn text_of(path: &str) -> Result<String> {
    let file = root()?.join(path);
    std::fs::read_to_string(&file).map_err(|e| anyhow::anyhow!("cannot read {}: {e}", file.display()))
}
