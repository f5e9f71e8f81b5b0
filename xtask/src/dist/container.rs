//! OCI images without a container engine: one layer with the program and the libraries that it is
//! linked with, as an archive that podman, docker, skopeo and Kubernetes' registries take.

use super::{
    linux::gzip,
    output::{Output, hex},
    product::TITLE,
    programs::Program,
    release::Release,
    tree::Tree,
};
use crate::children::Children;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Nobody: no file is owned by it, and no other program runs as it.
pub const USER: u32 = 65_532;
/// Where a run is kept: a volume.
const HOME: &str = "var/lib/nightjar";
/// Roots of trust for databases and stores over TLS, as this machine has them.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

pub fn make(program: &Program, release: &Release, output: &mut Output, children: &Children) -> Result<()> {
    let tree = tree(program, children)?;
    let mut tar = vec![];
    tree.tar("", release.unix_s, &mut tar)?;
    let layer = gzip(&tar)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (name, image_of) = (program.package.name, &program.package.image);
    let ports: serde_json::Map<_, _> = image_of.ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
    let environment = [&["PATH=/usr/bin"], image_of.environment].concat();
    let config = json!({
        "created": release.moment(),
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": [format!("/usr/bin/{name}")],
            "Cmd": [image_of.command],
            "Env": environment,
            "WorkingDir": format!("/{HOME}"),
            "ExposedPorts": ports,
            "Volumes": { format!("/{HOME}"): {} },
            "StopSignal": "SIGTERM",
            "Labels": labels(program, release),
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
    });
    let mut image = Tree::default();
    let layer = blob(&mut image, "application/vnd.oci.image.layer.v1.tar+gzip", layer);
    let config = blob(&mut image, "application/vnd.oci.image.config.v1+json", serde_json::to_vec(&config)?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": labels(program, release),
    });
    let mut manifest = blob(&mut image, "application/vnd.oci.image.manifest.v1+json", serde_json::to_vec(&manifest)?);
    manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": release.version });
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest] });
    image.add("index.json", serde_json::to_vec(&index)?);
    image.add("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let file = format!("{name}-{}-oci-{architecture}.tar", release.version);
    image.tar("", release.unix_s, &mut File::create(output.path(&file))?)?;
    output.add(&file, name, "oci")
}

fn labels(program: &Program, release: &Release) -> Value {
    json!({
        "org.opencontainers.image.title": format!("{TITLE}: {}", program.package.name),
        "org.opencontainers.image.description": program.package.summary,
        "org.opencontainers.image.version": release.version,
        "org.opencontainers.image.licenses": super::product::LICENSE,
    })
}

/// Puts bytes among the image's blobs; gives back what others say of them.
fn blob(image: &mut Tree, media_type: &str, bytes: Vec<u8>) -> Value {
    let (digest, size) = (digest(&bytes), bytes.len());
    image.add(format!("blobs/{}", digest.replace(':', "/")), bytes);
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// The files in the image: the program, the libraries that it is linked with, and what they read.
fn tree(program: &Program, children: &Children) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.add_program(format!("usr/bin/{}", program.package.name), &program.file);
    let said = children.output("ldd", Command::new("ldd").arg(&program.file))?;
    let opened = program.package.image.libraries.iter().filter_map(|library| beside(library));
    for library in libraries(&said)?.into_iter().chain(opened) {
        let file = fs::canonicalize(&library).with_context(|| format!("cannot read {}", library.display()))?;
        tree.add_program(library.display().to_string().trim_start_matches('/'), &file);
    }
    tree.add_folder(HOME, USER);
    tree.add("etc/passwd", format!("nightjar:x:{USER}:{USER}::/{HOME}:/\n"));
    tree.add("etc/group", format!("nightjar:x:{USER}:\n"));
    tree.add("etc/nsswitch.conf", "hosts: files dns\n");
    if Path::new(ROOTS).exists() {
        tree.add(ROOTS.trim_start_matches('/'), fs::read(ROOTS)?);
    }
    Ok(tree)
}

/// A library where this machine's own are.
fn beside(library: &str) -> Option<PathBuf> {
    let folder = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders =
        [format!("/usr/lib/{folder}"), format!("/lib/{folder}"), "/usr/lib64".to_owned(), "/usr/lib".to_owned()];
    folders.iter().map(|folder| Path::new(folder).join(library)).find(|file| file.exists())
}

/// The files that ldd names: behind an arrow, or alone where it is the loader.
fn libraries(said: &str) -> Result<Vec<PathBuf>> {
    ensure!(!said.contains("not found"), "a library is missing here: {said}");
    let words = |line: &str| -> Option<PathBuf> {
        let named = line.split_once("=> ").map_or(line, |(_, file)| file).trim();
        named.starts_with('/').then(|| named.split(" (").next().unwrap_or(named).into())
    };
    let found: Vec<PathBuf> = said.lines().filter_map(words).collect();
    ensure!(!found.is_empty(), "ldd names no library: {said}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_as_ldd_names_them() {
        let said = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let found = libraries(said).unwrap();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from));
        assert!(libraries("\tlibz.so.1 => not found\n\t/lib64/ld.so (0x1)\n").is_err());
    }
}
