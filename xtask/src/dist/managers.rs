//! Descriptions for package managers that fetch a published file: AUR, Homebrew, Scoop and winget. Each is a template
//! with the file's address and hash.

use super::{
    output::Output,
    product::{CLIENT, LICENSE, TITLE},
    release::Release,
    text_of,
};
use anyhow::{Result, ensure};

/// Template, the name that the manager wants, and the format of the file that it fetches.
const MANAGERS: [(&str, &str, &str); 4] = [
    ("installers/managers/PKGBUILD", "PKGBUILD", "archive"),
    ("installers/managers/homebrew.rb", "nightjar.rb", "archive"),
    ("installers/managers/scoop.json", "nightjar.json", "nsis"),
    ("installers/managers/winget.yaml", "Nightjar.Nightjar.yaml", "nsis"),
];

/// Writes those whose file is there.
pub fn make(url: &str, release: &Release, output: &mut Output) -> Result<()> {
    ensure!(
        url.starts_with("https://"),
        "--url begins with https://: whoever installs from there must know who answers"
    );
    for (template, name, format) in MANAGERS {
        match output.of(CLIENT.name, format) {
            Some(artefact) => {
                let text = filled(&text_of(template)?, url, &artefact.file, &artefact.sha256, release);
                output.write(name, &text, CLIENT.name, "manager")?;
            }
            None => println!("     {name} is left out: it needs a {format} of {}", CLIENT.name),
        }
    }
    Ok(())
}

fn filled(template: &str, url: &str, file: &str, sha256: &str, release: &Release) -> String {
    let values = values(url, file, sha256, release);
    values.iter().fold(template.to_owned(), |text, (key, value)| text.replace(key, value))
}

/// What stands for what in a template.
fn values(url: &str, file: &str, sha256: &str, release: &Release) -> [(&'static str, String); 9] {
    [
        ("{url}", format!("{}/{file}", url.trim_end_matches('/'))),
        ("{sha256}", sha256.to_owned()),
        ("{version}", release.version.clone()),
        // Arch allows no hyphen in a version.
        ("{arch_version}", release.version.replace('-', "_")),
        ("{folder}", format!("{}-{}", CLIENT.name, release.version)),
        ("{maintainer}", release.maintainer.clone()),
        ("{title}", TITLE.to_owned()),
        ("{summary}", CLIENT.summary.to_owned()),
        ("{license}", LICENSE.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const SHA256: &str = "c0cd5ccfdb563a59366e33e73001b78fdb8cca5a6c48e2f90fffcde44b81f1f6";

    fn all() -> impl Iterator<Item = (&'static str, String)> {
        let release = Release::of("1.2.0-rc.1");
        let fill = move |template: &str| {
            filled(&text_of(template).unwrap(), "https://x.example/r/", "a.zst", SHA256, &release)
        };
        MANAGERS.into_iter().map(move |(template, name, _)| (name, fill(template)))
    }

    #[test]
    fn every_description_names_the_file_and_its_hash_and_leaves_nothing_open() {
        for (name, text) in all() {
            assert!(text.contains("https://x.example/r/a.zst") && text.contains(SHA256), "{name}: {text}");
            let keys = values("", "", "", &Release::of("")).map(|(key, _)| key);
            assert!(keys.iter().all(|key| !text.contains(key)), "{name}: {text}");
        }
    }

    /// Each is read by a reader of its language, where there is one.
    #[test]
    fn every_description_is_well_formed() {
        for (name, text) in all() {
            let reader: &[&str] = match name {
                "PKGBUILD" => &["bash", "-n"],
                "nightjar.rb" => &["ruby", "-c"],
                "nightjar.json" => {
                    &["python3", "-c", "import json,sys; json.load(sys.stdin)['architecture']['64bit']['hash']"]
                }
                _ => {
                    &["python3", "-c", "import yaml,sys; yaml.safe_load(sys.stdin)['Installers'][0]['InstallerSha256']"]
                }
            };
            let spawned =
                Command::new(reader[0]).args(&reader[1..]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let Ok(mut reading) = spawned else {
                println!("skipped: {name}, since {} is not installed", reader[0]);
                continue;
            };
            let written = std::io::Write::write_all(&mut reading.stdin.take().unwrap(), text.as_bytes());
            let ended = reading.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            if said.contains("No module named 'yaml'") {
                println!("skipped: {name}, since Python has no PyYAML");
                continue;
            }
            assert!(written.is_ok() && ended.status.success(), "{name}: {said}");
        }
    }
}
