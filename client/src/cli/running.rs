//! The agent that runs with a home folder, as a command reaches it: over its control API.

use anyhow::{Context, Result, bail};
use nightjar_agent::{
    control::{AgentStatus, Command, ControlFile},
    home::{Home, HomeError, HomeLock},
    join::Joined,
    preferences::Source,
};
use serde::Deserialize;
use std::{
    thread,
    time::{Duration, Instant},
};

/// An agent is waited for so long. It answers within milliseconds, unless it writes to a slow disk.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One that was just started needs a moment before it answers.
const START_MAX: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Who uses a home.
pub(super) enum Found {
    /// An agent that answers.
    Running(Running),
    /// Nobody, and nobody begins to before this is dropped.
    Nobody(HomeLock),
    /// Somebody who does not answer: hung, stopped, or busy with a slow disk.
    Silent,
}

/// A preference as an agent has it.
#[derive(Deserialize)]
pub(super) struct InForce {
    pub key: String,
    pub value: String,
    pub source: Source,
}

impl InForce {
    /// Whether it was said when the agent was started, and stands against the file.
    pub fn is_said(&self) -> bool {
        matches!(self.source, Source::Environment | Source::CommandLine)
    }
}

/// An agent that runs, and how to reach it.
pub(super) struct Running {
    file: ControlFile,
    http: ureq::Agent,
}

impl Running {
    /// The agent of this home, if one answers.
    pub fn find(home: &Home) -> Option<Self> {
        let file = ControlFile::load(home)?;
        if home.lock().is_ok() {
            // Nobody runs. By now another program may listen where a killed agent did, and must not be told its token.
            return None;
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_MAX))
            .proxy(None)
            .http_status_as_error(false)
            .build();
        let running = Running { file, http: config.into() };
        running.send(Command::Status).is_ok().then_some(running)
    }

    /// Who uses this home. One that is starting is waited for.
    pub fn or_lock(home: &Home) -> Result<Found, HomeError> {
        let asked = Instant::now();
        loop {
            if let Some(running) = Running::find(home) {
                return Ok(Found::Running(running));
            }
            match home.lock() {
                Ok(lock) => return Ok(Found::Nobody(lock)),
                Err(HomeError::InUse { .. }) if asked.elapsed() < START_MAX => thread::sleep(ASK_EVERY),
                Err(HomeError::InUse { .. }) => return Ok(Found::Silent),
                Err(e) => return Err(e),
            }
        }
    }

    /// The agent of this home that was started a moment ago, once it answers.
    pub fn started(home: &Home) -> Option<Self> {
        let asked = Instant::now();
        loop {
            match Running::find(home) {
                None if asked.elapsed() < START_MAX => thread::sleep(ASK_EVERY),
                found => return found,
            }
        }
    }

    /// Sends a command; gives back how the agent stands after it.
    pub fn send(&self, command: Command) -> Result<AgentStatus> {
        let with_length = |path: &str, length: Option<Duration>| match length {
            Some(length) => format!("{path}?seconds={}", length.as_secs()),
            None => path.to_owned(),
        };
        let path = match command {
            Command::Status => "status".to_owned(),
            Command::Pause(length) => with_length("pause", length),
            Command::RunNow(length) => with_length("run-now", length),
            Command::Resume => "resume".to_owned(),
            Command::Retry => "retry".to_owned(),
            Command::Leave => "leave".to_owned(),
            Command::Shutdown => "shutdown".to_owned(),
        };
        let (url, bearer) = (format!("http://{}/{path}", self.file.address), format!("Bearer {}", self.file.token));
        let answer = match command {
            Command::Status => self.http.get(url).header("Authorization", &bearer).call(),
            _ => self.http.post(url).header("Authorization", &bearer).send_empty(),
        };
        let mut answer = answer.context("the agent does not answer")?;
        if !answer.status().is_success() {
            bail!("the agent refused: {}", answer.body_mut().read_to_string().unwrap_or_default());
        }
        answer
            .body_mut()
            .read_json()
            .context("the agent's answer is not understood; is it of another version? start it again")
    }

    /// Brings it an invite; gives back what came of that.
    pub fn join(&self, invite: &str, name: Option<&str>) -> Result<Joined> {
        let (url, bearer) = (format!("http://{}/join", self.file.address), format!("Bearer {}", self.file.token));
        let body = serde_json::json!({ "invite": invite, "name": name });
        let mut answer = self
            .http
            .post(url)
            .header("Authorization", &bearer)
            .send_json(body)
            .context("the agent does not answer")?;
        if !answer.status().is_success() {
            bail!("{}", answer.body_mut().read_to_string().unwrap_or_default());
        }
        answer
            .body_mut()
            .read_json()
            .context("the agent's answer is not understood; is it of another version? start it again")
    }

    /// What is in force of the owner's preferences, and who says so.
    pub fn preferences(&self) -> Result<Vec<InForce>> {
        let (url, bearer) =
            (format!("http://{}/preferences", self.file.address), format!("Bearer {}", self.file.token));
        let mut answer =
            self.http.get(url).header("Authorization", &bearer).call().context("the agent does not answer")?;
        answer.body_mut().read_json().context("the agent's answer is not understood")
    }

    /// A ticket for its page.
    pub fn ticket(&self) -> Result<String> {
        let (url, bearer) = (format!("http://{}/ticket", self.file.address), format!("Bearer {}", self.file.token));
        let mut answer =
            self.http.post(url).header("Authorization", &bearer).send_empty().context("the agent does not answer")?;
        if !answer.status().is_success() {
            bail!("the agent gives no ticket; is it of another version? start it again");
        }
        answer.body_mut().read_to_string().context("the agent's answer is not understood")
    }

    /// Where its page is, token and all.
    pub fn link(&self) -> String {
        self.file.link()
    }
}
