//! Training in a page: headless Chromium with its software GPU (SwiftShader) runs the module that pages load, and comes
//! to what the PyTorch reference and the native worker come to.

use nightjar_shared::{
    delta,
    disk::{Disk, FolderDisk},
    run_spec::InnerOptimizer,
    wire::worker::{FromWorker, Train, Trained, from_worker},
};
use nightjar_tests::{
    Browser, Files,
    browser::{from_base64, to_base64},
    until_within,
};
use nightjar_train::work::{Environment, LeaseRunner, Live, read_moments, read_residual, synthetic};
use nightjar_work::{StateSizes, trial};
use prost::Message;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

/// SwiftShader takes its time to compile, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(1800);
const MODULE: [&str; 2] = ["nightjar_web.js", "nightjar_web_bg.wasm"];

/// The page does what its worker is told by `run(call, arguments)`, and keeps what came of it in `answers`.
const PAGE: &str = r#"<!doctype html><title>probe</title><script>
const worker = new Worker("worker.js", { type: "module" });
const answers = [];
worker.onmessage = (event) => answers.push(event.data);
worker.onerror = (event) => answers.push({ thrown: "the worker: " + event.message });
const run = (call, ...args) => worker.postMessage({ call, args });
</script>"#;

/// Bytes go in and out as text in base 64.
const WORKER: &str = r#"
import init, { Steps, Leases } from "./nightjar_web.js";
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const text = (bytes) => { let all = ""; for (const byte of bytes) all += String.fromCharCode(byte); return btoa(all); };
const each = (object, change) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));
const loaded = init({ module_or_path: "nightjar_web_bg.wasm" });
let steps, leases;
const calls = {
  async openSteps(spec, seed, atOnce) {
    const train = new Uint8Array(await (await fetch("train.txt")).arrayBuffer());
    steps = await Steps.open(spec, train, seed, atOnce);
  },
  async step(...args) { return Array.from(await steps.step(...args)); },
  async openLeases() { leases = await Leases.open(); },
  async train(job, files, memory, stopAt) {
    const there = each(files, bytes);
    const said = await leases.train(bytes(job), there, memory, stopAt);
    return { said: text(said), files: each(there, text), at_once: leases.samples_at_once() };
  },
};
// One call after another: each waits for the one before.
let last = loaded;
onmessage = ({ data: { call, args } }) => {
  last = last.then(() => calls[call](...args)).then((done) => postMessage({ done: done ?? null }), (e) => postMessage({ thrown: String(e) }));
};
"#;

/// A browser with the page in it.
struct Probe {
    browser: Browser,
    _files: Files,
    _folder: tempfile::TempDir,
}

impl Probe {
    /// `None`, and said so, where the module or a browser is missing.
    fn open(files: BTreeMap<String, Vec<u8>>) -> Option<Probe> {
        Self::with_kernels(files, &[])
    }

    /// The same with kernels that are changed: a text that stands once in the module becomes another of its length.
    fn with_kernels(mut files: BTreeMap<String, Vec<u8>>, changes: &[(&str, &str)]) -> Option<Probe> {
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../web/probe");
        for name in MODULE {
            let Ok(mut bytes) = fs::read(built.join(name)) else {
                assert!(std::env::var_os("CI").is_none(), "CI needs the page's module: `cargo xtask web --probe`");
                eprintln!("SKIPPED: the page's module is not built; `cargo xtask web --probe` builds it");
                return None;
            };
            for (from, to) in changes.iter().filter(|_| name == MODULE[1]) {
                assert_eq!(from.len(), to.len());
                let places = bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from.as_bytes());
                let [at] = places.map(|(at, _)| at).collect::<Vec<_>>()[..] else { panic!("not once: {from}") };
                bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            }
            files.insert(name.into(), bytes);
        }
        files.insert("index.html".into(), PAGE.into());
        files.insert("worker.js".into(), WORKER.into());
        let folder = tempfile::tempdir().unwrap();
        let browser = Browser::start(folder.path())?;
        let files = Files::serve(files);
        browser.open(&files.address("index.html"));
        Some(Probe { browser, _files: files, _folder: folder })
    }

    /// What a call comes to.
    fn call(&self, call: &str, arguments: &[Value]) -> Value {
        self.try_call(call, arguments).unwrap_or_else(|error| panic!("{call}: {error}"))
    }

    /// The same, or what it throws.
    fn try_call(&self, call: &str, arguments: &[Value]) -> Result<Value, String> {
        let script = "answers.length = 0; run(arguments[0], ...arguments[1])";
        self.browser.script(script, &[call.into(), arguments.into()]);
        let answer = until_within(PATIENCE, call, || {
            let answer = self.browser.script("return answers[0] ?? null", &[]);
            (!answer.is_null()).then_some(answer)
        });
        match answer["thrown"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["done"].clone()),
        }
    }

    /// Trains a lease on a disk's files in as little memory as it can, as far as before micro-batch `stop_at`; what it
    /// writes is there afterwards. Says how many samples went through at once.
    fn train(&self, job: &Train, disk: &FolderDisk, stop_at: u32) -> (Trained, u32) {
        let mut files = serde_json::Map::new();
        for folder in ["blobs", "work"] {
            for name in disk.list(folder).unwrap() {
                let name = format!("{folder}/{name}");
                files.insert(name.clone(), to_base64(&disk.read(&name).unwrap().unwrap()).into());
            }
        }
        let memory = trial::spec().training_bytes();
        let job = to_base64(&job.encode_to_vec());
        let done = self.call("train", &[job.into(), files.into(), memory.into(), stop_at.into()]);
        for (name, bytes) in done["files"].as_object().unwrap() {
            disk.write(name, &from_base64(bytes.as_str().unwrap())).unwrap();
        }
        let said = FromWorker::decode(&from_base64(done["said"].as_str().unwrap())[..]).unwrap();
        match said.body {
            Some(from_worker::Body::Trained(trained)) => (trained, done["at_once"].as_u64().unwrap() as u32),
            other => panic!("{other:?}"),
        }
    }
}

/// The folder beside the repository that holds the reference and its data; `None` where it is absent outside CI.
fn reference() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    if folder.join("reference/golden.json").exists() {
        return Some(folder);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "the reference belongs beside the checkout (docs/testing.md)"
    );
    eprintln!("SKIPPED: the reference is not beside the checkout (docs/testing.md)");
    None
}

#[test]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web --probe`"]
fn a_page_comes_to_the_references_first_losses() {
    let Some(folder) = reference() else { return };
    let golden: Value = serde_json::from_slice(&fs::read(folder.join("reference/golden.json")).unwrap()).unwrap();
    let train = fs::read(folder.join("data/train.txt")).unwrap();
    let Some(probe) = Probe::open([("train.txt".into(), train)].into()) else { return };
    let spec = serde_json::to_string(&nightjar_shared::model_spec::ModelSpec::tiny()).unwrap();
    let (seed, samples) = (golden["seed"].clone(), golden["batch"].clone());
    probe.call("openSteps", &[spec.into(), seed, samples.clone()]);
    for step in 0..5 {
        let got = probe.call("step", &[step.into(), samples.clone(), 1e-3.into()]);
        let row = &golden["loss_gradnorm"][step];
        let [loss, norm, want_loss, want_norm] = [&got[0], &got[1], &row[0], &row[1]].map(|x| x.as_f64().unwrap());
        println!("{step} loss {loss:.6} ({:+.1e}) norm {norm:.6} ({:+.1e})", loss - want_loss, norm / want_norm - 1.0);
        assert!((loss - want_loss).abs() < 1e-4, "step {step}: loss {loss}, the reference has {want_loss}");
        assert!((norm / want_norm - 1.0).abs() < 1e-3, "step {step}: norm {norm}, the reference has {want_norm}");
    }
}

/// The same lease by a page and by the native worker: the same loss, moments and delta, but for rounding. Stopped in the
/// middle of a step and taken up again from its checkpoint, it comes to the same bits.
#[test]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web --probe`"]
fn a_page_leaves_of_a_lease_what_a_native_worker_leaves() {
    let Some(probe) = Probe::open(BTreeMap::new()) else { return };
    let (steps, samples) = (3, trial::SAMPLES as u32);
    let model = trial::spec();
    let scene = || {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let job = synthetic::lease(&disk, &model, samples, steps).unwrap();
        (folder, disk, job)
    };
    let [(_a, native, job), (_b, page, _), (_c, interrupted, _)] = [scene(), scene(), scene()];

    let (live, stop) = (Live::default(), AtomicBool::new(false));
    let say = |_| {};
    let env = Environment {
        disk: &native,
        checkpoint: "work/checkpoint",
        memory_free: 1 << 30,
        live: &live,
        stop: &stop,
        say: &say,
    };
    let want = LeaseRunner::on_processor().train(&job, &env).unwrap();

    probe.call("openLeases", &[]);
    let (got, at_once) = probe.train(&job, &page, u32::MAX);
    assert_eq!((got.steps, got.samples, &got.weights_file), (want.steps, want.samples, &want.weights_file));
    for (got, want) in [(got.loss_first, want.loss_first), (got.loss_last, want.loss_last)] {
        assert!((got - want).abs() < 1e-5, "loss {got}, natively {want}");
    }
    let n = model.parameters();
    let sizes = StateSizes::of(&model, InnerOptimizer::AdamW);
    let left = |disk: &FolderDisk, trained: &Trained| {
        let mut sent = vec![0.0; n];
        let bytes = disk.read(&trained.delta_file).unwrap().unwrap();
        delta::decode(&model, &bytes, |at, values| sent[at..at + values.len()].copy_from_slice(values)).unwrap();
        let residual = read_residual(disk, &trained.residual_file, n).unwrap();
        let moments = read_moments(disk, &trained.optimizer_file, sizes).unwrap();
        let whole: Vec<f32> = sent.iter().zip(&residual).map(|(sent, rest)| sent + rest).collect();
        (sent, whole, moments)
    };
    let (got_sent, got_whole, got_moments) = left(&page, &got);
    let (want_sent, want_whole, want_moments) = left(&native, &want);
    assert_eq!(got_moments.t, want_moments.t);
    for (what, got, want) in [
        ("the first moments", &got_moments.m, &want_moments.m),
        ("the second moments", &got_moments.v, &want_moments.v),
        ("what was learned", &got_whole, &want_whole),
        // Which of two nearly equal values is sent is anybody's choice.
        ("what is sent of it", &got_sent, &want_sent),
    ] {
        let off = distance(got, want);
        println!("{what}: {off:.1e} off");
        assert!(off < 1e-3, "{what}: {off} off");
    }

    // This Stop comes in the middle of the second step, and the worker is gone after it.
    let of_step = samples.div_ceil(at_once);
    assert!(of_step > 1, "a step of {samples} samples is one micro-batch of {at_once}");
    let (stopped, _) = probe.train(&Train { checkpoint_ms: 0, ..job.clone() }, &interrupted, of_step + 1);
    assert_eq!(stopped.steps, 1);
    let (resumed, _) = probe.train(&job, &interrupted, u32::MAX);
    assert_eq!((resumed.steps, resumed.samples, resumed.loss_first), (got.steps, got.samples, got.loss_first));
    assert_eq!(resumed.delta_hash, got.delta_hash, "what is taken up again comes to other bits");
}

/// A browser says nothing of a kernel that it miscomputes, and would train on whatever comes out.
#[test]
#[ignore = "minutes on a software GPU; it needs `cargo xtask web --probe`"]
fn a_gpu_that_computes_wrongly_or_refuses_a_kernel_is_not_trained_on() {
    // The gradient in `up` of SwiGLU, a text that is no WGSL.
    let changed = [
        (("= Elem(g * silu)", "= Elem(g + silu)"), "this GPU computes wrongly: losses and norms of the trial are"),
        (("let silu = gate * s;", "let silu = gate ** s"), "refused: swiglu_backward: "),
    ];
    for (change, words) in changed {
        let Some(probe) = Probe::with_kernels(BTreeMap::new(), &[change]) else { return };
        let error = probe.try_call("openLeases", &[]).expect_err("it is trained on");
        println!("{error}");
        assert!(error.contains(words), "{error}");
    }
}

/// How far one vector is from another, as a share of its length.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let length = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let apart = length(&mut got.iter().zip(want).map(|(got, want)| f64::from(got - want)));
    apart / length(&mut want.iter().map(|x| f64::from(*x)))
}
