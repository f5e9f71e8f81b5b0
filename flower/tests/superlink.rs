//! A stock SuperLink of PyPI's `flwr` and a stock app of Flower, unchanged, drive two cohorts of real volunteers.
//!
//! `cargo xtask setup` puts Flower where this test looks for it; `NIGHTJAR_FLOWER` names another virtual environment.
//! Where there is none, or no program `nightjar` beside this test, the test says that it is skipped.
//! `NIGHTJAR_FLOWER_HIDDEN` makes the model larger: 1152 gives ten million parameters.

use nightjar_tests::{
    Place, Running,
    process::{binary, run},
};
use serde_json::Value;
use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// A run of Flower takes so long at most: volunteers on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);
const ROUNDS: usize = 3;

/// A cohort: its coordinator, two volunteers and an anchor node.
struct Cohort {
    place: Place,
    coordinator: Running,
    volunteers: Vec<Running>,
    _anchor: Running,
}

fn hidden() -> u32 {
    std::env::var("NIGHTJAR_FLOWER_HIDDEN").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// Of 128 values each.
fn heads() -> u32 {
    (hidden() / 128).max(1)
}

impl Cohort {
    fn start(text: &str) -> Cohort {
        let place = Place::empty();
        fs::write(place.path("text.txt"), text).unwrap();
        let (hidden, heads) = (hidden(), heads());
        let run_toml = format!(
            "name = \"cohort\"\ntoken_budget = 1000000000\n\n[model]\nvocab_size = 256\nhidden_size = {hidden}\n\
             intermediate_size = {hidden}\nnum_hidden_layers = 1\nnum_attention_heads = {heads}\n\
             num_key_value_heads = {heads}\n\
             max_position_embeddings = 32\nrope_theta = 10000.0\nrms_norm_eps = 1e-5\ntie_word_embeddings = true\n\n\
             [inner]\nlearning_rate = 0.01\nwarmup = 0.0\nfloor = 1.0\n\n\
             [lease]\npacing = \"series\"\nwall_s = 4.0\nsteps = 40\ndeadline_s_min = 5.0\n\n[merge]\nquorum = 2\n\
             grace_s = 20.0\n\n[evaluate]\nsamples = 16\n"
        );
        fs::write(place.path("run.toml"), run_toml).unwrap();
        run(place.prepare()).good();
        let coordinator = place.start_coordinator();
        let names = ["first", "second"];
        for (name, role) in [("anchor", "anchor"), (names[0], "volunteer"), (names[1], "volunteer")] {
            place.join(name, role);
        }
        let volunteers = names.map(|name| place.start_volunteer(name)).into();
        let _anchor = place.start_anchor("anchor");
        let mut token = Command::new(binary("nightjar-coordinator"));
        token.args(["token", "create", "--role", "operator", "--name", "flower", "--state"]).arg(&place.state);
        fs::write(place.path("token"), run(token).good().stdout).unwrap();
        Cohort { place, coordinator, volunteers, _anchor }
    }
}

/// A SuperLink, and an account's configuration of `flwr`.
struct Flower {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

impl Flower {
    fn new(bin: PathBuf) -> Flower {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[superlink]\ndefault = \"here\"\n\n[superlink.here]\naddress = \"127.0.0.1:{port}\"\ninsecure = true\n"
        );
        fs::create_dir_all(folder.path().join("home")).unwrap();
        fs::write(folder.path().join("home/config.toml"), config).unwrap();
        Flower { bin, folder, port }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.bin.display()));
        command.env("FLWR_HOME", self.folder.path().join("home")).env("FLWR_TELEMETRY_ENABLED", "0");
        command.env("FLWR_DISABLE_UPDATE_CHECK", "1").env("NO_COLOR", "1").current_dir(self.folder.path());
        command
    }

    fn start(&self) -> Running {
        let mut command = self.command("flower-superlink");
        command.args(["--insecure", "--port", &self.port.to_string(), "--disable-runtime-dependency-installation"]);
        Running::start(command, &self.folder.path().join("superlink.log"))
    }

    /// Runs the app to its end; its log.
    fn run(&self, strategy: &str, dtype: &str, save: &Path, meanwhile: impl FnOnce()) -> String {
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/app");
        let set = format!(
            "strategy='{strategy}' dtype='{dtype}' hidden_size={0} intermediate_size={0} num_attention_heads={1} \
             num_key_value_heads={1} num-server-rounds={ROUNDS} save='{2}'",
            hidden(),
            heads(),
            save.display()
        );
        let mut command = self.command("flwr");
        command.arg("run").arg(app).args(["here", "--stream", "--run-config", &set]);
        let log = self.folder.path().join(format!("{strategy}-{dtype}.log"));
        let mut running = Running::start(command, &log);
        meanwhile();
        let since = Instant::now();
        while running.ended().is_none() {
            let superlink = || fs::read_to_string(self.folder.path().join("superlink.log")).unwrap_or_default();
            assert!(since.elapsed() < PATIENCE, "{strategy}: {}\n{}", running.said(), superlink());
            std::thread::sleep(Duration::from_millis(200));
        }
        running.said()
    }
}

fn bridge(flower: &Flower, cohorts: &[Cohort]) -> Running {
    let cohorts: String = ["north", "south"]
        .into_iter()
        .zip(cohorts)
        .map(|(name, Cohort { place, .. })| {
            let token = place.path("token");
            format!(
                "[[cohort]]\nname = \"{name}\"\ncoordinator = \"http://{}\"\ntoken = \"{}\"\n",
                place.http,
                token.display()
            )
        })
        .collect();
    let config = flower.folder.path().join("flower.toml");
    let head = format!(
        "superlink = \"http://127.0.0.1:{}\"\nstate = \"state\"\nvolunteers_min = 1\ndeadline_s = 600\n",
        flower.port
    );
    fs::write(&config, format!("{head}\n{cohorts}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightjar-flower"));
    command.arg("run").arg(&config);
    Running::start(command, &flower.folder.path().join("bridge.log"))
}

/// The held-out losses of a run's log, round by round.
fn losses(log: &str) -> Vec<f64> {
    let after = |line: &str| line.split("eval-loss").nth(1).map(str::to_owned);
    let number = |text: String| {
        let digits: String = text
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(|c| c.is_ascii_digit() || ".e-".contains(*c))
            .collect();
        digits.parse().ok()
    };
    let mut losses: Vec<f64> = log.lines().filter_map(after).filter_map(number).collect();
    // The summary at the end tells them once more.
    losses.truncate(ROUNDS);
    losses
}

fn series(cohort: &Cohort) -> Option<Value> {
    let token = fs::read_to_string(cohort.place.path("token")).unwrap();
    let token = token.trim();
    let answer = ureq::get(format!("http://{}/api/v1/series", cohort.place.http))
        .header("authorization", format!("Bearer {token}"))
        .call();
    answer.ok()?.body_mut().read_to_string().ok().and_then(|text| serde_json::from_str(&text).ok())
}

#[test]
fn a_stock_app_is_trained_by_volunteers_and_notices_nothing() {
    let usual = || std::env::home_dir().map(|home| home.join(".cache/nightjar/tools/flower"));
    let flower = std::env::var_os("NIGHTJAR_FLOWER").map(PathBuf::from).or_else(usual).map(|folder| folder.join("bin"));
    let Some(bin) = flower.filter(|bin| bin.join("flower-superlink").exists()) else {
        println!("skipped: Flower is not there; `cargo xtask setup` installs it");
        return;
    };
    if !binary("nightjar-coordinator").with_file_name("nightjar").exists() {
        println!("skipped: the program nightjar is not built");
        return;
    }
    let texts = ["night birds sing while owners sleep", "models learn slowly and a fleet is patient"];
    let text = |words: &str| (0..4000).map(|n| format!("{n} {words}.\n\n")).collect::<String>();
    let mut cohorts: Vec<Cohort> = texts.map(|words| Cohort::start(&text(words))).into();
    let flower = Flower::new(bin);
    let mut superlink = flower.start();
    let running = bridge(&flower, &cohorts);
    let joined = |times: usize| {
        let since = Instant::now();
        while running.said().matches("the SuperLink has taken the cohort in").count() < times {
            assert!(since.elapsed() < PATIENCE, "the cohorts do not join: {}", running.said());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    joined(2);

    for (strategy, dtype) in [("fedavg", "float32"), ("fedadam", "float64")] {
        let save = flower.folder.path().join(format!("{strategy}.npz"));
        let log = flower.run(strategy, dtype, &save, || {
            if strategy == "fedavg" {
                // One volunteer dies in mid-round, and nobody at the lab hears of it.
                let since = Instant::now();
                let is_training = |s: &Value| s["rounds"] == 1 && s["rounds_done"] == 0;
                while !series(&cohorts[0]).is_some_and(|s| is_training(&s)) {
                    assert!(since.elapsed() < PATIENCE, "no round begins");
                    std::thread::sleep(Duration::from_millis(50));
                }
                cohorts[0].volunteers[1].kill();
                cohorts[0].volunteers[1] = cohorts[0].place.start_volunteer("second");
            }
        });
        println!("{log}\n{}", running.said());
        let phases = |kind: &str| log.matches(&format!("aggregate_{kind}: Received 2 results and 0 failures")).count();
        assert_eq!((phases("train"), phases("evaluate")), (ROUNDS, ROUNDS), "{strategy}");
        let losses = losses(&log);
        assert!(losses.len() == ROUNDS && losses[ROUNDS - 1] < losses[0] && losses[0] < 6.0, "{strategy}: {losses:?}");
        let kept = "import sys, numpy\nkept = numpy.load(sys.argv[1])\nprint({n: (kept[n].shape, str(kept[n].dtype)) for n in kept})";
        let mut check = Command::new(flower.bin.join("python"));
        check.args(["-c", kept]).arg(&save);
        let kept = run(check).good().stdout;
        let hidden = hidden();
        let embedding = format!("'model.embed_tokens.weight': ((256, {hidden}), '{dtype}')");
        assert!(kept.contains(&embedding) && kept.matches(&format!("'{dtype}'")).count() == 11, "{kept}");
        if strategy == "fedavg" {
            // The SuperLink is started anew, and knows nothing any more: the cohorts join again by themselves.
            superlink.kill();
            superlink = flower.start();
            joined(4);
        }
    }
    let ended = running.stop().good();
    assert!(ended.stderr.contains("all cohorts have left the SuperLink"), "{}", ended.stderr);
    let superlink = fs::read_to_string(flower.folder.path().join("superlink.log")).unwrap();
    assert!(superlink.matches("[Fleet.DeactivateNode] Deactivated").count() >= 2, "{superlink}");
    for cohort in cohorts {
        drop(cohort.volunteers);
        cohort.coordinator.stop().good();
        let verified = run(cohort.place.coordinator(&["verify"])).good();
        println!("{}", verified.stdout);
    }
}
