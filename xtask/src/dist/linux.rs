//! Packages of Linux: deb, rpm and Arch's by nfpm, from one description each, and an archive for any distribution.

use super::{
    icon::Drawing,
    output::{self, Output},
    product::{APP_ID, GLIBC_MIN, ICON, ICON_SIZES, LICENSE, Package, TITLE},
    programs::{Program, SHELLS},
    release::Release,
    text_of, tools,
    tree::Tree,
};
use crate::{children::Children, root};
use anyhow::{Context, Result};
use clap::ValueEnum;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
};

/// What a package of Linux comes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Deb,
    Rpm,
    /// Arch's.
    Archlinux,
    /// For any distribution.
    Archive,
}

impl Format {
    pub const ALL: [Format; 4] = [Format::Deb, Format::Rpm, Format::Archlinux, Format::Archive];

    /// Its own word, which nfpm knows it by.
    pub fn word(self) -> &'static str {
        match self {
            Format::Deb => "deb",
            Format::Rpm => "rpm",
            Format::Archlinux => "archlinux",
            Format::Archive => "archive",
        }
    }

    /// The end of its files' names.
    fn suffix(self) -> &'static str {
        match self {
            Format::Deb => "deb",
            Format::Rpm => "rpm",
            Format::Archlinux => "pkg.tar.zst",
            Format::Archive => "tar.zst",
        }
    }
}

/// Of the archive: higher levels take minutes, for a few per cent.
const ZSTD_LEVEL: i32 = 15;
/// Of a package's description.
const COLUMNS: usize = 76;

/// The machine, as Go and Debian name it.
fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Makes a program's package in a format.
pub fn make(
    program: &Program,
    format: Format,
    release: &Release,
    work: &Path,
    output: &mut Output,
    children: &Children,
) -> Result<()> {
    let package = program.package;
    let file = format!("{}-{}-linux-{}.{}", package.name, release.version, std::env::consts::ARCH, format.suffix());
    let tree = tree(program, format, release)?;
    match format {
        Format::Archive => {
            let mut packed = zstd::Encoder::new(File::create(output.path(&file))?, ZSTD_LEVEL)?;
            packed.include_checksum(true)?;
            tree.tar(&format!("{}-{}/", package.name, release.version), release.unix_s, &mut packed)?;
            packed.finish()?;
        }
        Format::Deb | Format::Rpm | Format::Archlinux => {
            let place = output::emptied(&work.join(format.word()).join(package.name))?;
            let (files, description) = (place.join("files"), place.join("nfpm.yaml"));
            tree.lay(&files)?;
            // Every JSON is YAML.
            let described = describe(package, &tree, &files, format, release)?;
            fs::write(&description, serde_json::to_string_pretty(&described)?)?;
            let mut pack = Command::new(tools::find("nfpm").context("nfpm is gone")?);
            pack.args(["package", "--packager", format.word(), "--config"]).arg(&description);
            pack.arg("--target").arg(output.path(&file)).env("SOURCE_DATE_EPOCH", release.unix_s.to_string());
            children.output("nfpm", &mut pack)?;
        }
    }
    output.add(&file, package.name, format.word())
}

/// The files of a package in a format.
fn tree(program: &Program, format: Format, release: &Release) -> Result<Tree> {
    let package = program.package;
    let mut tree = shared(program)?;
    for (from, to) in package.files {
        tree.add(*to, text_of(from)?);
    }
    if package.has_icon {
        tree.add(format!("usr/share/metainfo/{APP_ID}.metainfo.xml"), metainfo(package, release)?);
    }
    let name = package.name;
    match format {
        Format::Archive => return portable(program),
        Format::Deb => {
            tree.add(format!("usr/share/doc/{name}/copyright"), text_of("installers/linux/copyright")?);
            tree.add(
                format!("usr/share/doc/{name}/changelog.gz"),
                gzip(debian_changelog(package, release).as_bytes())?,
            );
            tree.add(format!("usr/share/lintian/overrides/{name}"), overrides(name)?);
        }
        Format::Rpm | Format::Archlinux => {
            for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
                tree.add(format!("usr/share/licenses/{name}/{license}"), text_of(license)?);
            }
        }
    }
    Ok(tree)
}

/// The files that lie in the same place everywhere.
fn shared(program: &Program) -> Result<Tree> {
    let package = program.package;
    let mut tree = Tree::default();
    tree.add_program(format!("usr/bin/{}", package.name), &program.file);
    for (page, text) in &program.pages {
        tree.add(format!("usr/share/man/man1/{page}.gz"), gzip(text)?);
    }
    for (shell, text) in SHELLS.iter().zip(&program.completions) {
        tree.add(completion(shell, package.name), text.as_str());
    }
    if package.has_icon {
        let svg = text_of(ICON)?;
        tree.add(format!("usr/share/icons/hicolor/scalable/apps/{APP_ID}.svg"), svg.as_str());
        let drawing = Drawing::read(&svg)?;
        for pixels in ICON_SIZES {
            tree.add(format!("usr/share/icons/hicolor/{pixels}x{pixels}/apps/{APP_ID}.png"), drawing.png(pixels)?);
        }
    }
    Ok(tree)
}

/// Where a shell looks for a program's completions.
fn completion(shell: &str, name: &str) -> String {
    match shell {
        "zsh" => format!("usr/share/zsh/site-functions/_{name}"),
        "fish" => format!("usr/share/fish/vendor_completions.d/{name}.fish"),
        _ => format!("usr/share/{shell}-completion/completions/{name}"),
    }
}

/// The same as an archive that needs no installer: `bin/nightjar` runs where it lies.
fn portable(program: &Program) -> Result<Tree> {
    let mut tree = Tree::default();
    for (path, entry) in shared(program)?.0 {
        tree.0.insert(path.trim_start_matches("usr/").to_owned(), entry);
    }
    for (from, to) in program.package.files {
        tree.add(to.trim_start_matches("usr/"), text_of(from)?);
    }
    for file in ["LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md"] {
        tree.add(file, text_of(file)?);
    }
    Ok(tree)
}

/// What nfpm packs.
fn describe(package: &Package, tree: &Tree, files: &Path, format: Format, release: &Release) -> Result<Value> {
    let root = root()?;
    let contents = tree.0.keys().map(|path| {
        let file = if format == Format::Rpm && path.starts_with("usr/share/licenses/") { "license" } else { "" };
        json!({ "src": files.join(path), "dst": format!("/{path}"), "type": file })
    });
    let scripts = &package.scripts;
    let script = |path: Option<&str>| path.map(|path| root.join(path));
    // What a package needs has another name in each format.
    let (mut depends, recommends) = match format {
        Format::Deb => (vec![format!("libc6 (>= {GLIBC_MIN})"), "libgcc-s1".to_owned()], package.recommends.deb),
        Format::Rpm => (vec![format!("glibc >= {GLIBC_MIN}"), "libgcc".to_owned()], package.recommends.rpm),
        Format::Archlinux => (vec![format!("glibc>={GLIBC_MIN}"), "gcc-libs".to_owned()], package.recommends.arch),
        Format::Archive => (vec![], &[][..]),
    };
    let (purged, questions) = match format {
        Format::Deb => (scripts.purged, scripts.questions),
        Format::Rpm | Format::Archlinux | Format::Archive => (None, None),
    };
    if questions.is_some() {
        depends.push("debconf (>= 0.5) | debconf-2.0".to_owned());
    }
    Ok(json!({
        "name": package.name,
        "arch": machine(),
        "version": release.version,
        "mtime": release.moment(),
        "maintainer": release.maintainer,
        "license": LICENSE,
        "section": "science",
        "priority": "optional",
        "description": format!("{}\n{}", package.summary, folded(package.description)),
        "depends": depends,
        "recommends": recommends,
        "contents": contents.collect::<Vec<_>>(),
        "scripts": {
            "postinstall": script(Some(scripts.installed)),
            "preremove": script(Some(scripts.removing)),
            "postremove": script(purged),
        },
        "deb": { "compression": release.deb_compression, "scripts": { "templates": script(questions) } },
        "rpm": {
            "compression": "zstd:19",
            "group": "Applications/Science",
            "summary": package.summary,
            // Not the builder's.
            "buildhost": "localhost",
        },
        "archlinux": {
            "packager": release.maintainer,
            "scripts": { "postupgrade": script(Some(scripts.installed)) },
        },
    }))
}

/// Text in lines that a terminal shows whole.
fn folded(text: &str) -> String {
    let mut folded = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let is_full = column + word.len() > COLUMNS;
        folded.push_str(if column == 0 {
            ""
        } else if is_full {
            "\n"
        } else {
            " "
        });
        column = if is_full { 0 } else { column } + word.len() + 1;
        folded.push_str(word);
    }
    folded
}

/// What software catalogues show.
pub fn metainfo(package: &Package, release: &Release) -> Result<String> {
    let template = text_of("installers/linux/nightjar/metainfo.xml")?;
    let paragraphs: String = package.description.lines().map(|line| format!("    <p>{line}</p>\n")).collect();
    let filled = [
        ("{id}", APP_ID),
        ("{title}", TITLE),
        ("{summary}", package.summary),
        ("{license}", LICENSE),
        ("{paragraphs}", paragraphs.trim_end()),
        ("{version}", &release.version),
        ("{day}", &release.day()),
    ];
    Ok(filled.into_iter().fold(template, |text, (key, value)| text.replace(key, value)))
}

/// As Debian wants it: the entry of this version, which leads to the whole.
fn debian_changelog(package: &Package, release: &Release) -> String {
    format!(
        "{} ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n -- {}  {}\n",
        package.name,
        release.version.replacen('-', "~", 1),
        release.maintainer,
        release.moment_in_mail(),
    )
}

/// Remarks of lintian's that are answered, each with its reason.
fn overrides(name: &str) -> Result<String> {
    Ok(text_of("installers/linux/lintian-overrides")?.replace("{name}", name))
}

/// As gzip -9n would: without a time or a name.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new().write(vec![], Compression::best());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_fit_a_terminal_and_lose_no_word() {
        for package in crate::dist::product::PACKAGES {
            let folded = folded(package.description);
            assert!(folded.lines().all(|line| line.len() <= COLUMNS && !line.is_empty()), "{folded}");
            assert!(folded.split_whitespace().eq(package.description.split_whitespace()));
        }
    }
}
