//! The Helm chart as an archive that `helm install` takes, with the release's version in it.

use super::{linux::gzip, output::Output, product::COORDINATOR, release::Release, text_of, tree::Tree};
use anyhow::{Result, ensure};
use std::fs;

const CHART: [&str; 7] = [
    "Chart.yaml",
    "values.yaml",
    "values.schema.json",
    "templates/_words.tpl",
    "templates/anchors.yaml",
    "templates/coordinator.yaml",
    "templates/NOTES.txt",
];
/// What the chart's file has where the release's version goes.
const NO_VERSION: &str = "ersion: 0.0.0";

pub fn make(release: &Release, output: &mut Output) -> Result<()> {
    let mut tree = Tree::default();
    for file in CHART {
        let text = text_of(&format!("installers/helm/{file}"))?;
        tree.add(file, text.replace(NO_VERSION, &format!("ersion: {}", release.version)));
    }
    ensure!(
        text_of("installers/helm/Chart.yaml")?.matches(NO_VERSION).count() == 2,
        "Chart.yaml has its version in two places"
    );
    let mut tar = vec![];
    tree.tar("nightjar/", release.unix_s, &mut tar)?;
    // The name that Helm itself would give it.
    let file = format!("nightjar-{}.tgz", release.version);
    fs::write(output.path(&file), gzip(&tar)?)?;
    output.add(&file, COORDINATOR.name, "helm")
}
