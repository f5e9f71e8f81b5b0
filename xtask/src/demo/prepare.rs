//! What must be there before anything trains: binaries, an output folder of our own, data, and a plan that fits this
//! machine.

use super::{
    Model, Options,
    output::{self, Part},
};
use crate::{cargo, children::Children, root};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

/// What lies in the demo's folder and is made anew.
const PARTS: [&str; 5] = ["state", "data", "devices", "logs", "model"];

/// Binaries and folders.
pub struct DemoFiles {
    coordinator: PathBuf,
    client: PathBuf,
    /// Everything that the demo writes.
    pub out: PathBuf,
    source: Option<PathBuf>,
    _lock: File,
}

impl DemoFiles {
    /// Opens the output folder, builds the workspace, and clears away the last demo's run. What the user may have got
    /// wrong shows before the build.
    pub fn prepare(options: &Options, children: &Children) -> Result<DemoFiles> {
        let (out, lock) = output::open(&options.out)?;
        let source =
            options.data.as_ref().map(|data| data.canonicalize().with_context(|| format!("--data {}", data.display())));
        let source = source.transpose()?;
        let is_inside =
            source.as_ref().is_some_and(|source| PARTS.iter().any(|part| source.starts_with(out.join(part))));
        ensure!(!is_inside, "--data lies in what the demo clears away; name another text, or another --out");
        // Asked before the build, which replaces this very program's file.
        let binaries = std::env::current_exe()?.parent().context("this program lies in no folder")?.to_owned();
        let files = DemoFiles {
            coordinator: binaries.join("nightjar-coordinator"),
            client: binaries.join("nightjar"),
            out,
            source,
            _lock: lock,
        };
        output::check_text(&files.run_toml())?;
        let built = children.run("cargo", cargo().args(["build", "--workspace"]).current_dir(root()?))?;
        ensure!(built.success(), "the build failed; see above");
        output::clear(&[
            (Part::State, files.state()),
            (Part::Homes, files.homes()),
            (Part::Logs, files.logs()),
            (Part::Model, files.model()),
        ])?;
        fs::create_dir_all(files.logs())?;
        fs::create_dir_all(files.homes())?;
        Ok(files)
    }

    /// A command of the coordinator.
    pub fn coordinator(&self) -> Command {
        Command::new(&self.coordinator)
    }

    /// A command of the client, in the home of the device called `name`.
    pub fn client(&self, name: &str) -> Command {
        let mut command = Command::new(&self.client);
        command.arg("--home").arg(self.homes().join(name));
        command
    }

    /// What the coordinator serves.
    pub fn run_toml(&self) -> PathBuf {
        self.out.join("run.toml")
    }

    /// The coordinator's state.
    pub fn state(&self) -> PathBuf {
        self.out.join("state")
    }

    /// The prepared data, kept from demo to demo.
    pub fn data(&self) -> PathBuf {
        self.out.join("data")
    }

    /// The exported model.
    pub fn model(&self) -> PathBuf {
        self.out.join("model")
    }

    /// What each process says.
    pub fn logs(&self) -> PathBuf {
        self.out.join("logs")
    }

    fn homes(&self) -> PathBuf {
        self.out.join("devices")
    }

    /// Adds `--state` and `--data` to a command of the coordinator.
    pub fn with_run(&self, args: &[&str]) -> Command {
        let mut command = self.coordinator();
        command.args(args).arg("--state").arg(self.state()).arg("--data").arg(self.data());
        command
    }

    /// Prepares the data, unless an earlier demo did so from the same source.
    pub fn prepare_data(&self, children: &Children) -> Result<()> {
        let note = self.out.join("data.source");
        let source = self.source.as_ref().map_or("cargo registry".to_owned(), |path| path.display().to_string());
        let same = fs::read_to_string(&note).is_ok_and(|noted| noted == source);
        if !same {
            output::clear(&[(Part::Data, self.data())])?;
        }
        if same && self.data().join("manifest.json").exists() {
            println!("     as the last demo left it in {}", self.data().display());
            return Ok(());
        }
        fs::write(&note, &source)?;
        let mut command = self.coordinator();
        command.args(["dataset", "prepare"]);
        match &self.source {
            // Of a small text more is held out, so that the slice that is measured, 32 KiB, is there.
            Some(path) => command.arg(path).args(["--heldout", "0.05"]),
            None => command.arg("--cargo-registry"),
        };
        command.args(["--tokenizer", "bytes", "--out"]).arg(self.data());
        ensure!(
            children.run("nightjar-coordinator", &mut command)?.success(),
            "the data could not be prepared; see above"
        );
        Ok(())
    }

    /// How the exported model continues a text.
    pub fn sample(&self, options: &Options, children: &Children) -> Result<String> {
        let prompt = if options.data.is_some() { "The " } else { "/// Returns the " };
        let mut command = self.client("sampler");
        command.arg("sample").arg(self.model()).args([
            "--prompt",
            prompt,
            "--tokens",
            "200",
            "--temperature",
            "0.7",
            "--seed",
            "1",
        ]);
        children.output("nightjar sample", &mut command)
    }
}

/// What this machine can do in the time given.
pub struct Plan {
    /// Each volunteer's cap, tokens a second: the first is the fastest.
    pub caps: Vec<f64>,
    /// How long to train.
    pub seconds: f64,
    /// The run's length, and so of its cosine schedule.
    pub token_budget: u64,
    /// Wall time of a lease.
    pub lease_wall_s: f64,
}

#[derive(Deserialize)]
struct BenchFigures {
    tokens_per_s: f64,
}

impl Plan {
    /// Trains for a few seconds on as many cores at once as the volunteers will use, and plans for 75 % of that: the
    /// rest is for the coordinator, the anchor node and the machine's owner.
    pub fn calibrated(options: &Options, files: &DemoFiles, children: &Children) -> Result<Plan> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let model = if options.model == Model::Tiny { "tiny" } else { "small" };
        let one = || -> Result<f64> {
            let mut command = files.client("bench");
            command.args([
                "bench",
                "--threads",
                "1",
                "--seconds",
                "6",
                "--json",
                "--model",
                model,
                "--device",
                &options.device,
            ]);
            let text = children.output("nightjar bench", &mut command)?;
            let bench: BenchFigures =
                serde_json::from_str(&text).context("nightjar bench did not print its figures")?;
            ensure!(bench.tokens_per_s > 0.0, "nightjar bench measured no speed");
            Ok(bench.tokens_per_s)
        };
        let speeds = std::thread::scope(|scope| -> Result<Vec<f64>> {
            let threads: Vec<_> = (0..cores.min(options.volunteers)).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a measurement failed"))).collect()
        })?;
        Ok(Plan::new(options.volunteers, &speeds, options.minutes * 60.0))
    }

    fn new(volunteers: usize, core_tokens_per_s: &[f64], seconds: f64) -> Plan {
        let shares: Vec<f64> = (0..volunteers).map(|i| [1.0, 0.5].get(i).copied().unwrap_or(0.25)).collect();
        let slowest_core = core_tokens_per_s.iter().copied().fold(f64::INFINITY, f64::min);
        let all_cores: f64 = core_tokens_per_s.iter().sum();
        let full = (0.75 * all_cores / shares.iter().sum::<f64>()).min(0.9 * slowest_core);
        let caps: Vec<f64> = shares.iter().map(|share| share * full).collect();
        Plan {
            token_budget: (caps.iter().sum::<f64>() * seconds) as u64,
            lease_wall_s: (seconds / 20.0).clamp(5.0, 30.0),
            caps,
            seconds,
        }
    }

    /// Says what is planned.
    pub fn print(&self) {
        let caps: Vec<String> = self.caps.iter().map(|cap| format!("{cap:.0}")).collect();
        println!(
            "     volunteers capped at {} tokens/s; {:.2} million tokens in {:.1} minutes; leases of {:.0} s",
            caps.join(", "),
            self.token_budget as f64 / 1e6,
            self.seconds / 60.0,
            self.lease_wall_s
        );
    }

    /// The run spec that says so.
    pub fn run_toml(&self, model: Model) -> String {
        let (hidden, intermediate) = if model == Model::Tiny { (128, 344) } else { (256, 688) };
        format!(
            "name = \"demo\"\n\
             description = \"cargo xtask demo: a small model of this machine's text\"\n\
             token_budget = {budget}\n\n\
             [model]\n\
             vocab_size = 256\nhidden_size = {hidden}\nintermediate_size = {intermediate}\nnum_hidden_layers = 4\n\
             num_attention_heads = 4\nnum_key_value_heads = 4\nmax_position_embeddings = 128\nrope_theta = 10000.0\n\
             rms_norm_eps = 1e-5\ntie_word_embeddings = true\n\n\
             [lease]\nwall_s = {wall:.1}\ndeadline_s_min = {deadline:.1}\n\n\
             [evaluate]\nsamples = 256\n",
            budget = self.token_budget,
            wall = self.lease_wall_s,
            deadline = 2.0 * self.lease_wall_s,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_volunteers_share_three_quarters_of_two_cores() {
        let plan = Plan::new(3, &[4000.0, 4000.0], 300.0);
        assert!((plan.caps.iter().sum::<f64>() - 6000.0).abs() < 1e-6, "{:?}", plan.caps);
        assert!((plan.caps[0] / plan.caps[2] - 4.0).abs() < 1e-9);
        assert_eq!((plan.token_budget, plan.lease_wall_s), (1_800_000, 15.0));
    }

    #[test]
    fn no_volunteer_is_promised_more_than_a_core() {
        let plan = Plan::new(2, &[4000.0, 5000.0], 60.0);
        assert_eq!(plan.caps, [3600.0, 1800.0]);
    }
}
