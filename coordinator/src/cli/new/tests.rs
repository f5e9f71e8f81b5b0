//! What `new` refuses before it makes anything, and what it makes.

use super::*;
use std::io::Cursor;

fn new(words: &[&str]) -> New {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        new: New,
    }
    Alone::try_parse_from(["new"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}")).new
}

fn made(words: &[&str]) -> Result<(), String> {
    // Whoever runs the tests at a terminal is not asked either.
    let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let words = [&words[..at], &["--yes"], &words[at..]].concat();
    tokio::runtime::Runtime::new().unwrap().block_on(new(&words).run()).map_err(Failure::why)
}

fn texts(folder: &Path) -> PathBuf {
    let texts = folder.join("texts");
    fs::create_dir(&texts).unwrap();
    for (name, word) in [("a.txt", "owl "), ("b.txt", "night "), ("c.txt", "jar ")] {
        fs::write(texts.join(name), word.repeat(4000)).unwrap();
    }
    texts
}

#[test]
fn what_is_missing_is_refused_with_its_flag_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (run, texts) = (folder.path().join("run"), texts(folder.path()));
    let (run_said, texts) = (run.to_str().unwrap(), texts.to_str().unwrap());
    for (words, told) in [
        (vec![run_said, "--model", "1M"], "--data"),
        (vec![run_said, "--data", texts], "--model: a size (1M, 3M, 10M"),
        (vec![run_said, "--data", texts, "--model", "2M"], "2M is no size and no file: name one of 1M, 3M"),
        (vec![run_said, "--data", "/not/there", "--model", "1M"], "/not/there"),
        (
            vec![run_said, "--data", texts, "--model", "1M", "--", "--colum", "x"],
            "of what follows --: unexpected argument",
        ),
        (vec![run_said, "--data", texts, "--model", "1M", "--", "--dry-run"], "--dry-run has no place here"),
        (vec![run_said, "--from", texts], "nightjar-coordinator new"),
    ] {
        let why = made(&words).unwrap_err();
        assert!(why.contains(told), "{words:?}: {why}");
        assert!(!run.exists(), "{words:?}");
    }
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(folder.path());
    let words = |run: &Path| {
        ["--data", texts.to_str().unwrap(), "--model", "1M"]
            .map(str::to_owned)
            .into_iter()
            .chain([run.display().to_string()])
    };
    let tried = |run: &Path| {
        let words: Vec<String> = words(run).collect();
        let last: Vec<&str> = std::iter::once(words[4].as_str()).chain(words[..4].iter().map(String::as_str)).collect();
        made(&last)
    };
    for (name, entry, told) in [
        ("file", None, "is there already, and no folder"),
        ("other", Some("thesis.tex"), "holds thesis.tex, which is not of a run"),
        ("begun", Some("run.toml"), "has a run.toml already, which is not overwritten"),
    ] {
        let run = folder.path().join(name);
        let path = entry.map_or(run.clone(), |entry| {
            fs::create_dir(&run).unwrap();
            run.join(entry)
        });
        fs::write(&path, "mine").unwrap();
        let why = tried(&run).unwrap_err();
        assert!(why.contains(told), "{name}: {why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine", "{name}");
    }
    let run = folder.path().join("run");
    tried(&run).unwrap();
    let before = fs::read_to_string(run.join(RUN_FILE)).unwrap();
    assert!(tried(&run).unwrap_err().contains("is a run already: serve it with"));
    assert_eq!(fs::read_to_string(run.join(RUN_FILE)).unwrap(), before);
    // A try that stopped after the data goes on.
    fs::remove_file(run.join(RUN_FILE)).unwrap();
    fs::remove_file(run.join(SERVE_FILE)).unwrap();
    tried(&run).unwrap();
    assert_eq!(fs::read_to_string(run.join(RUN_FILE)).unwrap(), before);
}

#[test]
fn a_prepared_dataset_is_taken_as_it_is_and_a_config_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, texts) = (folder.path().join("one"), folder.path().join("two"), texts(folder.path()));
    let (one_said, two_said) = (one.to_str().unwrap(), two.to_str().unwrap());
    made(&[one_said, "--data", texts.to_str().unwrap(), "--model", "1M", "--context", "64", "--tokens", "3M"]).unwrap();
    let data = one.join(DATA);
    let data = data.to_str().unwrap();
    for (more, told) in [
        (vec!["--context", "128"], "prepared for contexts of 64 tokens, and --context is 128"),
        (vec!["--tokenizer", "bytes"], "leave --tokenizer and what follows -- out"),
    ] {
        let words: Vec<&str> = [two_said, "--data", data, "--model", "1M"].into_iter().chain(more).collect();
        let why = made(&words).unwrap_err();
        assert!(why.contains(told) && !two.exists(), "{why}");
    }
    let config = folder.path().join("config.json");
    let wide = nightjar_shared::model_spec::ModelSpec::tiny();
    let mut json = serde_json::to_value(&wide).unwrap();
    (json["architectures"], json["model_type"]) = (serde_json::json!(["LlamaForCausalLM"]), "llama".into());
    (json["hidden_size"], json["vocab_size"]) = (64.into(), 300.into());
    fs::write(&config, json.to_string()).unwrap();
    made(&[two_said, "--data", data, "--model", config.to_str().unwrap(), "--name", "by config"]).unwrap();
    let spec = nightjar_coordinator::run_file::parse(&fs::read(two.join(RUN_FILE)).unwrap()).unwrap().spec;
    // The context is the data's, all else the config's.
    let model = (spec.model.vocab_size, spec.model.hidden_size, spec.model.max_position_embeddings);
    assert_eq!((model, spec.name.as_str()), ((300, 64, 64), "by config"));
    assert_eq!(spec.token_budget, 20 * spec.model.parameters() as u64);
    let file = ServeFile::read(&two).unwrap();
    assert_eq!(fs::canonicalize(file.data).unwrap(), fs::canonicalize(data).unwrap());
    json["vocab_size"] = 200.into();
    fs::write(&config, json.to_string()).unwrap();
    let three = folder.path().join("three");
    let words = [three.to_str().unwrap(), "--data", data, "--model", config.to_str().unwrap()];
    assert!(made(&words).unwrap_err().contains("vocabulary of 256 tokens, and the model one of 200"));
}

#[test]
fn a_person_at_a_terminal_is_asked_for_what_no_flag_says() {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(folder.path());
    let answers = format!("/not/there\n{}\n\n5x\n5M\nhost\nhost:4433\n30\n\n", texts.display());
    let mut asker = Asker::new(Box::new(Cursor::new(answers)), Box::new(std::io::sink()));
    let mut new = new(&["run"]);
    let shape = new.choose(Some(&mut asker)).map_err(Failure::why).unwrap();
    assert_eq!((new.data.clone(), new.tokens, shape.tokenizer().as_str()), (vec![texts], Some(5_000_000), "bpe:4096"));
    new.ask_who(&mut asker).map_err(Failure::why).unwrap();
    assert_eq!((new.address.len(), new.days, new.public), (1, Some(30), None));
    assert!(new.ask_who(&mut asker).is_err(), "it asked for the page again, and nobody answered");
}
