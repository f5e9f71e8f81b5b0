//! The volunteer's program: command line, agent and worker in one binary.

mod cli;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    // When an owner was at their computer is nobody else's business, and so is all that is written here.
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
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
