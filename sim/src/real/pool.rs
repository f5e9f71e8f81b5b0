//! Threads that train, each alone on a core and with a runner of its own. Which of them takes a task changes nothing
//! about what comes of it.

use nightjar_train::{device, work::LeaseRunner};
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

type Task = Box<dyn FnOnce(&mut LeaseRunner) + Send>;

/// What waits for a thread.
#[derive(Default)]
struct Queue {
    tasks: VecDeque<(u64, Task)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task; `None` once the pool is closed.
    fn next(&self) -> Option<Task> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            if let Some((_, task)) = queue.tasks.pop_front() {
                return Some(task);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads. Dropping it ends them; what has not begun never will.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    next: u64,
}

/// A task's result, when it is there.
pub struct Promise<T> {
    number: u64,
    result: mpsc::Receiver<T>,
}

impl Pool {
    /// Starts `threads` of them (at least one).
    pub fn new(threads: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let thread = |_| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let _alone = device::compute_alone().expect("a thread that has just begun computes nothing yet");
                let mut runner = LeaseRunner::on_processor();
                while let Some(task) = shared.next() {
                    task(&mut runner);
                }
            })
        };
        let threads = (0..threads.max(1)).map(thread).collect();
        Pool { shared, threads, next: 0 }
    }

    /// Has a task done some time.
    pub fn begin<T: Send + 'static>(
        &mut self,
        task: impl FnOnce(&mut LeaseRunner) -> T + Send + 'static,
    ) -> Promise<T> {
        let (tell, result) = mpsc::sync_channel(1);
        self.next += 1;
        // Nobody listens any more where the job was abandoned.
        let task: Task = Box::new(move |runner| drop(tell.send(task(runner))));
        self.shared.queue().tasks.push_back((self.next, task));
        self.shared.changed.notify_one();
        Promise { number: self.next, result }
    }

    /// Waits for a task's result. One that nobody has taken up yet comes first now.
    pub fn wait<T>(&self, promise: Promise<T>) -> T {
        let mut queue = self.shared.queue();
        if let Some(at) = queue.tasks.iter().position(|(number, _)| *number == promise.number)
            && let Some(task) = queue.tasks.remove(at)
        {
            queue.tasks.push_front(task);
        }
        drop(queue);
        promise.result.recv().expect("a thread that trains has panicked")
    }

    /// Forgets a task; one that has begun goes on.
    pub fn forget<T>(&self, promise: &Promise<T>) {
        self.shared.queue().tasks.retain(|(number, _)| *number != promise.number);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in it was told when its result was waited for.
            let _ = thread.join();
        }
    }
}
