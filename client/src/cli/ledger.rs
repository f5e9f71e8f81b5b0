//! `ledger`: what this device has delivered, from its own file. It needs no agent that runs.

use super::{Misunderstood, format::Format};
use anyhow::Result;
use clap::Args;
use nightjar_agent::{
    history::{Delivery, deliveries},
    home::Home,
};
use std::{
    io::{self, Write},
    process::ExitCode,
};

#[derive(Args)]
pub(super) struct Ledger {
    /// Print comma-separated values with a line of headings, for spreadsheets
    #[arg(long)]
    csv: bool,
}

pub(super) fn ledger(home: &Home, args: &Ledger, format: Format) -> Result<ExitCode> {
    if args.csv && format.json {
        return Err(Misunderstood("`--csv` and `--json` are two formats: choose one".into()).into());
    }
    let deliveries = deliveries(&*home.disk());
    let mut out = io::stdout().lock();
    if format.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&deliveries)?)?;
    } else if args.csv {
        writeln!(out, "at,run,lease,kind,version,steps,samples,tokens,loss_first,loss_last,merged,why_not")?;
        deliveries.iter().try_for_each(|delivery| writeln!(out, "{}", comma_separated(delivery)))?;
    } else if deliveries.is_empty() {
        writeln!(out, "nothing has been delivered yet")?;
    } else {
        writeln!(out, "{:<19}  {:>8}  {:>8}  {:>9}  {:>8}  outcome", "when", "lease", "version", "tokens", "loss")?;
        for d in &deliveries {
            let loss = d.loss_last.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}"));
            let outcome = match (d.kind.trains(), d.merged) {
                (false, _) => "measured".to_owned(),
                (true, true) => "merged".to_owned(),
                (true, false) => format!("not merged: {}", d.why_not),
            };
            let when = d.at.get(..19).unwrap_or(&d.at).replace('T', " ");
            writeln!(out, "{when:<19}  {:>8}  {:>8}  {:>9}  {loss:>8}  {outcome}", d.lease, d.version, d.tokens)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line as RFC 4180 has it.
fn comma_separated(d: &Delivery) -> String {
    let number = |loss: Option<f64>| loss.map_or_else(String::new, |loss| loss.to_string());
    let fields = [
        d.at.clone(),
        d.run.clone(),
        d.lease.to_string(),
        d.kind.name().to_owned(),
        d.version.to_string(),
        d.steps.to_string(),
        d.samples.to_string(),
        d.tokens.to_string(),
        number(d.loss_first),
        number(d.loss_last),
        d.merged.to_string(),
        d.why_not.clone(),
    ];
    fields.map(|field| quoted(&field)).join(",")
}

fn quoted(field: &str) -> String {
    // A spreadsheet takes a field that begins like a formula for one, and the reasons are another's words.
    let is_number = field.parse::<f64>().is_ok();
    let guard = if !is_number && field.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if guard.is_empty() && !field.contains([',', '"', '\n', '\r']) {
        return field.to_owned();
    }
    format!("\"{guard}{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_stay_in_their_field() {
        assert_eq!(quoted("far out"), "far out");
        assert_eq!(quoted("norm 9, \"far\" out"), "\"norm 9, \"\"far\"\" out\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
        assert_eq!((quoted("-2+3"), quoted("-2.5")), ("\"'-2+3\"".into(), "-2.5".into()));
    }
}
