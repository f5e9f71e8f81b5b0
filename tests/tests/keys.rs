//! The run's key changes, twice, and no device is lost: neither one that trains, nor one that is yet to come by an
//! invite from before.

use nightjar_tests::{Place, Size, process::run, until};
use std::fs;

#[test]
fn the_key_is_changed_and_devices_come_back_by_themselves() {
    let place = Place::new(Size { text_bytes: 100_000, token_budget: 1_000_000_000 });
    let coordinator = place.start_coordinator();
    place.join("stays", "volunteer");
    let stays = place.start_volunteer("stays");
    let invite = place.invite("volunteer");
    let merged = || place.figure("merged").unwrap_or(0);
    until("a merged delta", || (merged() > 0).then_some(()));
    run(place.key(&["rotate"])).refused(&["another coordinator is running"]);
    coordinator.stop().good();
    let shown = |word: &str| {
        let said = run(place.key(&["show"])).good().stdout;
        said.lines().find_map(|line| line.strip_prefix(word).map(|rest| rest.trim().to_owned()))
    };
    let (key, spare) = (shown("key").unwrap(), shown("spare").unwrap());

    // The spare was kept elsewhere.
    let safe = place.path("safe").display().to_string();
    fs::rename(place.path("state/coordinator.spare.pk8"), &safe).unwrap();
    run(place.key(&["rotate"])).refused(&["coordinator.spare.pk8"]);
    run(place.key(&["rotate", "--spare", &safe])).good();
    assert_eq!(shown("key").unwrap(), spare);
    assert!(shown("former").unwrap().starts_with(&key));
    let coordinator = place.start_coordinator();
    let before = merged();
    until("a delta of a device that knew the spare", || (merged() > before).then_some(()));

    // By an invite that the key of before signed.
    run(place.device("comes", &["join", &invite])).good();
    let comes = place.start_volunteer("comes");
    let devices = || Some(place.status()?["devices"].as_array()?.iter().filter(|d| d["online"] == true).count());
    until("both devices", || devices().filter(|online| *online == 2));
    coordinator.stop().good();

    // Both have learnt the second spare.
    run(place.key(&["rotate", "--distrust"])).good();
    let coordinator = place.start_coordinator();
    until("both devices again", || devices().filter(|online| *online == 2));
    let before = merged();
    until("a delta after the second change", || (merged() > before).then_some(()));
    run(place.device("late", &["join", &invite])).refused(&["ask for a new invite"]);
    for device in [stays, comes] {
        device.stop().good();
    }
    coordinator.stop().good();
    run(place.coordinator(&["verify"])).good();
}
