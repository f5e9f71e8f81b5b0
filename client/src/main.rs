//! The volunteer's program: command line, agent and worker in one binary.

mod cli;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {}", in_one_line(&e));
            if e.is::<cli::Misunderstood>() { ExitCode::from(cli::NOT_UNDERSTOOD) } else { ExitCode::FAILURE }
        }
    }
}

/// An error with its causes, without those whose words it has in it already.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut line, cause| {
        let words = cause.to_string();
        if !line.contains(&words) {
            let joint = if line.is_empty() { "" } else { ": " };
            line.extend([joint, &words]);
        }
        line
    })
}
