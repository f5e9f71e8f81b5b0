//! A run to measure, and its coordinator: a model of a few hundred parameters, leases of one step, so that the protocol
//! and the ledger are what costs.

use anyhow::{Context, Result, bail};
use nightjar_shared::{
    ids::BlobHash,
    rng,
    shard::{Manifest, ShardInfo},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const CONTEXT: u32 = 8;
const SHARD_SAMPLES: u32 = 100_000;
/// Devices that enrol with one invite: fewer than a coordinator takes at once.
const DEVICES_AN_INVITE: usize = 900;

/// Leases end with one step, and nothing waits: a device delivers as fast as it is let. A version is made of so many
/// deltas that its blobs cost next to nothing.
const RUN: &str = r#"
name = "load"
token_budget = 1000000000000

[model]
vocab_size = 256
hidden_size = 8
intermediate_size = 8
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 8
rope_theta = 10000.0
rms_norm_eps = 1e-5
tie_word_embeddings = true

[inner]
batch_samples = 1
warmup = 0.0
floor = 1.0

[lease]
pacing = "free"
wall_s = 1.0
steps = 1
ahead = false
deadline_s_min = 3600.0

[merge]
quorum = 2000
grace_s = 0.0
"#;

/// A run's folder, and its coordinator at work.
pub struct Bed {
    folder: PathBuf,
    program: PathBuf,
    ledger: Option<String>,
    coordinator: Child,
    /// Where devices connect.
    pub address: SocketAddr,
}

impl Bed {
    /// Begins a run in a folder that is made here.
    pub fn new(folder: &Path, program: &Path, ledger: Option<&str>) -> Result<Self> {
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(folder.join("run.toml"), RUN)?;
        write_data(&folder.join("data"))?;
        // Free at this moment; nobody else is likely to take them in the next.
        let address = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let page = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--run").arg(folder.join("run.toml")).arg("--data").arg(folder.join("data"));
        command.arg("--state").arg(folder.join("state"));
        command.arg("--listen").arg(address.to_string()).arg("--http").arg(page.to_string());
        command.args(ledger.iter().flat_map(|url| ["--ledger", url]));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut coordinator = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let said = coordinator.stdout.take().context("the coordinator has no stdout")?;
        let mut lines = BufReader::new(said).lines();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.starts_with("ready:") => break,
                Some(Ok(_)) => {}
                _ => bail!("the coordinator ended before it was ready: {}", coordinator.wait()?),
            }
        }
        // What it says from now on is not wanted, but it must be able to say it.
        std::thread::spawn(move || lines.for_each(drop));
        let (folder, program, ledger) = (folder.to_owned(), program.to_owned(), ledger.map(str::to_owned));
        Ok(Bed { folder, program, ledger, coordinator, address })
    }

    /// The coordinator's process.
    pub fn process(&self) -> u32 {
        self.coordinator.id()
    }

    /// Invites for so many devices.
    pub fn invites(&self, devices: usize) -> Result<Vec<String>> {
        let invite = |_| {
            let mut command = Command::new(&self.program);
            command.arg("invite").arg("--state").arg(self.folder.join("state"));
            command.arg("--address").arg(self.address.to_string());
            command.args(self.ledger.iter().flat_map(|url| ["--ledger", url]));
            let out = command.stderr(Stdio::null()).output()?;
            if !out.status.success() {
                bail!("no invite could be made");
            }
            Ok(String::from_utf8(out.stdout)?.trim().to_owned())
        };
        (0..devices.div_ceil(DEVICES_AN_INVITE)).map(invite).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // It may have ended by itself; the folder was made here.
        let _ = self.coordinator.kill();
        let _ = self.coordinator.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn write_data(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("blobs"))?;
    let shard = |seed: u64| -> Result<ShardInfo> {
        let tokens = u64::from(SHARD_SAMPLES) * u64::from(CONTEXT + 1);
        let bytes: Vec<u8> = (0..tokens).flat_map(|i| ((rng::draw(seed, 0, i) % 16) as u16).to_le_bytes()).collect();
        let frame = zstd::bulk::compress(&bytes, 1)?;
        let hash = BlobHash::of(&frame);
        fs::write(folder.join("blobs").join(hash.to_string()), &frame)?;
        let text_bytes = u64::from(SHARD_SAMPLES * CONTEXT);
        Ok(ShardInfo { hash, bytes: frame.len() as u64, samples: SHARD_SAMPLES, text_bytes })
    };
    let manifest = Manifest {
        format: 1,
        context: CONTEXT,
        vocab_size: 256,
        tokenizer: None,
        end_of_text: None,
        train: vec![shard(1)?, shard(2)?],
        heldout: vec![shard(3)?],
    };
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest)?)?;
    Ok(())
}
