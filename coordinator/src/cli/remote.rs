//! The served run, as commands reach it: over its HTTP API, with a token.

use super::Failure;
use clap::Args;
use nightjar_coordinator::server::token;
use serde_json::Value;
use std::{fs, path::PathBuf, time::Duration};

/// An answer is waited for no longer: an order waits for its commit, and a ledger may be locked for a while.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Entries of a page that is asked for.
const PAGE: usize = 200;

/// Where the run is served, and with which token.
#[derive(Args)]
pub struct Remote {
    /// The run's page, as `serve` prints it; from another computer, the near end of `ssh -L`
    #[arg(long, value_name = "URL", env = "NIGHTJAR_URL", default_value = "http://127.0.0.1:8433", global = true)]
    url: String,
    /// A file that holds the token [default: the token in NIGHTJAR_TOKEN]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,
}

/// A way to ask.
pub struct Api {
    agent: ureq::Agent,
    url: String,
    token: String,
}

impl Remote {
    /// Reads the token.
    pub fn open(&self) -> Result<Api, Failure> {
        if !self.url.starts_with("http://") {
            return Err(Failure::input(format!(
                "{} does not begin with http://: the API listens on the coordinator's own computer; from elsewhere, forward \
                 its port with `ssh -L 8433:127.0.0.1:8433 HOST`",
                self.url
            )));
        }
        let token = match &self.token_file {
            Some(file) => fs::read_to_string(file)
                .map_err(|error| Failure::input(format!("the token cannot be read from {}: {error}", file.display())))?,
            // Not an argument: whoever lists processes would see it.
            None => std::env::var("NIGHTJAR_TOKEN").map_err(|_| {
                Failure::input(
                    "a token is needed: name a file with --token-file, or set NIGHTJAR_TOKEN; on the coordinator's computer \
                     `nightjar-coordinator token create` makes one",
                )
            })?,
        };
        let token = token.trim().to_owned();
        if !token::has_form(&token) {
            return Err(Failure::input("that is no token: one begins with nightjar_, and 64 digits follow"));
        }
        // The token goes where it was meant to, and nowhere else.
        let config = ureq::Agent::config_builder().proxy(None).max_redirects(0).http_status_as_error(false);
        let agent = config.timeout_global(Some(ANSWER_MAX)).build().into();
        Ok(Api { agent, url: self.url.trim_end_matches('/').to_owned(), token })
    }
}

impl Api {
    /// Asks; `path` comes after `/api/v1`.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        let request = self.agent.get(format!("{}/api/v1{path}", self.url));
        self.answer(request.header("authorization", format!("Bearer {}", self.token)).call())
    }

    /// Orders.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.agent.post(format!("{}/api/v1{path}", self.url));
        self.answer(request.header("authorization", format!("Bearer {}", self.token)).send_json(body))
    }

    /// The entries `of` a list, page by page, until there are so many or no more.
    pub fn list(&self, path: &str, query: &[(&str, &str)], of: &str, most: usize) -> Result<Vec<Value>, Failure> {
        let (mut entries, mut from) = (vec![], None);
        while entries.len() < most {
            let limit = PAGE.min(most - entries.len()).to_string();
            let paging = [("limit", Some(limit.as_str())), ("from", from.as_deref())];
            let paging = paging.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
            let pairs = query.iter().copied().chain(paging).map(|(key, value)| format!("{key}={value}"));
            let mut page = self.get(&format!("{path}?{}", pairs.collect::<Vec<_>>().join("&")))?;
            if let Value::Array(more) = page[of].take() {
                entries.extend(more);
            }
            from = page["next"].as_str().map(str::to_owned);
            if from.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    fn answer(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut answer = answer.map_err(|error| {
            Failure::midway(format!(
                "{} cannot be asked ({error}); is the run served there? --url names another",
                self.url
            ))
        })?;
        let status = answer.status();
        let body = answer.body_mut().read_to_string().map_err(Failure::midway)?;
        let value = serde_json::from_str::<Value>(&body).unwrap_or_default();
        match (status.is_success(), value["error"].as_str()) {
            (true, _) => Ok(value),
            (false, Some(told)) => Err(Failure::input(told)),
            (false, None) => Err(Failure::midway(format!("{} answers {status}: {}", self.url, body.trim()))),
        }
    }
}
