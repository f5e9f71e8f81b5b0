//! All kernels of this build, and the name that they have together.

pub use nightjar_wgsl::KERNELS;

/// Names all kernels as they are in this build, and the runtime that Burn's own come from: what was measured with
/// others does not hold.
pub fn version() -> String {
    fingerprint(&runtime())
}

fn fingerprint(runtime: &str) -> String {
    let mut all = runtime.as_bytes().to_vec();
    for kernel in KERNELS {
        all.extend_from_slice(kernel.name.as_bytes());
        all.extend_from_slice(kernel.source.as_bytes());
    }
    nightjar_shared::ids::BlobHash::of(&all).to_string()
}

/// Names and versions of what makes, compiles and launches kernels, as the workspace is locked to them.
fn runtime() -> String {
    let packages = include_str!("../../Cargo.lock").split("[[package]]\n");
    let is_runtime = |package: &&str| {
        ["burn", "cube", "naga", "wgpu"].iter().any(|name| package.starts_with(&format!("name = \"{name}")))
    };
    packages.filter(is_runtime).flat_map(|package| package.lines().take(2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_runtime_is_another_version() {
        let runtime = runtime();
        for name in ["burn-fusion", "burn-wgpu", "cubecl-wgpu", "cubek-matmul", "naga", "wgpu-hal"] {
            assert!(runtime.contains(&format!("name = \"{name}\"version = \"")), "{name} is not in {runtime}");
        }
        assert!(!runtime.contains("tokio"), "what has no part in it changes nothing");
        assert_eq!(fingerprint(&runtime), version());
        assert_ne!(fingerprint(&runtime.replacen("version = \"", "version = \"1", 1)), version());
    }
}
