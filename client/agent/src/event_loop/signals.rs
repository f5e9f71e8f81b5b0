//! The end that the system or the owner asks for: signals, and a window that is closed.

use std::{future::Future, io};

/// Ends when the system asks the process to end.
#[cfg(unix)]
pub(super) fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // A terminal that is closed ends what runs in it; not what was started with `nohup`.
    let mut hangup = if hangups_are_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = hung_up => {}
        }
    })
}

/// Whether whoever started this process has it ignore SIGHUP, as far as the system tells.
#[cfg(unix)]
pub(super) fn hangups_are_ignored() -> bool {
    const BIT_OF_SIGHUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|signals| signals & BIT_OF_SIGHUP != 0)
}

/// Ends when the owner asks the process to end, closes its window, logs out or shuts down.
#[cfg(windows)]
pub(super) fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::windows;
    let (mut interrupt, mut stop) = (windows::ctrl_c()?, windows::ctrl_break()?);
    let (mut close, mut log_off, mut shut_down) =
        (windows::ctrl_close()?, windows::ctrl_logoff()?, windows::ctrl_shutdown()?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = stop.recv() => {}
            _ = close.recv() => {}
            _ = log_off.recv() => {}
            _ = shut_down.recv() => {}
        }
    })
}

/// Ends when the owner asks the process to end.
#[cfg(not(any(unix, windows)))]
pub(super) fn terminated() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
