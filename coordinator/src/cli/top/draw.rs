//! The screen: figures, the curve of held-out loss, devices. It fits 80 by 24.

use super::{
    Told,
    status::{Device, Status},
};
use nightjar_coordinator::server::words::{bytes, count, share, si, span};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Gauge, Paragraph, Row, Sparkline, Table},
};

const WARM: Color = Color::Yellow;

/// What is shown.
#[derive(Default)]
pub struct View {
    status: Option<Status>,
    /// Why the coordinator did not answer last.
    silence: Option<String>,
    /// Devices that are scrolled past.
    above: usize,
}

impl View {
    /// Takes in an answer, or that there was none.
    pub fn hear(&mut self, told: Told) {
        match told {
            Ok(status) => (self.status, self.silence) = (Some(status), None),
            Err(why) => self.silence = Some(why),
        }
        self.scroll(0);
    }

    /// Moves down the devices, or up.
    pub fn scroll(&mut self, by: isize) {
        let last = self.status.as_ref().map_or(0, |status| status.devices.len().saturating_sub(1));
        self.above = self.above.saturating_add_signed(by).min(last);
    }
}

/// Draws it all.
pub fn draw(frame: &mut Frame, view: &View) {
    let Some(status) = &view.status else {
        let words = view.silence.clone().unwrap_or_else(|| "Asking the coordinator …".into());
        frame.render_widget(Paragraph::new(words).wrap(ratatui::widgets::Wrap { trim: true }), frame.area());
        return;
    };
    let [head, gauge, figures, curve, devices, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Length(6),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(status), head);
    let done = status.tokens as f64 / status.token_budget.max(1) as f64;
    let label = format!("{} of {} tokens", si(status.tokens as f64), si(status.token_budget as f64));
    let gauge_bar = Gauge::default().ratio(done.clamp(0.0, 1.0)).label(label).gauge_style(Style::new().fg(WARM));
    frame.render_widget(gauge_bar, gauge);
    frame.render_widget(Paragraph::new(figure_lines(status)), figures);
    draw_curve(frame, status, curve);
    draw_devices(frame, view, &status.devices, devices);
    let words = match (&view.silence, &status.trouble) {
        (Some(silence), _) => Line::from(silence.clone()).red(),
        (None, Some(trouble)) => Line::from(format!("waiting: {trouble}")).red(),
        (None, None) => Line::from("q quits, arrow keys scroll").dim(),
    };
    frame.render_widget(words, foot);
}

fn headline(status: &Status) -> Line<'static> {
    let training = status.states.get("training").copied().unwrap_or(0);
    let all: usize = status.states.values().sum();
    let now = if status.finished {
        "the run is over".to_owned()
    } else {
        format!("{training} of {} training", count(all, "device"))
    };
    Line::from(vec![Span::from(one_line(&status.run)).bold(), Span::from("  "), Span::from(now)])
}

fn figure_lines(status: &Status) -> Vec<Line<'static>> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    let ended = |key: &str| status.ended.get(key).copied().unwrap_or(0).to_string();
    let cells = [
        [
            ("version", or_dash(status.version.map(|v| v.to_string()))),
            ("loss", or_dash(status.heldout_loss.map(|l| format!("{l:.4}")))),
            ("tokens/s", si(status.tokens_per_s)),
            ("leases", status.leases_open.to_string()),
        ],
        [
            ("merged", si(status.merged as f64)),
            ("round", or_dash(status.round_s.map(span))),
            ("agreement", or_dash(status.agreement.map(share))),
            ("in use", or_dash(status.utilisation.map(share))),
        ],
        [
            ("received", bytes(status.bytes_up)),
            ("sent", bytes(status.bytes_down)),
            ("screened", ended("screened_out")),
            ("expired", ended("expired")),
        ],
    ];
    let cell = |(name, value): (&'static str, String)| {
        [Span::from(format!("{name:<10}")).dim(), Span::from(format!("{value:<10}"))]
    };
    cells.into_iter().map(|row| Line::from(row.into_iter().flat_map(cell).collect::<Vec<_>>())).collect()
}

fn draw_curve(frame: &mut Frame, status: &Status, area: Rect) {
    let losses: Vec<f64> = status.losses.iter().map(|l| l.loss).filter(|loss| loss.is_finite()).collect();
    let (least, most) = losses.iter().fold((f64::MAX, f64::MIN), |(a, b), loss| (a.min(*loss), b.max(*loss)));
    let title = match losses.last() {
        Some(newest) => format!(" held-out loss, nats a byte: {newest:.4} (least {least:.4}, most {most:.4}) "),
        None => " held-out loss: nothing is measured yet ".into(),
    };
    let block = Block::bordered().title(title).border_style(Style::new().dim());
    let columns = usize::from(block.inner(area).width);
    // One column a point: of a long run each shows the newest of its share.
    let stride = losses.len().div_ceil(columns.max(1)).max(1);
    let mut newest: Vec<f64> = losses.iter().rev().step_by(stride).copied().collect();
    newest.reverse();
    let height = |loss: f64| 1 + (999.0 * (loss - least) / (most - least).max(1e-9)) as u64;
    let bars: Vec<u64> = newest.into_iter().map(height).collect();
    frame.render_widget(Sparkline::default().data(bars).max(1000).style(Style::new().fg(WARM)).block(block), area);
}

fn draw_devices(frame: &mut Frame, view: &View, devices: &[Device], area: Rect) {
    let or_dash = |number: Option<u64>| number.map_or("–".to_owned(), |n| n.to_string());
    let row = |device: &Device| {
        let name = match one_line(&device.name) {
            name if name.is_empty() => device.id.chars().take(8).collect(),
            name => name,
        };
        let name = if device.role == "anchor" { format!("{name} (anchor)") } else { name };
        let state = device.state.clone().unwrap_or_else(|| "left".into());
        let style = if state == "training" { Style::new().fg(WARM) } else { Style::new() };
        Row::new([
            name,
            state,
            si(device.tokens_per_s),
            or_dash(device.version),
            or_dash(device.staleness),
            device.leases.to_string(),
            si(device.tokens as f64),
        ])
        .style(style)
    };
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(8),
    ];
    let head = Row::new(["device", "state", "tokens/s", "version", "stale", "leases", "tokens"])
        .style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Table::new(devices.iter().skip(view.above).map(row), widths).header(head), area);
}

/// A text that a device chose, without what would move the cursor or turn the line round.
fn one_line(text: &str) -> String {
    let is_turn = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !c.is_control() && !is_turn(*c)).collect::<String>().trim().to_owned()
}
