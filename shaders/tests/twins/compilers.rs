//! Every text that a launch can make, before the compilers of all systems: naga for Vulkan, Metal and Direct3D 12, and
//! Tint for Chrome. Neither takes all that the other does.

use nightjar_shaders::{
    kernel::{Elem, Kernel},
    table::KERNELS,
};
use std::{env, fs, path::PathBuf, process::Command};
use tempfile::TempDir;

/// The folder of the compilers.
const COMPILERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/compilers");
/// What a kernel begins with that is wgpu's own: no browser has it, and `MatrixUnits::of` keeps it from there.
const NATIVE: &str = "enable wgpu_cooperative_matrix;";

/// The values that launches give a constant: all, or those at either end where its size changes no text besides.
fn values(constant: &str) -> Vec<u32> {
    match constant {
        "HEAD" => (4..=128).step_by(4).collect(),
        "GROUP" => vec![1, 4],
        "ROWS" => vec![1, 16],
        "SQUARE" | "TURN_A" | "TURN_B" | "ADD" => vec![0, 1],
        "LAPS" => vec![1, 8],
        "TILE" => vec![8, 16],
        _ => panic!("say here which values launches give {constant}"),
    }
}

/// The constants whose lines a launch rewrites.
fn constants(kernel: &Kernel) -> Vec<&'static str> {
    let given = kernel.source.lines().filter_map(|line| {
        let (name, default) = line.strip_prefix("override ")?.split_once(": u32 = ")?;
        // What is reckoned from another stays as it is.
        default.starts_with(|first: char| first.is_ascii_digit()).then_some(name)
    });
    // A kernel with tiles is rewritten by their size too.
    given.chain(kernel.source.contains("coop_mat16x16").then_some("TILE")).collect()
}

/// All texts of a kernel, named.
fn texts(kernel: &Kernel) -> Vec<(String, String)> {
    let mut all: Vec<Vec<(&'static str, u32)>> = vec![vec![]];
    for name in constants(kernel) {
        let values = values(name);
        all = all.iter().flat_map(|given| values.iter().map(move |v| [&given[..], &[(name, *v)]].concat())).collect();
    }
    let elems: &[Elem] = if kernel.source.contains("alias Elem") { &[Elem::F32, Elem::F16] } else { &[Elem::F32] };
    let named = |elem: &Elem, given: &[(&'static str, u32)]| {
        let given_in_name: String = given.iter().map(|(name, value)| format!("-{name}{value}")).collect();
        (format!("{}{given_in_name}-{elem:?}", kernel.name), kernel.text(given, *elem).to_string())
    };
    elems.iter().flat_map(|elem| all.iter().map(move |given| named(elem, given))).collect()
}

/// Writes those that `wanted` says; gives the folder and how many they are.
fn written(wanted: impl Fn(&str) -> bool) -> (TempDir, usize) {
    let folder = tempfile::tempdir().unwrap();
    let texts = KERNELS.iter().flat_map(|kernel| texts(kernel)).filter(|(_, text)| wanted(text));
    let count = texts.map(|(name, text)| fs::write(folder.path().join(name + ".wgsl"), text).unwrap()).count();
    (folder, count)
}

/// Runs a compiler, which must say that it took all.
fn takes_all(compiler: &mut Command, said: &str) {
    let output = compiler.output().unwrap();
    let [out, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success() && out.contains(said), "{said} is not what it says:\n{out}\n{errors}");
}

#[test]
fn naga_compiles_every_text_for_every_system() {
    let (folder, count) = written(|_| true);
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.args(["run", "--quiet", "--locked", "--manifest-path"]).arg(format!("{COMPILERS}/Cargo.toml"));
    cargo.args(["--target-dir", concat!(env!("CARGO_TARGET_TMPDIR"), "/compilers"), "--"]).arg(folder.path());
    takes_all(&mut cargo, &format!("naga compiled {count} of {count} texts"));
}

#[test]
fn tint_compiles_every_text_that_a_browser_is_given() {
    let modules = env::home_dir().map(|home| home.join(".cache/nightjar/tools/tint/node_modules"));
    let Some(modules) = modules.filter(|modules: &PathBuf| modules.join("webgpu").exists()) else {
        assert!(env::var_os("CI").is_none(), "CI needs Tint: `cargo xtask setup`");
        println!("skipped: Tint is not installed (`cargo xtask setup` installs it, where Node and npm are)");
        return;
    };
    let (folder, count) = written(|text| !text.contains(NATIVE));
    let mut node = Command::new("node");
    node.arg(format!("{COMPILERS}/tint.mjs")).arg(folder.path()).arg(modules);
    takes_all(&mut node, &format!("Tint compiled {count} of {count} texts"));
}

/// What is tried is what ships.
#[test]
fn naga_is_of_the_version_that_compiles_for_the_devices() {
    let version = |lock: &str| {
        let lock = fs::read_to_string(lock).unwrap();
        let (_, naga) = lock.split_once("name = \"naga\"\nversion = ").unwrap();
        naga.lines().next().unwrap().to_owned()
    };
    let ours = version(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    assert_eq!(version(&format!("{COMPILERS}/Cargo.lock")), ours, "cargo update -p naga --precise does it");
}
