//! The screen, without a terminal; and what is asked of whom.

use super::*;
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
};

fn status(devices: usize) -> Status {
    let device = |n: usize| {
        json!({
            "id": format!("{n:064}"), "name": match n { 0 => "kitchen\u{1b}[2J-pc\u{202e}", 1 => "", _ => "another" },
            "role": if n == 2 { "anchor" } else { "volunteer" }, "state": if n == 0 { "training" } else { "away" },
            "tokens": 1_000_000 / (n + 1), "leases": n, "online": true, "training": n == 0, "tokens_per_s": 11_840.0,
            "version": 41, "staleness": null, "enrolled_at": 0,
        })
    };
    let losses: Vec<_> = (0..300).map(|n| json!({ "loss": 5.0 - f64::from(n) / 100.0 })).collect();
    serde_json::from_value(json!({
        "run": "the run", "version": 42, "heldout_loss": 2.01, "tokens": 2_680_000, "token_budget": 4_140_000,
        "tokens_per_s": 11_840.0, "merged": 110, "bytes_up": 46_100_000, "bytes_down": 38_080_000, "leases_open": 3,
        "agreement": 0.25, "round_s": null, "utilisation": 0.93,
        "states": { "training": 1, "evaluating": 0, "waiting": 0, "away": devices.saturating_sub(1) },
        "ended": { "merged": 110, "screened_out": 2, "expired": 1 }, "finished": false, "trouble": null,
        "losses": losses, "devices": (0..devices).map(device).collect::<Vec<_>>(),
    }))
    .unwrap()
}

fn drawn(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, view)).unwrap();
    text(terminal.backend().buffer()).join("\n")
}

#[test]
fn a_screen_of_80_by_24_has_figures_curve_and_devices() {
    let mut view = View::default();
    assert!(drawn(&view, 80, 24).contains("Asking the coordinator"));
    view.hear(Ok(status(3)));
    let screen = drawn(&view, 80, 24);
    for words in [
        "the run  1 of 3 devices training",
        "2.68 M of 4.14 M tokens",
        "version   42",
        "loss      2.0100",
        "tokens/s  11.8 k",
        "round     –",
        "in use    93 %",
        "screened  2",
        "held-out loss, nats a byte: 2.0100 (least 2.0100, most 5.0000)",
        "kitchen[2J-pc  ",
        "00000000",
        "another (anchor)",
        "q quits",
    ] {
        assert!(screen.contains(words), "{words}\n{screen}");
    }
    assert!(!screen.contains('\u{1b}') && !screen.contains('\u{202e}'), "no name moves the cursor");
    assert!(screen.contains('█') && screen.lines().count() == 24, "{screen}");
}

#[test]
fn it_scrolls_says_when_nobody_answers_and_fits_any_terminal() {
    let mut view = View::default();
    view.hear(Ok(status(40)));
    view.scroll(-5);
    assert!(drawn(&view, 80, 24).contains("kitchen"));
    view.scroll(500);
    let screen = drawn(&view, 80, 24);
    assert!(!screen.contains("kitchen") && screen.contains("another"), "{screen}");
    view.hear(Err("nobody answers".into()));
    let screen = drawn(&view, 80, 24);
    assert!(screen.contains("nobody answers") && screen.contains("version   42"), "what was told last stays: {screen}");
    for (width, height) in [(1, 1), (20, 5), (400, 100)] {
        drawn(&view, width, height);
    }
}

#[test]
fn it_asks_as_the_page_wants_it_and_tells_what_is_wrong() {
    for good in ["http://127.0.0.1:8433", "127.0.0.1:8433/", "http://[::1]:8433", "localhost:1"] {
        good.parse::<Address>().unwrap();
    }
    for bad in ["", "http://", "127.0.0.1", "https://x:1/y", "http://a@b:1", "x:99999", "x y:1"] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let answering = thread::spawn(move || {
        for answer in ["HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n{}"] {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut asked, mut lines) = (String::new(), BufReader::new(stream.try_clone().unwrap()));
            while !asked.ends_with("\r\n\r\n") && lines.read_line(&mut asked).unwrap() > 0 {}
            assert!(asked.starts_with("GET /api/status HTTP/1.0\r\nHost: 127.0.0.1"), "{asked}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let address: Address = at.to_string().parse().unwrap();
    for words in ["404", "missing field"] {
        let told = address.ask().unwrap_err().to_string();
        assert!(told.contains("is no coordinator") && told.contains(words), "{told}");
    }
    answering.join().unwrap();
    let told = address.ask().unwrap_err().to_string();
    assert!(told.contains("no coordinator answers") && told.contains("--url"), "{told}");
}
