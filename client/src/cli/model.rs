//! `sample` and `eval`: what computes with an exported model. They run in a worker process.

use super::format::Format;
use anyhow::{Context, Result, bail};
use clap::Args;
use nightjar_agent::preferences;
use nightjar_train::{
    DeviceSettings, Folder, OpenDevice, Sampling, TextStream, end_of_text, generate, load_folder, open_device,
};
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// What computes.
#[derive(Args)]
pub(crate) struct Compute {
    /// What computes: auto, flex (the CPU), wgpu (a GPU) or wgpu:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Threads on the CPU; 0 takes half of the cores
    #[arg(long, default_value_t = 0, value_name = "THREADS")]
    pub threads: u64,
}

impl Compute {
    /// Opens the device.
    pub fn open(&self) -> Result<OpenDevice> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = preferences::threads_on(self.threads as usize, cores);
        Ok(open_device(&DeviceSettings { choice: self.device.parse()?, threads, ..DeviceSettings::default() })?)
    }
}

#[derive(Args)]
pub(super) struct Sample {
    /// Folder of an exported model
    folder: PathBuf,
    /// How the text begins
    #[arg(long)]
    prompt: String,
    /// Tokens to add at most; the model may end the text before
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// 0 always takes the likeliest token; 1 draws as the model says
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    compute: Compute,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Eval {
    /// Folder of an exported model
    folder: PathBuf,
    /// Measure the loss on this text
    #[arg(long, value_name = "FILE", group = "what")]
    text: Option<PathBuf>,
    /// Print the logits after each of these tokens
    #[arg(long, value_name = "ID,ID…", value_delimiter = ',', group = "what")]
    logits: Vec<u32>,
    #[command(flatten)]
    compute: Compute,
}

/// Starts this command again as a worker, and ends as it ends.
pub(super) fn in_worker(format: Format) -> Result<ExitCode> {
    let program =
        std::env::current_exe().context("cannot find this program's own file, which the worker is started from")?;
    let words = std::env::args_os().skip_while(|a| !["sample", "eval", "bench"].iter().any(|c| a == c));
    // The flag may stand before the command, or after it.
    let json = format.json.then_some("--json").into_iter().map(Into::into);
    let words = json.chain(words.filter(|word| word != "--json"));
    let status =
        std::process::Command::new(program).arg("worker").args(words).status().context("cannot start the worker")?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(code as u8)),
        None => bail!("the worker was ended by a signal: {status}"),
    }
}

/// Says on stderr what of a folder is not used, or was supposed: what is printed stays the answer alone.
fn say_notes(folder: &Folder) {
    folder.notes().iter().for_each(|note| eprintln!("note: {note}"));
}

pub(super) fn sample(args: &Sample, format: Format) -> Result<ExitCode> {
    let compute = args.compute.open()?;
    let folder = load_folder(&args.folder)?;
    say_notes(&folder);
    let model = folder.model(&compute.device)?;
    let prompt = folder.vocabulary.encode(&args.prompt)?;
    let sampling = Sampling { temperature: args.temperature, seed: args.seed, ..Sampling::default() };
    let ends = end_of_text(&args.folder, &folder.vocabulary);
    let mut text = args.prompt.clone();
    let mut stream = TextStream::new(&prompt, |tokens: &[u32]| folder.vocabulary.decode(tokens));
    // A reader that has gone away (`| head`) is a reason to stop, not to fail.
    let mut is_heard = format.json || show(&text);
    generate(&model, &prompt, args.tokens, &sampling, &ends, |token| -> Result<bool> {
        let more = stream.push(token)?;
        is_heard = is_heard && (format.json || show(&more));
        text += &more;
        Ok(is_heard)
    })?;
    let rest = stream.finish()?;
    text += &rest;
    if format.json {
        return format.say(&serde_json::json!({ "text": text }), &text);
    }
    if is_heard {
        show(&format!("{rest}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints text as it comes; false where nobody reads any more.
fn show(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

pub(super) fn eval(args: &Eval, format: Format) -> Result<ExitCode> {
    let compute = args.compute.open()?;
    let folder = load_folder(&args.folder)?;
    say_notes(&folder);
    let model = folder.model(&compute.device)?;
    let Some(text) = &args.text else {
        let logits = model.logits(&args.logits, args.logits.len())?;
        let rows: Vec<&[f32]> = logits.chunks(folder.spec.vocab_size as usize).collect();
        let lines: Vec<String> =
            rows.iter().map(|row| row.iter().map(f32::to_string).collect::<Vec<_>>().join(" ")).collect();
        return format.say(&serde_json::json!({ "logits": rows }), lines.join("\n"));
    };
    let bytes = std::fs::read(text).with_context(|| format!("cannot read {}", text.display()))?;
    let loss = folder.evaluate_text(&model, &bytes, folder.spec.max_position_embeddings as usize)?;
    let (nats, tokens, bytes, nats_per_byte) = (loss.nats, loss.tokens, loss.bytes, loss.nats_per_byte());
    format.say(
        &serde_json::json!({ "nats": nats, "tokens": tokens, "bytes": bytes, "nats_per_byte": nats_per_byte }),
        format_args!("{nats_per_byte:.4} nats a byte over {bytes} bytes ({tokens} tokens)"),
    )
}
