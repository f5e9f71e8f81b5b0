//! What the person or the system wants of a coordinator that serves.

use super::{handle::ShellHandle, trouble::Say};
use nightjar_shared::run_spec::RunSpec;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// A wish.
pub enum Wish {
    /// To go on under this run spec, where what it changes may change.
    Reload(Box<RunSpec>),
    /// To end: the first time in order, the second time at once.
    End,
}

/// Wishes, as they come. Once nobody can have any more, the coordinator is to end.
pub struct Wishes {
    queue: mpsc::Receiver<Wish>,
    /// The last run spec that was taken over.
    taken_over: Arc<Mutex<Option<RunSpec>>>,
}

/// Wishes that wait. Somebody who has more is in no hurry.
const WISHES_MAX: usize = 8;

/// Where wishes are said, and where they are heard.
pub fn wishes() -> (mpsc::Sender<Wish>, Wishes) {
    let (sender, queue) = mpsc::channel(WISHES_MAX);
    (sender, Wishes { queue, taken_over: Arc::default() })
}

impl Wishes {
    /// The next; `None` where nobody can have one any more.
    pub(super) async fn next(&mut self) -> Option<Wish> {
        self.queue.recv().await
    }

    /// Done when an end is wanted. A run that is being opened has just been read.
    pub async fn end(&mut self) {
        while let Some(Wish::Reload(_)) = self.next().await {}
    }

    /// The run spec that was taken over last, if one was.
    pub(super) fn taken_over(&self) -> Option<RunSpec> {
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the event loop take a run spec over, and tells the person what came of it.
    pub(super) fn reload(&self, spec: Box<RunSpec>, handle: ShellHandle, say: Say) {
        let taken_over = self.taken_over.clone();
        tokio::spawn(async move {
            // The loop has ended where nobody answers: then the next start reads the file.
            let Ok(answer) = handle.reload((*spec).clone()).await else { return };
            match answer {
                Ok(changes) if changes.is_empty() => say("reloaded  run.toml says nothing new"),
                Ok(changes) => {
                    *taken_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(*spec);
                    changes.iter().for_each(|change| say(&format!("reloaded  {change}")));
                }
                Err(why) => say(&format!("refused   run.toml: {why}. Nothing was changed")),
            }
        });
    }
}
