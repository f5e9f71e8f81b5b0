//! The agent that runs with a home folder, as a command reaches it: over its control API.

use anyhow::{Context, Result, bail};
use nightjar_agent::{
    control::{AgentStatus, Command, ControlFile},
    home::Home,
};
use std::time::Duration;

/// An agent is waited for so long. It answers within milliseconds, unless it writes to a slow disk.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// An agent that runs, and how to reach it.
pub(super) struct Running {
    file: ControlFile,
    http: ureq::Agent,
}

impl Running {
    /// The agent of this home, if one answers.
    pub fn find(home: &Home) -> Option<Self> {
        let file = ControlFile::load(home)?;
        let config =
            ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX)).proxy(None).http_status_as_error(false).build();
        let running = Running { file, http: config.into() };
        running.send(Command::Status).is_ok().then_some(running)
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
        answer.body_mut().read_json().context("the agent's answer is not understood; is it of another version? start it again")
    }

    /// Where its page is, token and all.
    pub fn link(&self) -> String {
        self.file.link()
    }
}
