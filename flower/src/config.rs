//! The configuration: a TOML file. [`EXAMPLE`] explains every key where it stands.

use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// What `new` writes.
pub const EXAMPLE: &str = r#"# nightjar-flower: a Flower SuperLink drives volunteers who run Nightjar.
#
# Each [[cohort]] is one SuperNode to the lab: a pool of volunteers of its own, behind a coordinator of its own whose run
# file says `lease.pacing = "series"`. Flower's strategies want two of them at least.
#
# The lab's ClientApp never runs on a volunteer's computer. Volunteers train by the coordinator's run file: its model,
# its data, its optimizer. Only the weights come from the lab.

# Where the SuperLink listens: `flower-superlink --host` and `--port`.
superlink = "http://127.0.0.1:8000"

# The certificate that the SuperLink's operator gave out, for https. Without it, those that this computer trusts.
# ca = "ca.pem"

# Here are the cohorts' keys, made at the first start and kept, and the message that each works on.
state = "flower-state"

# Outer rounds of volunteers for each round of the lab.
rounds = 1

# Seconds from a message to its answer, at most. Keep it below the lab's own timeout (3600 in Flower): what is there by
# then is the answer.
deadline_s = 3000

# With fewer volunteers a message is answered with an error. Write the same number as `merge.quorum` into the run files.
volunteers_min = 1

[[cohort]]
name = "north"
# Where its coordinator's HTTP API is: on this computer, or at the end of a tunnel.
coordinator = "http://127.0.0.1:8433"
# A file with an operator's token: `nightjar-coordinator token create --role operator flower > north.token`.
token = "north.token"

[[cohort]]
name = "south"
coordinator = "http://127.0.0.1:8533"
token = "south.token"
"#;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the SuperLink is.
    pub superlink: String,
    /// Its certificate.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Where keys and messages are kept.
    pub state: PathBuf,
    /// Outer rounds for each message to train.
    #[serde(default = "one")]
    pub rounds: u32,
    /// Seconds from a message to its answer.
    #[serde(default = "deadline_s")]
    pub deadline_s: f64,
    /// Volunteers without whom there is no answer.
    #[serde(default = "one")]
    pub volunteers_min: u32,
    /// The cohorts.
    #[serde(default, rename = "cohort")]
    pub cohorts: Vec<Cohort>,
}

/// A cohort.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// What it is called here.
    pub name: String,
    /// Where its coordinator's HTTP API is.
    pub coordinator: String,
    /// The file with the token.
    pub token: PathBuf,
}

const fn one() -> u32 {
    1
}

const fn deadline_s() -> f64 {
    3000.0
}

/// Rounds of a series, as a coordinator takes them.
const ROUNDS_MAX: u32 = 1000;
/// Cohorts of one program.
const COHORTS_MAX: usize = 64;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}; `nightjar-flower new {path}` writes one that explains itself")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// It is no such TOML.
    #[error("{path}: {error}")]
    Syntax {
        /// Which.
        path: String,
        /// What is wrong, with its line.
        error: toml::de::Error,
    },
    /// A value cannot be.
    #[error("{path}: {what}")]
    Value {
        /// Which file.
        path: String,
        /// What is wrong, and what can be.
        what: String,
    },
}

impl Config {
    /// Reads and checks a file. Paths in it are relative to it.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| ConfigError::File { path: name(), error })?;
        let mut config: Config = toml::from_str(&text).map_err(|error| ConfigError::Syntax { path: name(), error })?;
        config.check().map_err(|what| ConfigError::Value { path: name(), what })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        let paths = config.cohorts.iter_mut().map(|cohort| &mut cohort.token).chain(&mut config.ca);
        paths.chain([&mut config.state]).for_each(|path| *path = beside.join(&path));
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        address("superlink", &self.superlink)?;
        if !(1..=ROUNDS_MAX).contains(&self.rounds) {
            return Err(format!("rounds is {}; 1 to {ROUNDS_MAX} can be", self.rounds));
        }
        if !(1.0..=1e7).contains(&self.deadline_s) {
            return Err(format!("deadline_s is {}; 1 to 10000000 can be", self.deadline_s));
        }
        if self.cohorts.is_empty() || self.cohorts.len() > COHORTS_MAX {
            let names = "write one [[cohort]] for each pool of volunteers, two at least for Flower's own strategies";
            return Err(format!("there are {} cohorts; {names}, {COHORTS_MAX} at most", self.cohorts.len()));
        }
        let mut known = BTreeSet::new();
        for cohort in &self.cohorts {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if cohort.name.is_empty() || cohort.name.len() > 64 || !cohort.name.chars().all(is_plain) {
                return Err(format!("the cohort {:?} needs a name of letters, digits, - and _", cohort.name));
            }
            if !known.insert(&cohort.name) || !known.insert(&cohort.coordinator) {
                return Err(format!("the cohort {} has the name or the coordinator of another", cohort.name));
            }
            address("coordinator", &cohort.coordinator)?;
        }
        Ok(())
    }
}

fn address(key: &str, address: &str) -> Result<(), String> {
    let rest = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => Err(format!("{key} is {address:?}; write http://HOST:PORT or https://HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flower.toml");
        fs::write(&path, text).unwrap();
        let config = Config::read(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "F"));
        config.inspect(|config| assert!(config.state.starts_with(folder.path())))
    }

    #[test]
    fn the_example_is_a_configuration() {
        let config = read(EXAMPLE).unwrap();
        assert_eq!((config.rounds, config.cohorts.len(), &*config.cohorts[1].name), (1, 2, "south"));
        assert!(config.cohorts[0].token.ends_with("north.token"));
    }

    #[test]
    fn each_mistake_is_told_with_its_cure() {
        for (from, to, told) in [
            ("rounds = 1", "rounds = 0", "F: rounds is 0; 1 to 1000 can be"),
            ("rounds = 1", "round = 1", "unknown field `round`"),
            ("name = \"south\"", "name = \"north\"", "F: the cohort north has the name or the coordinator of another"),
            ("name = \"south\"", "name = \"../x\"", "needs a name of letters"),
            ("8533", "8433", "the coordinator of another"),
            ("\"http://127.0.0.1:8000\"", "\"127.0.0.1:8000\"", "write http://HOST:PORT or https://HOST:PORT"),
            ("deadline_s = 3000", "deadline_s = nan", "deadline_s is NaN; 1 to"),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = read(&EXAMPLE.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        assert!(read("superlink = \"http://a:1\"\nstate = \"s\"").unwrap_err().contains("there are 0 cohorts"));
    }
}
