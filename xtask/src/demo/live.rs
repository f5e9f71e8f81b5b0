//! The demo while it trains: watches the coordinator's figures, draws them, and does the two killings on time.

use super::{
    clock,
    prepare::Plan,
    processes::{Processes, Status},
};
use crate::children::Children;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const POLL: Duration = Duration::from_millis(500);
/// Between two plain lines, where there is no terminal to redraw.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What happened, beside what the ledger tells.
pub struct Timeline {
    /// When training began, in milliseconds since the Unix epoch.
    pub began_unix_ms: u64,
    /// How long it took.
    pub seconds: f64,
    /// What was done to the run, in order.
    pub interruptions: Vec<KillOrReturn>,
}

impl Timeline {
    /// Seconds from the beginning to a civil time.
    pub fn at_s(&self, unix_ms: u64) -> f64 {
        unix_ms.saturating_sub(self.began_unix_ms) as f64 / 1000.0
    }
}

/// A killing, or a return: for each process they alternate.
pub struct KillOrReturn {
    /// Seconds since training began.
    pub at_s: f64,
    /// To whom.
    pub who: String,
}

/// Something that the demo does to the run.
#[derive(Clone, Copy)]
enum Disturbance {
    KillVolunteer,
    ReturnVolunteer,
    KillCoordinator,
    ReturnCoordinator,
}

/// Follows the run until its token budget is used up or its time is well over.
pub fn watch(processes: &mut Processes, plan: &Plan, children: &Children) -> Result<Timeline> {
    let began = Instant::now();
    let began_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let mut disturbances = script(plan.seconds).into_iter().peekable();
    let mut interruptions = Vec::new();
    let mut screen = Screen::new(plan);
    let limit_s = plan.seconds * 1.3 + 20.0;
    loop {
        let at_s = began.elapsed().as_secs_f64();
        if let Some((_, disturbance)) = disturbances.next_if(|(due_s, _)| at_s >= *due_s) {
            let (who, what) = perform(disturbance, processes, children)?;
            screen.say(&format!("{who} {what}"));
            interruptions.push(KillOrReturn { at_s, who });
        }
        let status = processes.status();
        let finished = status.as_ref().is_some_and(|status| status.finished);
        processes.check(finished)?;
        screen.draw(status, processes, at_s);
        if (finished && disturbances.peek().is_none()) || at_s > limit_s {
            screen.leave();
            return Ok(Timeline { began_unix_ms, seconds: at_s, interruptions });
        }
        children.sleep(POLL)?;
    }
}

/// What is done when: at 35 % of the time a volunteer is killed, at 60 % the coordinator; both come back.
fn script(seconds: f64) -> [(f64, Disturbance); 4] {
    let (volunteer_s, coordinator_s) = (0.35 * seconds, 0.6 * seconds);
    [
        (volunteer_s, Disturbance::KillVolunteer),
        (volunteer_s + (0.2 * seconds).min(20.0), Disturbance::ReturnVolunteer),
        (coordinator_s, Disturbance::KillCoordinator),
        (coordinator_s + (0.1 * seconds).min(4.0), Disturbance::ReturnCoordinator),
    ]
}

fn perform(disturbance: Disturbance, processes: &mut Processes, children: &Children) -> Result<(String, &'static str)> {
    // The second fastest, where there is one: enough is in flight to be worth losing, and the fastest goes on.
    let volunteer = 1.min(processes.volunteers.len() - 1);
    let process = match disturbance {
        Disturbance::KillVolunteer | Disturbance::ReturnVolunteer => &mut processes.volunteers[volunteer],
        Disturbance::KillCoordinator | Disturbance::ReturnCoordinator => &mut processes.coordinator,
    };
    let what = match disturbance {
        Disturbance::KillVolunteer | Disturbance::KillCoordinator => {
            process.kill();
            "killed"
        }
        Disturbance::ReturnVolunteer | Disturbance::ReturnCoordinator => {
            process.start(children)?;
            "started again"
        }
    };
    Ok((process.name.clone(), what))
}

/// Where the figures are drawn: one block that redraws itself, or plain lines where there is no terminal.
struct Screen {
    block: Option<ProgressBar>,
    next_line: Instant,
    seconds: f64,
    token_budget: u64,
    start_loss: Option<f64>,
    /// The newest figures, shown on while the coordinator is away.
    status: Option<Status>,
}

impl Screen {
    fn new(plan: &Plan) -> Screen {
        let style = ProgressStyle::with_template("     {bar:50.green} {percent} %\n{msg}");
        let block = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(plan.token_budget);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let (seconds, token_budget) = (plan.seconds, plan.token_budget);
        Screen { block, next_line: Instant::now(), seconds, token_budget, start_loss: None, status: None }
    }

    fn draw(&mut self, status: Option<Status>, processes: &Processes, at_s: f64) {
        self.status = status.or(self.status.take());
        let Some(status) = &self.status else { return };
        self.start_loss = self.start_loss.or(status.heldout_loss);
        match &self.block {
            Some(bar) => {
                bar.set_position(status.tokens.min(self.token_budget));
                bar.set_message(format!("{}\n{}", self.figures(status, at_s, "\n"), parts(processes, status)));
            }
            None if Instant::now() >= self.next_line => {
                println!("{}", self.figures(status, at_s, ""));
                self.next_line = Instant::now() + LINE_EVERY;
            }
            None => {}
        }
    }

    /// The run's figures, in two halves with something in between.
    fn figures(&self, status: &Status, at_s: f64, between: &str) -> String {
        let loss = match (self.start_loss, status.heldout_loss) {
            (Some(start), Some(now)) => format!("{start:.2} → {now:.2} nats a byte"),
            _ => "not measured yet".to_owned(),
        };
        format!(
            "     {} of {}  loss {loss}  version {}  {:.2} of {:.2} M tokens{between}     {:.0} tokens/s  {} merged  \
            up {:.1} MB  down {:.1} MB",
            clock(Duration::from_secs_f64(at_s)),
            clock(Duration::from_secs_f64(self.seconds)),
            status.version.unwrap_or(0),
            status.tokens as f64 / 1e6,
            self.token_budget as f64 / 1e6,
            status.tokens_per_s,
            status.merged,
            status.bytes_up as f64 / 1e6,
            status.bytes_down as f64 / 1e6,
        )
    }

    fn say(&self, sentence: &str) {
        match &self.block {
            Some(bar) => bar.println(format!("     {sentence}")),
            None => println!("     {sentence}"),
        }
    }

    fn leave(&self) {
        if let Some(bar) = &self.block {
            bar.abandon();
        }
    }
}

/// What each process does, a line each.
fn parts(processes: &Processes, status: &Status) -> String {
    let mut lines =
        vec![format!("     coordinator  {}", if processes.coordinator.is_on() { "serving" } else { "killed" })];
    for volunteer in &processes.volunteers {
        let known = status.devices.iter().find(|device| device.name == volunteer.name);
        let state = match known {
            _ if !volunteer.is_on() => "killed",
            Some(device) if device.training => "training",
            _ => "waiting",
        };
        let (leases, tokens) = known.map_or((0, 0), |device| (device.leases, device.tokens));
        lines.push(format!(
            "     {:<12} {state:<10} {leases:>3} leases  {:>6.0} k tokens",
            volunteer.name,
            tokens as f64 / 1e3
        ));
    }
    lines.join("\n")
}
