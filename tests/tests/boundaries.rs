//! The table in ARCHITECTURE.md, as a test: who may not depend on whom.

use std::{collections::BTreeSet, path::Path, process::Command};

/// Crate, and what it must never pull in, through whomever.
const FORBIDDEN: [(&str, &[&str]); 14] = [
    ("nightjar-shared", &["tokio", "quinn", "burn", "wgpu"]),
    ("nightjar-session", &["tokio", "quinn", "axum", "zbus", "burn", "wgpu", "rustls", "ring"]),
    ("nightjar-wgsl", &["burn", "wgpu", "nightjar-shared"]),
    ("nightjar-shaders", &["tokio", "quinn"]),
    ("nightjar", &["nightjar-coordinator"]),
    ("nightjar-agent", &["burn", "wgpu", "cubecl", "nightjar-train"]),
    ("nightjar-work", &["tokio", "quinn", "burn", "wgpu"]),
    ("nightjar-train", &["tokio", "quinn"]),
    ("nightjar-coordinator", &["burn", "wgpu", "nightjar", "nightjar-agent"]),
    ("nightjar-flower", &["burn", "wgpu", "tokio", "nightjar-coordinator"]),
    ("nightjar-load", &["burn", "wgpu", "nightjar-coordinator"]),
    ("nightjar-sim", &["burn", "wgpu"]),
    ("nightjar-tests", &["burn", "wgpu"]),
    ("xtask", &["burn", "wgpu", "tokio"]),
];

/// Nobody imports these.
const LEAVES: [&str; 5] = ["nightjar-flower", "nightjar-load", "nightjar-sim", "nightjar-tests", "xtask"];

/// Everything that a crate of the workspace is built with, tests aside.
fn dependencies(package: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--package", package, "--edges", "normal,build", "--prefix", "none"])
        // What trains is behind a feature in the simulator, and only there.
        .args(["--no-default-features"])
        .args(["--format", "{lib} {p}"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "cargo tree: {}", String::from_utf8_lossy(&tree.stderr));
    // A line is the library's name (empty for a program), the package's name, its version.
    let text = String::from_utf8_lossy(&tree.stdout).into_owned();
    text.lines().filter_map(|line| line.split(" v").next()?.split_whitespace().last()).map(str::to_owned).collect()
}

#[test]
fn no_crate_depends_on_what_its_room_forbids() {
    for (package, forbidden) in FORBIDDEN {
        let found = dependencies(package);
        assert!(found.contains(package), "{package} is not in its own tree");
        for name in forbidden {
            assert!(!found.contains(*name), "{package} depends on {name}; cargo tree -p {package} -i {name} shows how");
        }
        for leaf in LEAVES {
            assert!(leaf == package || !found.contains(leaf), "{package} depends on {leaf}, which nobody may import");
        }
    }
}

#[test]
fn the_check_sees_an_edge_that_exists() {
    assert!(dependencies("nightjar-train").contains("burn"));
    assert!(dependencies("nightjar-agent").contains("quinn"));
}
