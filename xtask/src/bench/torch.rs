//! The same model in PyTorch, where a Python has it.

use super::{
    brief,
    report::{Device, Row, Shape, Trained},
};
use crate::children::Children;
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const SCRIPT: &str = include_str!("torch_train.py");

/// A Python with PyTorch.
pub struct Torch {
    python: PathBuf,
    version: String,
    compiles: bool,
    cuda: bool,
}

/// Asks a Python; `None` if there is none, or it has no PyTorch.
pub fn find(python: &Path, children: &Children) -> Option<Torch> {
    let ask = "import torch; print(torch.__version__, hasattr(torch, 'compile'), torch.cuda.is_available())";
    let answer = children.output("python", Command::new(python).args(["-c", ask])).ok()?;
    let [version, compiles, cuda] = answer.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    let (compiles, cuda) = (compiles == "True", cuda == "True");
    Some(Torch { python: python.into(), version: version.into(), compiles, cuda })
}

/// Whether a device is one that CUDA has: by its maker's name, or by the name that Burn gives it on CUDA.
fn is_cudas(name: &str) -> bool {
    name.contains("NVIDIA") || name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("cuda"))
}

impl Torch {
    /// Its rows beside one device: on the processor, or on the GPU that CUDA has, if it goes by the same name.
    pub fn rows(&self, device: &Device, shape: &Shape, seconds: f64, children: &Children) -> Result<Vec<Row>> {
        let on = match device.device.as_str() {
            "flex" => "cpu",
            _ if self.cuda && !device.software && is_cudas(&device.name) => "cuda",
            _ => return Ok(vec![]),
        };
        let mut modes = vec!["eager"];
        modes.extend(self.compiles.then_some("compiled"));
        if on == "cuda" {
            modes.push("eager-bf16");
            modes.extend(self.compiles.then_some("compiled-bf16"));
        }
        let mut rows = vec![];
        for mode in modes {
            eprintln!("torch {on} {} {} {mode}", shape.size, shape.told());
            let mut command = Command::new(&self.python);
            command.args(["-c", SCRIPT, on, shape.size]);
            command.args([shape.samples.to_string(), shape.context.to_string(), seconds.to_string(), mode.to_owned()]);
            // Busy waiting would take the cores from whatever else runs.
            command.envs([("OMP_WAIT_POLICY", "PASSIVE"), ("KMP_BLOCKTIME", "0")]);
            let answer = children.output("python", &mut command);
            children.check()?;
            let outcome: Result<Trained, String> = answer
                .and_then(|text| Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?))
                .map_err(|e| brief(&e));
            let way = format!("PyTorch {} {mode}", self.version);
            rows.push(Row { size: shape.size.into(), way, shape: shape.told(), outcome });
        }
        Ok(rows)
    }
}
