//! The trainer: begun when the session has work, paused while the page is out of sight, and ended. It computes between
//! two turns of the event loop, in the same thread.

use super::{Device, Event, Queue};
use crate::{
    browser::{self, clock},
    disk::OpfsDisk,
    train::{Environment, LeaseRunner},
};
use futures_util::future::{AbortHandle, abortable};
use nightjar_session::{journal::CHECKPOINT, session};
use nightjar_shared::wire::worker::{Ready, from_worker, to_worker};
use nightjar_work::Live;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use wasm_bindgen_futures::spawn_local;

/// How often a trainer that waits looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What trains, or nothing.
#[derive(Default)]
pub(super) struct Training {
    /// Serial number of the training at hand.
    pub serial: u64,
    running: Option<Running>,
    /// A GPU that was opened stays open from one lease to the next.
    gpu: Rc<RefCell<Option<LeaseRunner>>>,
}

/// A job at hand.
struct Running {
    orders: Rc<Orders>,
    job: AbortHandle,
}

/// What the job looks at between two micro-batches.
#[derive(Default)]
struct Orders {
    live: Live,
    stop: AtomicBool,
    is_paused: Cell<bool>,
}

impl Orders {
    /// Waits while it is paused; a checkpoint that is asked for is written first.
    async fn hold(self: Rc<Self>) {
        while self.is_paused.get() && !self.live.checkpoint_asked() {
            browser::sleep(LOOK_EVERY).await;
        }
    }
}

impl Training {
    /// It finishes what it is at, and reports.
    pub fn stop(&mut self) {
        if let Some(Running { orders, .. }) = &self.running {
            orders.stop.store(true, Ordering::Relaxed);
            orders.is_paused.set(false);
        }
    }

    /// It writes a checkpoint, and does nothing after it.
    pub fn pause(&mut self) {
        if let Some(Running { orders, .. }) = &self.running {
            orders.live.ask_checkpoint();
            orders.is_paused.set(true);
        }
    }

    /// It goes on.
    pub fn go_on(&mut self) {
        if let Some(Running { orders, .. }) = &self.running {
            orders.is_paused.set(false);
        }
    }

    /// It ends where it stands; the last checkpoint stays.
    pub fn end(&mut self) {
        self.serial += 1;
        if let Some(Running { job, .. }) = self.running.take() {
            job.abort();
        }
    }

    fn begin(&mut self, job: to_worker::Body, disk: OpfsDisk, queue: Queue) {
        self.end();
        let (orders, serial) = (Rc::new(Orders::default()), self.serial);
        let (working, handle) = abortable(work(job, disk, orders.clone(), self.gpu.clone(), serial, queue));
        spawn_local(async move {
            // Who has ended it knows that it is over.
            let _ = working.await;
        });
        self.running = Some(Running { orders, job: handle });
    }
}

/// Carries out a job, on the GPU that is open, or on one that is opened for it.
async fn work(
    job: to_worker::Body,
    disk: OpfsDisk,
    orders: Rc<Orders>,
    gpu: Rc<RefCell<Option<LeaseRunner>>>,
    serial: u64,
    queue: Queue,
) {
    let say = |body| queue.send(Event::Trainer { serial, says: Box::new(body) });
    let opened = gpu.borrow_mut().take();
    let mut runner = match opened {
        Some(runner) => runner,
        None => match LeaseRunner::open().await {
            Ok(runner) => runner,
            Err(error) => return queue.send(Event::NoTrainer { serial, why: error.to_string() }),
        },
    };
    let device = format!("browser, {}", runner.name());
    say(from_worker::Body::Ready(Ready { device, gpu: true, ..Ready::default() }));
    let waiting = orders.clone();
    let environment = Environment {
        disk: &disk,
        checkpoint: CHECKPOINT,
        live: &orders.live,
        stop: &orders.stop,
        hold: &move || Box::pin(waiting.clone().hold()),
        say: &say,
    };
    let done = runner.run(job, &environment).await;
    if !matches!(&done, from_worker::Body::Failed(failed) if failed.device_failed) {
        gpu.replace(Some(runner));
    }
    say(done);
}

impl Device {
    pub(super) fn work(&mut self, job: to_worker::Body) {
        self.heat.paused();
        self.training.begin(job, self.disk, self.queue.clone());
    }

    pub(super) fn trainer_says(&mut self, says: from_worker::Body) {
        match &says {
            from_worker::Body::Progress(progress) => self.heat.trained(progress.tokens, clock::mono_now()),
            from_worker::Body::Trained(_) | from_worker::Body::Evaluated(_) | from_worker::Body::Failed(_) => {
                self.training.running = None;
            }
            from_worker::Body::Ready(_) | from_worker::Body::Saved(_) | from_worker::Body::AheadOver(_) => {}
        }
        self.waiting.push_back(session::Event::Worker(says));
    }

    /// There is no GPU that can be used: the lease had better go to somebody else.
    pub(super) fn no_trainer(&mut self, why: String) {
        self.training.end();
        self.waiting.push_back(session::Event::WorkerRefused { why, until: None });
    }
}
