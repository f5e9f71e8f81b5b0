//! The control API, by which the owner reaches the agent. It is opened again and again where the disk does not take the
//! file that says where it is.

use super::Agent;
use crate::{
    control::{self, Asked, ControlError, Tickets},
    disk_words,
    home::HomeError,
    tray::IconView,
};
use nightjar_shared::time::Mono;
use std::{process::Stdio, time::Duration};
use tokio::sync::{mpsc, watch};

/// So often it tries to open the control API.
const OPEN_EVERY: Duration = Duration::from_secs(5);
/// Who listens for news hears them at most this often.
const NEWS_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Api {
    /// What is asked there comes to the loop by this.
    queue: mpsc::Sender<Asked>,
    server: Option<control::Server>,
    next_try: Mono,
    next_news: Mono,
    /// For whom the page is opened from here.
    pub tickets: Tickets,
    /// What the tray shows.
    pub views: watch::Sender<IconView>,
}

impl Api {
    pub fn new(queue: mpsc::Sender<Asked>) -> Self {
        Api {
            queue,
            server: None,
            next_try: Mono::default(),
            next_news: Mono::default(),
            tickets: Tickets::default(),
            views: watch::Sender::new(IconView::default()),
        }
    }
}

impl Agent {
    /// Opens the control API, if it is not open and time to try.
    pub(super) async fn open_api(&mut self, now: Mono) {
        let Api { queue, server, next_try, tickets, .. } = &mut self.api;
        if server.is_some() || now < *next_try {
            return;
        }
        let is_first = *next_try == Mono::default();
        *next_try = now + OPEN_EVERY;
        match control::serve(&self.home, queue.clone(), tickets.clone()).await {
            Ok(opened) => {
                if let Some(moved) = opened.moved() {
                    self.records.tell(moved);
                }
                *server = Some(opened);
            }
            Err(e) if is_first => {
                let says = match &e {
                    ControlError::Home(HomeError::Runtime { file, source, .. }) => {
                        format!("{file}: {}", disk_words::refusal(source))
                    }
                    other => other.to_string(),
                };
                self.records.tell(&format!(
                    "trouble: commands and the page cannot reach this agent yet: {says}; it keeps trying"
                ));
            }
            Err(_) => {}
        }
    }

    /// Tells who listens how the agent stands, not too often; says when to be called again at the latest.
    pub(super) fn tell_news(&mut self, now: Mono) -> Mono {
        let Some(server) = self.api.server.as_ref().filter(|server| server.has_listeners()) else {
            return self.next_look;
        };
        if now >= self.api.next_news {
            server.tell(self.status());
            self.api.next_news = now + NEWS_EVERY;
        }
        self.next_look.min(self.api.next_news)
    }

    pub(super) fn open_page(&mut self) {
        let opened = control::open_page(&self.home, || self.api.tickets.issue()).and_then(|command| {
            let Some(command) = command else { return Ok(()) };
            let mut command = tokio::process::Command::from(command);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(|_| ())
        });
        if let Err(e) = opened {
            self.records
                .tell(&format!("trouble: the page cannot be opened ({e}); `nightjar open --print` shows its address"));
        }
    }
}
