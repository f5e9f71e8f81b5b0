//! The texts that service managers read, and systemd's own verdict where systemd is installed.

use super::*;

fn odd() -> Service {
    Service { program: "/opt/Night jar/100% \"nightjar\"".into(), home: Some("/home/owner/$HOME & <more>".into()) }
}

#[test]
fn every_manager_gets_every_word_as_it_reads_words() {
    let unit = systemd::unit(&odd());
    let line = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    let want = r#"ExecStart="/opt/Night jar/100%% \"nightjar\"" "--home" "/home/owner/$$HOME & <more>" "run""#;
    assert_eq!(line, want);
    assert!(unit.starts_with("# Runs Nightjar in the user's session."), "by this it is known again");
    assert!(launchd::plist(&odd()).contains("<string>/home/owner/$HOME &amp; &lt;more&gt;</string>"));
    let plain = Service { program: r"C:\Program Files\Nightjar\nightjar.exe".into(), home: Some(r"D:\a & b\".into()) };
    let words = r#"--headless "C:\Program Files\Nightjar\nightjar.exe" "--home" "D:\a &amp; b\\" "run""#;
    let task = task::definition(&plain, r"HOME\Ada <3");
    assert!(task.contains(&format!("<Arguments>{words}</Arguments>")), "{task}");
    assert_eq!(task.matches(r"<UserId>HOME\Ada &lt;3</UserId>").count(), 2);
}

#[test]
fn the_unit_of_a_package_is_used_where_it_starts_this_program() {
    let folder = tempfile::tempdir().unwrap();
    let packaged = folder.path().join("nightjar.service");
    let of = |program: &str, home: Option<&str>| Service { program: program.into(), home: home.map(Into::into) };
    assert!(!systemd::is_packaged(&of("/usr/bin/nightjar", None), &packaged), "there is none");
    std::fs::write(&packaged, include_str!("../../../../installers/linux/nightjar.service")).unwrap();
    assert!(systemd::is_packaged(&of("/usr/bin/nightjar", None), &packaged));
    assert!(!systemd::is_packaged(&of("/usr/local/bin/nightjar", None), &packaged), "another program");
    assert!(!systemd::is_packaged(&of("/usr/bin/nightjar", Some("/srv/home")), &packaged), "another home");
}

/// `verify` returns 0 for keys that it does not know, but says so.
#[test]
fn systemd_has_nothing_to_say_about_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let file = folder.path().join("nightjar.service");
    std::fs::write(&file, systemd::unit(&Service { program, home: None })).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).arg(&file).env("XDG_RUNTIME_DIR", folder.path());
    let verified = match verify.output() {
        Ok(verified) => verified,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing; install systemd");
            println!("skipped: systemd is not installed");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.trim().is_empty(), "{}: {said}", verified.status);
}
