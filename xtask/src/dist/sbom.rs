//! A bill of materials for each program, in CycloneDX 1.5: every crate that is linked into it, from cargo's own
//! metadata.

use super::{output::Output, product::Package, release::Release};
use crate::{cargo, children::Children, root};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Crate {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None`: linked; else `build` or `dev`.
    kind: Option<String>,
}

/// For programs of Windows, or of this machine.
pub fn make(
    package: &Package,
    is_windows: bool,
    release: &Release,
    output: &mut Output,
    children: &Children,
) -> Result<()> {
    let (system, target) = if is_windows { ("windows", WINDOWS.to_owned()) } else { ("linux", own_target(children)?) };
    let mut metadata = cargo();
    metadata.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &target]);
    let text = children.output("cargo metadata", metadata.current_dir(root()?))?;
    let bill =
        bill(&serde_json::from_str(&text).context("cargo's metadata is not understood")?, package.name, release)?;
    let file = format!("{}-{}-{system}.cdx.json", package.name, release.version);
    output.write(&file, &format!("{}\n", serde_json::to_string_pretty(&bill)?), package.name, "cyclonedx")
}

/// What programs of Windows are built for.
const WINDOWS: &str = "x86_64-pc-windows-gnu";

/// The machine that rustc builds for.
fn own_target(children: &Children) -> Result<String> {
    let said = children.output("rustc", std::process::Command::new("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it builds for")?.to_owned())
}

fn bill(metadata: &Metadata, name: &str, release: &Release) -> Result<Value> {
    let crates: BTreeMap<&str, &Crate> = metadata.packages.iter().map(|c| (c.id.as_str(), c)).collect();
    let linked: BTreeMap<&str, Vec<&str>> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), linked(node))).collect();
    let root = metadata.packages.iter().find(|c| c.name == name && c.source.is_none());
    let root = root.with_context(|| format!("the workspace has no {name}"))?;
    let (mut found, mut waiting) = (BTreeSet::from([root.id.as_str()]), vec![root.id.as_str()]);
    while let Some(next) = waiting.pop() {
        waiting.extend(linked.get(next).into_iter().flatten().filter(|below| found.insert(below)));
    }
    let reference =
        |id: &str| crates.get(id).map(|c| url(c)).with_context(|| format!("cargo names {id} and tells nothing of it"));
    let (mut components, mut dependencies) = (vec![], vec![]);
    for id in &found {
        let below =
            linked.get(id).into_iter().flatten().map(|below| reference(below)).collect::<Result<BTreeSet<_>>>()?;
        dependencies.push(json!({ "ref": reference(id)?, "dependsOn": below }));
        if let Some(of) = crates.get(id).filter(|of| of.id != root.id) {
            components.push(component(of, "library"));
        }
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "timestamp": release.moment(), "component": component(root, "application") },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The crates that a crate is linked with; what only builds or tests it is not handed out.
fn linked(node: &Node) -> Vec<&str> {
    let is_linked = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
    node.deps.iter().filter(is_linked).map(|dependency| dependency.pkg.as_str()).collect()
}

fn component(of: &Crate, kind: &str) -> Value {
    let mut component =
        json!({ "type": kind, "bom-ref": url(of), "name": of.name, "version": of.version, "purl": url(of) });
    if let Some(license) = &of.license {
        // An old way to write "or".
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    component
}

/// The name of a crate among all packages (package-url).
fn url(of: &Crate) -> String {
    format!("pkg:cargo/{}@{}", of.name, of.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_names_what_is_linked_and_nothing_else() {
        let of = |name: &str, source: Option<&str>| {
            let (version, license) = ("1.0.0", "MIT/Apache-2.0");
            json!({ "id": name, "name": name, "version": version, "license": license, "source": source })
        };
        let dep = |name: &str, kind: Option<&str>| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let registry = ["a", "b", "builder", "tester"].map(|name| of(name, Some("registry")));
        let below = [dep("a", None), dep("builder", Some("build")), dep("tester", Some("dev"))];
        let packages = [&[of("nightjar", None), of("xtask", None)][..], &registry].concat();
        let metadata = json!({
            "packages": packages,
            "resolve": { "nodes": [
                { "id": "nightjar", "deps": below },
                { "id": "a", "deps": [dep("b", None)] },
                { "id": "b", "deps": [] },
                { "id": "xtask", "deps": [dep("b", None)] },
            ] },
        });
        let bill = bill(&serde_json::from_value(metadata).unwrap(), "nightjar", &Release::of("1.0.0")).unwrap();
        let names: Vec<_> =
            bill["components"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["metadata"]["component"]["purl"], "pkg:cargo/nightjar@1.0.0");
        let a = bill["dependencies"].as_array().unwrap().iter().find(|d| d["ref"] == "pkg:cargo/a@1.0.0").unwrap();
        assert_eq!(a["dependsOn"], json!(["pkg:cargo/b@1.0.0"]));
    }
}
