//! Operators at a served run: tokens, sessions, and every command, against the real server and the real program.

use crate::{
    bed::{Bed, Serving, get},
    command_line::{program, refused},
    device::{Device, close_code, closed},
};
use nightjar_shared::wire::{
    Hello, LeaseRequest, Refusal, RefusalAction, RefusalCode, Role, close::CloseCode, coordinator_message as answer,
    device_message as ask,
};
use serde_json::{Value, json};
use std::process::Output;

/// A token of a run, made by the program.
pub fn token(bed: &Bed, role: &str, name: &str) -> String {
    let made = of_state(bed, &["token", "create", "--role", role, "--name", name]);
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn of_state(bed: &Bed, args: &[&str]) -> Output {
    program().args(args).arg("--state").arg(bed.state()).output().unwrap()
}

/// A command that talks to the server.
async fn command(server: &Serving, token: &str, args: &[&str]) -> Output {
    let mut command = program();
    command.args(args).arg("--url").arg(format!("http://{}", server.http)).env("NIGHTJAR_TOKEN", token);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn told(server: &Serving, token: &str, args: &[&str]) -> Value {
    let output = command(server, token, &[args, &["--json"]].concat()).await;
    assert!(output.status.success(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What comes for a request: its status, its headers, its body.
async fn asks(
    server: &Serving,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> (u16, String, Value) {
    let uri = format!("http://{}{path}", server.http);
    let mut request = ureq::http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("content-type", "application/json").body(body.to_string()).unwrap();
    tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true);
        let agent: ureq::Agent = config.build().into();
        let mut answer = match request.method().as_str() {
            "GET" => agent.run(request.map(|_| ())).unwrap(),
            _ => agent.run(request).unwrap(),
        };
        let head = format!("{:?}", answer.headers());
        let body = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), head, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    })
    .await
    .unwrap()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn refusal(body: answer::Body) -> Refusal {
    match body {
        answer::Body::Refusal(refusal) => refusal,
        other => panic!("no refusal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_role_allows_and_nothing_else_does() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let (viewer, operator) = (token(&bed, "viewer", "ben"), token(&bed, "operator", "ann"));
    let stranger = format!("nightjar_{}", "0".repeat(64));
    let get = |token: String| {
        let server = &server;
        async move { asks(server, "GET", "/api/v1/run", &[("authorization", &bearer(&token))], json!({})).await }
    };
    assert_eq!(asks(&server, "GET", "/api/v1/run", &[], json!({})).await.0, 401);
    assert_eq!(get(stranger).await.0, 401);
    for good in [&viewer, &operator] {
        let (status, _, run) = get(good.clone()).await;
        assert_eq!((status, &run["paused_unix_ms"]), (200, &Value::Null), "{run}");
    }
    let post = |token: &str| {
        let (server, shown) = (&server, bearer(token));
        async move { asks(server, "POST", "/api/v1/run/pause", &[("authorization", &shown)], json!({})).await }
    };
    let (status, _, fault) = post(&viewer).await;
    assert!(status == 403 && fault["error"].as_str().unwrap().contains("operator's"), "{fault}");
    assert_eq!(get(viewer.clone()).await.2["paused_unix_ms"], Value::Null);
    assert_eq!(post(&operator).await.0, 200);
    assert!(get(viewer.clone()).await.2["paused_unix_ms"].is_u64());
    // The status page is as it was, and says so too.
    assert!(server.status().await["paused_unix_ms"].is_u64());
    let ready = crate::bed::get_as("localhost", server.http, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("an operator has paused the run"), "{ready}");

    let ended = of_state(&bed, &["token", "revoke", "ann"]);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(post(&operator).await.0, 401);
    refused(&of_state(&bed, &["token", "revoke", "ann"]), "no token called ann");
    refused(&of_state(&bed, &["token", "create", "--role", "viewer", "--name", "ann"]), "another name");
    let listed = of_state(&bed, &["token", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(listed[0]["name"] == "ann" && listed[0]["revoked_unix_ms"].is_u64() && listed[0]["used_unix_ms"].is_u64());
    assert!(!listed.to_string().contains(operator.trim_start_matches("nightjar_")), "it is shown once");

    let entries = told(&server, &viewer, &["audit"]).await;
    let entries: Vec<String> =
        entries.as_array().unwrap().iter().map(|e| format!("{} {} {}", e["name"], e["action"], e["outcome"])).collect();
    let has = |what: &str| entries.iter().any(|entry| entry.contains(what));
    for what in
        ["\"ann\" \"run pause\"", "\"ben\" \"refused\"", "\"token revoke\"", "\"token create\"", "\"nobody\" \"login\""]
    {
        assert!(has(what), "{what}: {entries:#?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_logs_in_and_no_other_page_can_use_its_cookie() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let operator = token(&bed, "operator", "ann");
    let (status, head, session) = asks(&server, "POST", "/api/v1/login", &[], json!({ "token": operator })).await;
    assert_eq!((status, &session["name"], &session["role"]), (200, &json!("ann"), &json!("operator")), "{session}");
    for part in ["nightjar_session=", "HttpOnly", "SameSite=Strict", "Max-Age=43200"] {
        assert!(head.contains(part), "{part}: {head}");
    }
    assert!(!head.contains("; Secure"));
    let cookie = head.split("nightjar_session=").nth(1).unwrap().split(';').next().unwrap();
    let cookie = format!("nightjar_session={cookie}");
    let csrf = session["csrf"].as_str().unwrap();
    let again = asks(&server, "GET", "/api/v1/session", &[("cookie", &cookie)], json!({})).await;
    assert_eq!((again.0, &again.2["csrf"]), (200, &session["csrf"]));
    for wrong in [vec![], vec![("x-csrf-token", "0")]] {
        let headers = [vec![("cookie", cookie.as_str())], wrong].concat();
        assert_eq!(asks(&server, "POST", "/api/v1/run/pause", &headers, json!({})).await.0, 403);
    }
    let both = [("cookie", cookie.as_str()), ("x-csrf-token", csrf)];
    assert_eq!(asks(&server, "POST", "/api/v1/run/pause", &both, json!({})).await.0, 200);
    let (status, head, _) = asks(&server, "POST", "/api/v1/logout", &both, json!({})).await;
    assert!(status == 200 && head.contains("Max-Age=0"), "{head}");
    assert_eq!(asks(&server, "GET", "/api/v1/session", &[("cookie", &cookie)], json!({})).await.0, 401);

    // Behind a proxy that speaks TLS the cookie never travels without.
    let proxied = [("x-forwarded-proto", "https"), ("x-forwarded-for", "198.51.100.9, 192.0.2.9")];
    let (_, head, _) = asks(&server, "POST", "/api/v1/login", &proxied, json!({ "token": operator })).await;
    assert!(head.contains("; Secure"), "{head}");
    let entries = told(&server, &operator, &["audit", "--limit", "1"]).await;
    assert_eq!((&entries[0]["action"], &entries[0]["from"]), (&json!("login"), &json!("192.0.2.9")));

    // Whoever tries tokens waits, wherever the right one is; others do not.
    let guess = |from: &'static str| {
        let server = &server;
        async move {
            let wrong = json!({ "token": format!("nightjar_{}", "1".repeat(64)) });
            asks(server, "POST", "/api/v1/login", &[("x-forwarded-for", from)], wrong).await
        }
    };
    for _ in 0..10 {
        assert_eq!(guess("198.51.100.1").await.0, 401);
    }
    let (status, head, fault) = guess("198.51.100.1").await;
    assert!(status == 429 && head.contains("retry-after"), "{fault}");
    let shown =
        [("authorization", &*bearer(&operator)), ("x-forwarded-for", "198.51.100.1")].map(|(a, b)| (a, b.to_owned()));
    let shown: Vec<(&str, &str)> = shown.iter().map(|(a, b)| (*a, b.as_str())).collect();
    assert_eq!(asks(&server, "GET", "/api/v1/run", &shown, json!({})).await.0, 429);
    assert_eq!(guess("198.51.100.2").await.0, 401);

    // What cannot be read is told, and changes nothing.
    let shown = bearer(&operator);
    for (path, body) in [
        ("/api/v1/run/extend", json!({ "token_budget": -1 })),
        ("/api/v1/run/extend", json!({ "token_budget": 5, "more": 1 })),
        ("/api/v1/invites/create", json!({ "addresses": ["0.0.0.0:4433"] })),
        ("/api/v1/invites/create", json!({ "addresses": [] })),
        ("/api/v1/invites/xyz/revoke", json!({ "with_devices": false })),
        ("/api/v1/devices/zz/revoke", json!({})),
    ] {
        let (status, _, fault) = asks(&server, "POST", path, &[("authorization", &shown)], body.clone()).await;
        assert!(status == 400 && fault["error"].is_string(), "{path} {body}: {status} {fault}");
    }
    let long = json!({ "addresses": ["x".repeat(20_000)] });
    assert!(asks(&server, "POST", "/api/v1/invites/create", &[("authorization", &shown)], long).await.0 >= 400);
    let document = asks(&server, "GET", "/api/v1/openapi.json", &[], json!({})).await;
    assert!(document.0 == 200 && document.2["paths"]["/api/v1/devices"]["get"].is_object());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_for_everybody_is_its_owners_choice_and_an_operator_can_hide_it() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let (viewer, operator) = (token(&bed, "viewer", "ben"), token(&bed, "operator", "ann"));
    let device = Device::new(&bed);
    let mut link = device.link(server.address).await;
    let hello = Hello {
        invite: bed.invite(Role::Volunteer),
        codecs: (1..6).collect(),
        kinds: vec![1],
        name: "attic".into(),
        public_name: "Ada & <Bob>".into(),
        ..Hello::default()
    };
    assert!(matches!(link.ask(ask::Body::Hello(hello)).await, answer::Body::Welcome(_)));
    let page = get(server.public, "/");
    assert!(page.contains("<li><bdi>Ada &amp; &lt;Bob&gt;</bdi></li>") && !page.contains("attic"), "{page}");
    let devices = told(&server, &viewer, &["device", "list"]).await;
    let id = devices[0]["id"].as_str().unwrap();
    let shown = |device: &Value| (device["public_name"].clone(), device["name_hidden"].clone());
    assert_eq!(shown(&devices[0]), (json!("Ada & <Bob>"), json!(false)));
    refused(&command(&server, &viewer, &["device", "hide-name", id]).await, "operator's token");
    told(&server, &operator, &["device", "hide-name", &id[..8]]).await;
    assert_eq!(shown(&told(&server, &viewer, &["device", "show", id]).await["device"]).1, json!(true));
    assert!(get(server.http, &format!("/devices/{id}")).contains("hidden"));
    told(&server, &operator, &["device", "show-name", id]).await;
    assert_eq!(shown(&told(&server, &viewer, &["device", "show", id]).await["device"]).1, json!(false));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_cut_off_and_an_invite_lets_nobody_in_any_more() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let operator = token(&bed, "operator", "ann");
    let (bad, good) = (Device::new(&bed), Device::new(&bed));
    let mut bad_link = bad.join(server.address, bed.invite(Role::Volunteer)).await;
    bad_link.lease(LeaseRequest::default()).await;
    let training = told(&server, &operator, &["device", "list", "--state", "training"]).await;
    let id = training[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(training.as_array().unwrap().len(), 1);
    let mut good_link = good.join(server.address, bed.invite(Role::Volunteer)).await;
    let none = told(&server, &operator, &["device", "list", "--role", "anchor"]).await;
    assert_eq!(none, json!([]));

    refused(&command(&server, &operator, &["device", "revoke", "00000000"]).await, "no device of this run");
    let done = command(&server, &operator, &["device", "revoke", &id[..8]]).await;
    assert!(done.status.success() && String::from_utf8_lossy(&done.stdout).contains("revoked"), "{done:?}");
    let why = closed(&bad_link.connection).await;
    assert_eq!(close_code(&why), Some(CloseCode::Revoked));
    assert!(why.to_string().contains("operator"), "{why}");
    let shown = told(&server, &operator, &["device", "show", &id[..10]]).await;
    assert_eq!((&shown["device"]["state"], &shown["leases"][0]["outcome"]), (&json!("revoked"), &json!("returned")));
    let mut again = bad.link(server.address).await;
    let told_bad = refusal(again.hello(bed.invite(Role::Volunteer), Role::Volunteer).await);
    assert_eq!((told_bad.code(), told_bad.action()), (RefusalCode::Invite, RefusalAction::Stop));
    good_link.lease(LeaseRequest::default()).await;

    let invites = told(&server, &operator, &["invite", "list"]).await;
    let (nonce, devices) = (invites[0]["nonce"].as_str().unwrap(), &invites[0]["devices"]);
    assert_eq!((nonce, devices), ("01", &json!(1)), "one device is left of it");
    let issued = of_state(&bed, &["invite", "--address", "192.0.2.7:4433", "--devices", "3"]);
    assert!(issued.status.success() && String::from_utf8_lossy(&issued.stdout).starts_with("nightjar:"), "{issued:?}");
    let shown = bearer(&operator);
    let wanted = json!({ "addresses": ["192.0.2.7:4433"], "role": "anchor", "expires_days": 2 });
    let (status, _, made) = asks(&server, "POST", "/api/v1/invites/create", &[("authorization", &shown)], wanted).await;
    assert!(status == 200 && made["link"].as_str().unwrap().starts_with("nightjar:"), "{made}");
    let invites = told(&server, &operator, &["invite", "list"]).await;
    let of = |by: &str| {
        invites.as_array().unwrap().iter().find(|i| i["issued_by"].as_str().is_some_and(|b| b.starts_with(by)))
    };
    assert_eq!(of("local").unwrap()["devices_max"], 3);
    assert_eq!((&of("ann").unwrap()["role"], &of("ann").unwrap()["nonce"]), (&json!("anchor"), &made["nonce"]));

    let done = told(&server, &operator, &["invite", "revoke", "01", "--with-devices"]).await;
    assert_eq!(done["devices"], 1, "{done}");
    closed(&good_link.connection).await;
    let mut late = Device::new(&bed).link(server.address).await;
    assert!(refusal(late.hello(bed.invite(Role::Volunteer), Role::Volunteer).await).sentence.contains("withdrawn"));
    server.stop().await;

    // And after a restart.
    let server = bed.serve().await;
    let mut again = bad.link(server.address).await;
    assert_eq!(refusal(again.hello(vec![], Role::Volunteer).await).action(), RefusalAction::Stop);
    let mut late = Device::new(&bed).link(server.address).await;
    assert!(refusal(late.hello(bed.invite(Role::Volunteer), Role::Volunteer).await).sentence.contains("withdrawn"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_paused_drained_resumed_and_extended() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let operator = token(&bed, "operator", "ann");
    let (owl, late) = (Device::new(&bed), Device::new(&bed));
    let mut link = owl.join(server.address, bed.invite(Role::Volunteer)).await;
    link.lease(LeaseRequest::default()).await;
    let paused = told(&server, &operator, &["run", "pause"]).await;
    assert_eq!(paused["leases_open"], 1);
    let mut late = late.join(server.address, bed.invite(Role::Volunteer)).await;
    let told_late = refusal(late.ask(ask::Body::LeaseRequest(LeaseRequest::default())).await);
    assert!(told_late.sentence.contains("paused") && told_late.action() == RefusalAction::Retry, "{told_late:?}");
    let draining = {
        let mut command = program();
        command.args(["run", "drain", "--url", &format!("http://{}", server.http)]).env("NIGHTJAR_TOKEN", &operator);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let left = link.ask(ask::Body::Leave(Default::default())).await;
    assert!(matches!(left, answer::Body::Done(_)), "{left:?}");
    let drained = draining.await.unwrap();
    assert!(drained.status.success() && String::from_utf8_lossy(&drained.stdout).contains("drained"), "{drained:?}");
    server.stop().await;

    let server = bed.serve().await;
    let stands = told(&server, &operator, &["run", "show"]).await;
    assert!(stands["paused_unix_ms"].is_u64(), "{stands}");
    let budget = bed.spec.token_budget;
    refused(&command(&server, &operator, &["run", "extend", &budget.to_string()]).await, "larger");
    let more = told(&server, &operator, &["run", "extend", &(2 * budget).to_string()]).await;
    assert_eq!(more["token_budget"], 2 * budget);
    assert_eq!(told(&server, &operator, &["run", "resume"]).await["paused_unix_ms"], Value::Null);
    server.stop().await;

    // The run file says as before; what the operator said stands.
    let server = bed.serve().await;
    assert_eq!(server.status().await["token_budget"], 2 * budget);
    let mut link = owl.join(server.address, bed.invite(Role::Volunteer)).await;
    link.lease(LeaseRequest::default()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_what_it_needs() {
    let bed = Bed::new();
    let server = bed.serve().await;
    let without = program().args(["device", "list"]).env_remove("NIGHTJAR_TOKEN").output().unwrap();
    refused(&without, "token create");
    refused(&command(&server, "nightjar_123", &["device", "list"]).await, "that is no token");
    let stranger = format!("nightjar_{}", "0".repeat(64));
    refused(&command(&server, &stranger, &["device", "list"]).await, "not known here");
    let nobody =
        program().args(["run", "show", "--url", "http://127.0.0.1:9"]).env("NIGHTJAR_TOKEN", &stranger).output();
    let nobody = nobody.unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("is the run served there?"), "{nobody:?}");
    let elsewhere = program().args(["run", "show", "--url", "https://lab"]).env("NIGHTJAR_TOKEN", &stranger).output();
    refused(&elsewhere.unwrap(), "ssh -L");
    let nowhere = program().args(["token", "list", "--state"]).arg(bed.path("none")).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
    server.stop().await;
}
