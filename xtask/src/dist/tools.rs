//! What packaging needs beyond Rust: each tool is named with the command that installs it, before anything is made.
//! What only checks is missed when its check comes.

use super::Platform;
use crate::setup;
use anyhow::{Result, ensure};
use std::path::PathBuf;

/// What makes packages, and how to have it.
const MAKERS: [(&str, &str, Platform); 5] = [
    ("nfpm", "cargo xtask setup --dist", Platform::Linux),
    ("strip", "apt-get install binutils", Platform::Linux),
    ("ldd", "apt-get install libc-bin", Platform::Container),
    ("makensis", "apt-get install nsis", Platform::Windows),
    ("wixl", "apt-get install wixl", Platform::Windows),
];

/// Where a tool is: in the path, or where `setup --dist` puts it.
pub fn find(tool: &str) -> Option<PathBuf> {
    setup::in_path(tool).or_else(|| setup::own_tool(tool))
}

/// Fails with every tool that is missing for making this.
pub fn need(platforms: &[Platform]) -> Result<()> {
    let is_missing =
        |(tool, _, platform): &&(&str, &str, Platform)| platforms.contains(platform) && find(tool).is_none();
    let missing: Vec<String> =
        MAKERS.iter().filter(is_missing).map(|(tool, install, _)| format!("{tool} ({install})")).collect();
    ensure!(missing.is_empty(), "packaging needs {}", missing.join(" and "));
    Ok(())
}
