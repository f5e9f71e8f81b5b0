//! The icon in a process of its own: it is told what to show a line at a time, a view as JSON, and tells what was
//! chosen a line at a time, by the menu's names. When its input ends, it does.

use super::{IconView, MenuChoice, menu};
use std::{io, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
    sync::{mpsc, watch},
};

/// An icon that ends by itself is shown again after so long.
const AGAIN: Duration = Duration::from_secs(60);

/// Shows an icon until `views` has no sender left.
pub(super) async fn show(
    mut command: Command,
    mut views: watch::Receiver<IconView>,
    choices: mpsc::Sender<MenuChoice>,
) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    while let Err(why) = once(&mut command, &mut views, &choices).await {
        tracing::warn!("no tray icon: {why}; `nightjar open` shows the page");
        tokio::time::sleep(AGAIN).await;
    }
}

/// One process; an error says why it is gone while it was wanted.
async fn once(
    command: &mut Command,
    views: &mut watch::Receiver<IconView>,
    choices: &mpsc::Sender<MenuChoice>,
) -> io::Result<()> {
    let mut child = command.spawn()?;
    let (Some(mut told), Some(said)) = (child.stdin.take(), child.stdout.take()) else { return Ok(()) };
    let mut chosen = BufReader::new(said).lines();
    loop {
        let view = views.borrow_and_update().clone();
        let line = serde_json::to_string(&view)? + "\n";
        told.write_all(line.as_bytes()).await?;
        told.flush().await?;
        loop {
            tokio::select! {
                changed = views.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                line = chosen.next_line() => {
                    let line = line?.ok_or_else(|| io::Error::other("its process ended"))?;
                    if let Some(choice) = menu::choice(&line)
                        && choices.try_send(choice).is_err()
                    {
                        tracing::warn!("the agent is too busy for the tray's menu; choose again");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tray::State;

    /// A process that is no icon, but does as one would.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn faces_go_in_and_choices_come_out() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let script = format!(
            "read -r first; echo pause-1h; echo nonsense; read -r second; printf %s \"$second\" > {0}.new; mv {0}.new \
            {0}; echo quit; cat",
            seen.display()
        );
        let views = watch::Sender::new(IconView::default());
        let (choices, mut made) = mpsc::channel(4);
        let shown = tokio::spawn(show(shell(&script), views.subscribe(), choices));
        assert_eq!(made.recv().await, Some(MenuChoice::Pause(Some(Duration::from_secs(3600)))));
        let view = IconView { state: State::Paused, paused: true, sentence: "a \"line\"\nand more".into() };
        views.send_replace(view.clone());
        assert_eq!(made.recv().await, Some(MenuChoice::Quit));
        assert_eq!(serde_json::from_slice::<IconView>(&std::fs::read(&seen).unwrap()).unwrap(), view);
        drop(views);
        shown.await.unwrap();
    }

    #[tokio::test]
    async fn an_icon_that_is_gone_is_missed() {
        let views = watch::Sender::new(IconView::default());
        let (choices, _made) = mpsc::channel(1);
        let mut command = shell("read first");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let gone = once(&mut command, &mut views.subscribe(), &choices).await.unwrap_err();
        assert!(gone.to_string().contains("ended"), "{gone}");
    }
}
