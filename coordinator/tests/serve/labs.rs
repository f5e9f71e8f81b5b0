//! What labs do with a run, tried with the programs that they do it with: exports in transformers and llama.cpp, curves in
//! TensorBoard, and the Python package.

use crate::{
    admin::token,
    bed::Bed,
    board,
    command_line::{of_run, program, refused},
};
use nightjar_coordinator::{
    dataset::byte_tokenizer,
    export::{Companions, Dtype, Form, Format, Model, Vocabulary, Weights, export},
    server::track,
};
use nightjar_shared::{
    model_folder::ModelFolder,
    model_spec::{ModelSpec, Role},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The Python that has those programs; `None`, and it is said, where `cargo xtask setup` has not put them there.
fn python() -> Option<PathBuf> {
    let ours = env::home_dir().map(|home| home.join(".cache/nightjar/python/bin/python"));
    let found = env::var_os("NIGHTJAR_PYTHON").map(PathBuf::from).or(ours).filter(|python| python.exists());
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "CI needs the Python programs: `cargo xtask setup`");
        println!("skipped: the Python programs are not installed (`cargo xtask setup` installs them)");
    }
    found
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn said(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A byte-level BPE of 400 tokens, trained by the program.
fn trained_tokenizer(folder: &Path) -> Value {
    let texts = folder.join("text.txt");
    let words = ["the owl", "a night jar", "they've 1234 moths,", "ünïcode über", "don't\n\n", "x = 12;\t"];
    let text: String = (0..4000).map(|n| format!("{} {} ", words[n % 6], words[n * 7 % 5])).collect();
    fs::write(&texts, text).unwrap();
    let data = folder.join("data");
    let mut command = program();
    command.args(["dataset", "prepare", "--tokenizer", "bpe:400", "--context", "64", "--quiet", "--out"]);
    said(&command.arg(&data).arg(&texts).output().unwrap());
    serde_json::from_slice(&fs::read(data.join("tokenizer.json")).unwrap()).unwrap()
}

/// The same with another rule for words.
fn with_rule(json: &Value, rule: Value, ignore_merges: bool) -> Value {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let mut json = json.clone();
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [rule, byte_level]});
    json["model"]["ignore_merges"] = ignore_merges.into();
    json
}

/// As `transformers` and llama.cpp read them, exports are the same model, for every rule for words that both know.
#[test]
fn exports_are_the_same_model_in_transformers_and_in_llama_cpp() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let trained = trained_tokenizer(folder.path());
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let cl100k = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let mut digits = with_rule(&trained, json!({"type": "Digits", "individual_digits": true}), false);
    digits["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true.into();
    let tokenizers = [
        ("bytes", serde_json::from_slice(&byte_tokenizer().unwrap()).unwrap(), Dtype::F32),
        ("gpt2", trained.clone(), Dtype::F32),
        ("digits", digits, Dtype::F16),
        ("llama3", with_rule(&trained, split(cl100k), true), Dtype::Bf16),
        ("smaug", with_rule(&trained, split(cl100k), false), Dtype::F32),
        ("qwen2", with_rule(&trained, split(&cl100k.replace("{1,3}", "")), false), Dtype::F32),
    ];
    let mut cases = vec![];
    for (at, (name, tokenizer, dtype)) in tokenizers.into_iter().enumerate() {
        let spec = ModelSpec {
            vocab_size: if name == "bytes" { 256 } else { 403 },
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_key_value_heads: 2,
            max_position_embeddings: 64,
            rope_theta: 5000.0,
            tie_word_embeddings: at % 2 == 0,
            ..ModelSpec::tiny()
        };
        // Large enough that a position counts.
        let mut weights = spec.draw_all(at as u64);
        for tensor in spec.tensors().iter().filter(|tensor| tensor.role.decays()) {
            let by = if matches!(tensor.role, Role::Query | Role::Key) { 24.0 } else { 6.0 };
            weights[tensor.range()].iter_mut().for_each(|weight| *weight *= by);
        }
        let written = |format| {
            let vocabulary = Vocabulary { json: serde_json::to_vec(&tokenizer).unwrap(), end_of_text: None };
            let (weights, companions) = (Weights::Flat(&weights), Companions::default());
            let model =
                Model { name, spec: &spec, weights, vocabulary: Some(vocabulary), companions, provenance: None };
            let target = folder.path().join(format!("{name}-{format:?}"));
            export(&target, model, Form { format, dtype, file_bytes_max: 40_000 }).unwrap();
            target
        };
        let (hf, gguf) = (written(Format::Hf), written(Format::Gguf));
        let text = "They've 1234 moths, don't\n\n  über x = 12;\t the owl's ";
        // llama.cpp multiplies in the type of the weights.
        let tolerance = if dtype == Dtype::F32 { 1e-4 } else { 0.1 };
        cases.push(json!({"hf": hf, "gguf": gguf, "text": text, "tolerance": tolerance}));
    }
    let file = folder.path().join("cases.json");
    fs::write(&file, Value::from(cases).to_string()).unwrap();
    let checked =
        Command::new(python).arg(repository().join("coordinator/tests/tools/export_check.py")).arg(&file).output();
    let told = said(&checked.unwrap());
    println!("{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with('{')).count(), 6, "{told}");
}

/// From a model with everything beside it, by way of a run and an export, to a run: nothing is lost.
#[test]
fn a_model_goes_into_a_run_and_comes_out_again_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tokenizer = trained_tokenizer(folder.path());
    let spec = ModelSpec { vocab_size: 400, max_position_embeddings: 64, hidden_size: 32, ..ModelSpec::tiny() };
    let (weights, source) = (spec.draw_all(5), at("source"));
    let vocabulary = Vocabulary { json: serde_json::to_vec(&tokenizer).unwrap(), end_of_text: None };
    let companions = Companions {
        bos: Some("<|endoftext|>".into()),
        tokenizer: [("chat_template".to_owned(), json!("{{ bos_token }}{{ messages }}"))].into_iter().collect(),
        ..Companions::default()
    };
    let (weights, vocabulary) = (Weights::Flat(&weights), Some(vocabulary));
    let model = Model { name: "owl", spec: &spec, weights, vocabulary, companions, provenance: None };
    export(&source, model, Form { dtype: Dtype::Bf16, ..Form::default() }).unwrap();

    fs::write(at("run.toml"), "name = \"owl\"\ntoken_budget = 10000\n").unwrap();
    let served = |init: &Path, state: &str| {
        let mut command = program();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stdout(std::process::Stdio::piped());
        command.arg("--run").arg(at("run.toml")).arg("--data").arg(at("data")).arg("--state").arg(at(state));
        drop(crate::command_line::Process::of(command.arg("--init").arg(init).spawn().unwrap()));
    };
    let exported = |to: &str, state: &str, words: &[&str]| {
        let mut command = program();
        command.arg("export").arg(at(to)).arg("--data").arg(at("data")).arg("--state").arg(at(state)).args(words);
        said(&command.output().unwrap())
    };
    served(&source, "state");
    assert!(exported("once", "state", &["--license", "mit"]).starts_with("version 0, "));
    served(&at("once"), "again");
    exported("twice", "again", &["--dtype", "bf16"]);
    // A weight that no step of the first run's grid was fine enough for is rounded there, and never again.
    let read = |name: &str| ModelFolder::open(&at(name)).unwrap().weights().unwrap();
    assert!(read("once") == read("twice"), "something was lost on the second way");
    let far = read("source").iter().zip(read("once")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 4e-6, "{far}");
    let config = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(at(name).join("tokenizer_config.json")).unwrap()).unwrap()
    };
    assert_eq!(config("twice"), config("source"));
    assert_eq!(config("twice")["chat_template"], "{{ bos_token }}{{ messages }}");
    let card = fs::read_to_string(at("once").join("README.md")).unwrap();
    assert!(card.starts_with("---\nlicense: \"mit\"\n") && card.contains("This is version 0."), "{card}");
}

/// The files of a run that was killed, as TensorBoard reads them, beside the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn curves_outlast_a_stop_in_tensorboard_and_csv_without_doubles() {
    let bed = Bed::new();
    let (board, csv) = (bed.path("board"), bed.path("run.csv"));
    let places = track::Places { tensorboard: Some(board.clone()), csv: Some(csv.clone()) };
    for rounds in [0..4, 4..7] {
        let server = bed.serve_tracked(places.clone()).await;
        drop(board::trained_in(&bed, &server, rounds).await);
        server.stop().await;
    }
    let lines = fs::read_to_string(&csv).unwrap();
    let mut of_csv: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for line in lines.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        of_csv.entry(cells[3].to_owned()).or_default().push((cells[2].parse().unwrap(), cells[4].parse().unwrap()));
    }
    for (name, points) in &of_csv {
        let steps: std::collections::BTreeSet<u64> = points.iter().map(|point| point.0).collect();
        assert_eq!(steps.len(), points.len(), "{name} has doubles: {points:?}");
    }
    let stats: Value = serde_json::from_str(&said(&of_run(&bed, &["stats", "--json"]))).unwrap();
    let curve = stats["loss_curve"].as_array().unwrap();
    // JSON's numbers are read to the last digit but one.
    let told = |tokens: u64, loss: f64| (tokens, format!("{loss:.12}"));
    let losses: Vec<_> =
        curve.iter().map(|p| told(p["tokens"].as_u64().unwrap(), p["loss"].as_f64().unwrap())).collect();
    assert_eq!(of_csv["heldout/loss"].iter().map(|(tokens, loss)| told(*tokens, *loss)).collect::<Vec<_>>(), losses);
    assert_eq!(of_csv["train/loss"].len(), stats["versions"].as_array().unwrap().len() - 1);

    let Some(python) = python() else { return };
    let script = repository().join("coordinator/tests/tools/events_check.py");
    let read = tokio::task::spawn_blocking(move || Command::new(python).arg(script).arg(board).output().unwrap());
    let of_board: BTreeMap<String, Vec<(u64, f64, f64)>> =
        serde_json::from_str(said(&read.await.unwrap()).lines().last().unwrap()).unwrap();
    for (name, points) in of_csv {
        let told: Vec<(u64, f32)> = points.iter().map(|(step, value)| (*step, *value as f32)).collect();
        let read: Vec<(u64, f32)> = of_board[&name].iter().map(|(step, _, value)| (*step, *value as f32)).collect();
        assert_eq!(read, told, "{name}");
    }
}

/// The Python package's own tests, against a coordinator that is served here.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_package_looks_after_a_run() {
    let python = python().or_else(|| Some(PathBuf::from("python3")));
    let Some(python) = python.filter(|python| Command::new(python).arg("--version").output().is_ok()) else {
        println!("skipped: there is no Python");
        return;
    };
    let bed = Bed::new();
    let server = bed.serve().await;
    let _held = board::trained_in(&bed, &server, 0..3).await;
    let mut tests = Command::new(python);
    tests.args(["-m", "unittest", "discover", "--start-directory"]).arg(repository().join("python/tests"));
    tests.env("PYTHONPATH", repository().join("python/src")).env("PYTHONDONTWRITEBYTECODE", "1");
    tests.env("NIGHTJAR_TEST_URL", format!("http://{}", server.http));
    tests.env("NIGHTJAR_TEST_TOKEN", token(&bed, "operator", "ann"));
    tests.env("NIGHTJAR_BIN", Path::new(env!("CARGO_BIN_EXE_nightjar-coordinator")).parent().unwrap());
    let done = tokio::task::spawn_blocking(move || tests.output().unwrap()).await.unwrap();
    said(&done);
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    println!("{told}");
    assert!(told.contains("\nOK") && !told.contains("Ran 0 tests"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_are_compared_and_an_average_is_exported() {
    let (one, other) = (Bed::new(), Bed::new());
    for (bed, rounds) in [(&one, 3), (&other, 5)] {
        let server = bed.serve().await;
        drop(board::trained_in(bed, &server, 0..rounds).await);
        server.stop().await;
    }
    let page = one.path("page.html");
    let compared = program().arg("compare").arg(one.state()).arg(other.state()).arg("--html").arg(&page).output();
    let told = said(&compared.unwrap());
    assert!(told.contains("the settings of both are the same") && told.contains("to come to the loss"), "{told}");
    assert!(fs::read_to_string(page).unwrap().contains("<polyline"));
    refused(&program().arg("compare").arg(one.state()).arg(one.path("nothing")).output().unwrap(), "no state folder");

    let model = one.path("model");
    let words = |more: &[&str]| of_run(&one, &[&["export", model.to_str().unwrap()], more].concat());
    assert!(said(&words(&["--average", "3"])).starts_with("the average of versions 1 to 3, "));
    assert!(said(&words(&["--ema", "0.5", "--dtype", "bf16"])).starts_with("the average of versions 0 to 3, "));
    refused(&words(&["--average", "9"]), "take --average 4, or less");
    let card = fs::read_to_string(model.join("README.md")).unwrap();
    assert!(card.contains("| AMD Radeon &lt;780M> | volunteer |") && card.contains("](loss.svg)"), "{card}");
    assert!(said(&words(&["--format", "gguf"])).starts_with("version 3, ") && model.join("model.gguf").exists());
}
