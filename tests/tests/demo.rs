//! However the demo is ended, nothing that it started stays behind, and the next demo can use the same folder.

use nightjar_tests::{
    Place, Running,
    process::{self, binary},
    until,
};
use std::{
    fs,
    io::Write,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, Stdio},
};

/// The demo on a small text, without its build: the tests' own is there.
fn demo(place: &Place) -> Command {
    let mut command = Command::new(binary("xtask"));
    command.args(["demo", "--minutes", "1", "--data"]).arg(place.path("text.txt")).arg("--out").arg(place.path("out"));
    command.env("CARGO", "true");
    command
}

/// Starts the demo and waits until devices train; returns it with all processes that belong to it.
fn start_demo(place: &Place) -> (Running, Vec<u32>) {
    let mut demo = Running::start(demo(place), &place.path("demo.log"));
    until("devices that train", || {
        if let Some(ended) = demo.ended() {
            panic!("the demo ended: {ended:?}");
        }
        fs::metadata(place.path("out/devices/volunteer-3/journal.json")).ok()
    });
    let family = process::descendants(demo.id());
    assert!(family.len() >= 6, "the demo, a reaper, a coordinator, an anchor and three volunteers: {family:?}");
    (demo, family)
}

fn place_with_text() -> Place {
    let place = Place::empty();
    fs::write(place.path("text.txt"), "The bird sings at night while its owner sleeps.\n".repeat(20_000)).unwrap();
    place
}

#[test]
fn nothing_stays_behind_however_the_demo_ends() {
    let place = place_with_text();

    let (demo_run, family) = start_demo(&place);
    let ended = demo_run.stop();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    until("the end of all that the demo started", || family.iter().all(|id| !process::is_alive(*id)).then_some(()));

    // Again in the same folder: no lock is left. This time it has no chance to clean up by itself.
    fs::remove_dir_all(place.path("out/devices")).unwrap();
    let (mut demo_run, family) = start_demo(&place);
    demo_run.kill();
    until("the end of all that the killed demo started", || {
        family.iter().all(|id| !process::is_alive(*id)).then_some(())
    });
}

#[test]
fn the_reaper_ends_what_is_left_when_its_pipe_closes() {
    let mut spared = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
    let mut left = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
    let mut reaper = Command::new(binary("xtask")).arg("reap").stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = reaper.stdin.take().unwrap();
    writeln!(pipe, "+{}\n+{}\n-{}", spared.id(), left.id(), spared.id()).unwrap();
    drop(pipe);
    assert!(reaper.wait().unwrap().success());
    assert_eq!(left.wait().unwrap().signal(), Some(9));
    assert!(spared.try_wait().unwrap().is_none());
    spared.kill().unwrap();
    spared.wait().unwrap();
}
