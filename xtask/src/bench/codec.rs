//! `cargo xtask bench codec`: how fast deltas are encoded, and decoded and accumulated, on one core, beside a plain
//! copy of the same floats in the same run. The measuring is criterion's (shared/benches); this reads what it wrote.

use super::{
    claims::Claim,
    report::{CodecRow, Codecs},
};
use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How long a row took, as criterion writes it.
#[derive(Deserialize)]
struct Estimates {
    mean: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

#[derive(Deserialize)]
struct Benchmark {
    throughput: Throughput,
}

#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Bytes")]
    bytes: f64,
}

/// Measures, and reads the figures.
pub fn measure(processor: String, children: &Children) -> Result<Codecs> {
    let manifest = root()?.join("shared/benches/Cargo.toml");
    let folder = std::env::temp_dir().join(format!("nightjar-codecs-{}", std::process::id()));
    // Made here, or it is not ours to remove.
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut bench = cargo();
    bench.args(["bench", "--manifest-path"]).arg(manifest).env("CRITERION_HOME", &folder);
    let ended = children.run("cargo", &mut bench)?;
    if !ended.success() {
        bail!("the benches failed; see above");
    }
    let codecs = read(processor, &folder.join("delta"));
    let _ = fs::remove_dir_all(&folder);
    codecs
}

/// The figures in criterion's folder of the group.
fn read(processor: String, group: &Path) -> Result<Codecs> {
    let mut rows = vec![];
    for entry in fs::read_dir(group.join("encode")).with_context(|| format!("{} has no figures", group.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let (Ok(encode), Ok(decode)) =
            (speed(&group.join("encode").join(&name)), speed(&group.join("add_scaled").join(&name)))
        {
            rows.push(CodecRow { name: name.replace('_', " "), encode, decode });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Codecs { processor, copy: speed(&group.join("copy"))?, rows })
}

/// Bytes a second of dense f32.
fn speed(folder: &Path) -> Result<f64> {
    let new: PathBuf = folder.join("new");
    let open =
        |name: &str| fs::read(new.join(name)).with_context(|| format!("{} is missing", new.join(name).display()));
    let estimates: Estimates = serde_json::from_slice(&open("estimates.json")?)?;
    let benchmark: Benchmark = serde_json::from_slice(&open("benchmark.json")?)?;
    // Criterion counts nanoseconds.
    Ok(benchmark.throughput.bytes * 1e9 / estimates.mean.point_estimate)
}

/// What is asked of them: the sparse codec at k 64 by the second, the dense ones beside the copy.
pub fn claims(codecs: &Codecs) -> Vec<Claim> {
    let both = |row: &CodecRow| [("encoded", row.encode), ("decoded and accumulated", row.decode)];
    let of = |row: &CodecRow| {
        let name = row.name.clone();
        let sparse = name == "sparse2 k=64";
        let dense = name.starts_with("Blocks");
        let claim = move |(what, speed): (&str, f64)| {
            let (asked, figure, held) = match (sparse, what) {
                (true, "encoded") => ("≥ 0.5 GB/s", format!("{:.2} GB/s", speed / 1e9), speed >= 0.5e9),
                (true, _) => ("≥ 1 GB/s", format!("{:.2} GB/s", speed / 1e9), speed >= 1e9),
                (false, _) => {
                    ("≥ 50 % of a copy", format!("{:.0} %", 100.0 * speed / codecs.copy), speed >= 0.5 * codecs.copy)
                }
            };
            Claim { what: format!("{name}, {what}"), asked, figure, held }
        };
        (sparse || dense).then(|| both(row).map(claim))
    };
    codecs.rows.iter().filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, nanoseconds: f64) {
        let new = folder.join("new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("estimates.json"), format!("{{\"mean\":{{\"point_estimate\":{nanoseconds}}}}}")).unwrap();
        fs::write(new.join("benchmark.json"), "{\"throughput\":{\"Bytes\":4000}}").unwrap();
    }

    #[test]
    fn criterions_figures_are_read_and_judged() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path();
        write(&group.join("copy"), 1000.0);
        for (name, encode, decode) in [("sparse2_k=64", 8000.0, 4001.0), ("Blocks2", 2000.0, 2001.0), ("F32", 1.0, 1.0)]
        {
            write(&group.join("encode").join(name), encode);
            write(&group.join("add_scaled").join(name), decode);
        }
        let codecs = read("a processor".into(), group).unwrap();
        assert_eq!((codecs.copy, codecs.rows.len()), (4e9, 3));
        let told: Vec<_> = claims(&codecs).into_iter().map(|c| (c.what, c.figure, c.held)).collect();
        let want = [
            ("Blocks2, encoded", "50 %", true),
            ("Blocks2, decoded and accumulated", "50 %", false),
            ("sparse2 k=64, encoded", "0.50 GB/s", true),
            ("sparse2 k=64, decoded and accumulated", "1.00 GB/s", false),
        ];
        assert_eq!(told, want.map(|(what, figure, held)| (what.to_owned(), figure.to_owned(), held)));
    }
}
