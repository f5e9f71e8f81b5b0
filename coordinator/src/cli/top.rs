//! `top`: the dashboard's figures in a terminal, read from a coordinator's `/api/status`.

mod draw;
mod status;

use super::{Failure, say};
use clap::Args;
use draw::View;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use status::{Address, Status};
use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

/// How often it asks.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a key press waits to be seen.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The frame that `--once` prints.
const FRAME: (u16, u16) = (80, 24);

/// Watch a run in the terminal
///
/// Shows what the dashboard shows: figures, the curve of held-out loss, and the devices that gave most. Arrow keys scroll
/// the devices; q ends it.
#[derive(Args)]
pub struct Top {
    /// Where the coordinator's page is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8433")]
    url: Address,
    /// Print one frame as text and end
    #[arg(long)]
    once: bool,
}

/// What is shown: what was told last, or why nothing was.
type Told = Result<Status, String>;

impl Top {
    pub fn run(self) -> Result<(), Failure> {
        if self.once {
            let status = self.url.ask().map_err(Failure::midway)?;
            return print(&status).map_err(Failure::midway);
        }
        let (tell, told) = mpsc::channel();
        let address = self.url;
        thread::spawn(move || keep_asking(&address, &tell));
        let mut terminal = ratatui::try_init().map_err(Failure::midway)?;
        let ended = watch(&mut terminal, &told);
        ratatui::restore();
        ended.map_err(Failure::midway)
    }
}

/// Asks until nobody listens any more.
fn keep_asking(address: &Address, tell: &Sender<Told>) {
    while tell.send(address.ask().map_err(|error| error.to_string())).is_ok() {
        thread::sleep(ASK_EVERY);
    }
}

fn watch(terminal: &mut ratatui::DefaultTerminal, told: &mpsc::Receiver<Told>) -> io::Result<()> {
    let mut view = View::default();
    loop {
        terminal.draw(|frame| draw::draw(frame, &view))?;
        match told.recv_timeout(LOOK_EVERY) {
            Ok(told) => view.hear(told),
            Err(RecvTimeoutError::Timeout) => {}
            // Only where the thread that asks is gone.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else { continue };
            let is_stop = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                _ if key.kind == KeyEventKind::Release => {}
                _ if is_stop => return Ok(()),
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
                KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
                KeyCode::PageDown => view.scroll(10),
                KeyCode::PageUp => view.scroll(-10),
                _ => {}
            }
        }
    }
}

/// One frame, as text.
fn print(status: &Status) -> io::Result<()> {
    let mut view = View::default();
    view.hear(Ok(status.clone()));
    let (width, height) = FRAME;
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw::draw(frame, &view));
    text(terminal.backend().buffer()).iter().for_each(|line| say(line));
    Ok(())
}

/// The lines of a screen.
fn text(screen: &Buffer) -> Vec<String> {
    let area = screen.area;
    let line = |y| (area.left()..area.right()).map(|x| screen[(x, y)].symbol()).collect::<String>();
    (area.top()..area.bottom()).map(|y| line(y).trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests;
