//! Series at a served run: weights go up over HTTP, a device trains from them, and what comes of it comes down.

use crate::{
    admin::token,
    bed::{Bed, Serving},
    device::{Device, trained},
};
use nightjar_shared::{
    delta,
    ids::BlobHash,
    run_spec::Pacing,
    wire::{LeaseRequest, Role, coordinator_message as answer, device_message as ask},
};
use serde_json::{Value, json};

/// What comes for a request: its status and its body.
async fn asks(server: &Serving, token: &str, method: &str, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{}/api/v1/{path}", server.http))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = match request.method().as_str() {
            "GET" => agent.run(request.map(|_| ())).unwrap(),
            _ => agent.run(request).unwrap(),
        };
        (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
    })
    .await
    .unwrap()
}

async fn told(server: &Serving, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if method == "GET" { vec![] } else { body.to_string().into_bytes() };
    let (status, body) = asks(server, token, method, path, body).await;
    (status, serde_json::from_slice(&body).unwrap())
}

fn bytes(flat: &[f32]) -> Vec<u8> {
    flat.iter().flat_map(|value| value.to_le_bytes()).collect()
}

async fn put(server: &Serving, token: &str, body: Vec<u8>) -> (u16, String) {
    let path = format!("weights/{}", BlobHash::of(&body));
    let (status, body) = asks(server, token, "PUT", &path, body).await;
    (status, String::from_utf8(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn given_weights_are_trained_from_and_come_back() {
    let mut bed = Bed::new();
    bed.spec.lease.pacing = Pacing::Series;
    let server = bed.serve().await;
    let (operator, viewer) = (token(&bed, "operator", "ann"), token(&bed, "viewer", "ben"));
    let model = bed.spec.model.clone();
    let n = model.parameters();
    let (_, told_model) = told(&server, &viewer, "GET", "model", json!({})).await;
    assert_eq!(told_model["parameters"], n);
    assert_eq!(told_model["tensors"][0], json!({"name": "model.embed_tokens.weight", "shape": [256, 8]}));

    let mut flat: Vec<f32> = model.draw_all(5).iter().map(|w| w * 1.000_1).collect();
    let good = bytes(&flat);
    let hash = BlobHash::of(&good).to_string();
    assert_eq!(told(&server, &viewer, "GET", "series", json!({})).await.0, 404);
    let begin = json!({"name": "one", "weights": hash, "rounds": 1});
    assert_eq!(told(&server, &operator, "POST", "series/begin", begin.clone()).await.0, 404, "they are not stored");
    assert_eq!(put(&server, &viewer, good.clone()).await.0, 403);
    let (status, why) = put(&server, &operator, good[4..].to_vec()).await;
    assert!(status == 400 && why.contains("4 bytes a parameter"), "{why}");
    let (status, why) = put(&server, &operator, [&good[..], &[0; 4]].concat()).await;
    assert!(status == 400 && why.contains("4 a parameter"), "{why}");
    let (status, body) = asks(&server, &operator, "PUT", &format!("weights/{hash}"), vec![0; good.len()]).await;
    assert_eq!(status, 400, "other bytes than their name says: {}", String::from_utf8_lossy(&body));
    flat[7] = f32::INFINITY;
    let (status, why) = put(&server, &operator, bytes(&flat)).await;
    assert!(status == 400 && why.contains("model.embed_tokens.weight holds the value inf"), "{why}");
    for _ in 0..2 {
        assert_eq!(put(&server, &operator, good.clone()).await.0, 200);
    }
    let (status, series) = told(&server, &operator, "POST", "series/begin", begin.clone()).await;
    assert_eq!((status, &series["number"], &series["is_over"]), (200, &json!(1), &json!(false)), "{series}");
    assert_eq!(asks(&server, &viewer, "GET", "series/weights", vec![]).await.0, 409, "it is not over");

    // The coordinator is started anew, and the same series goes on.
    server.stop().await;
    let server = bed.serve().await;
    let (status, series) = told(&server, &operator, "POST", "series/begin", begin).await;
    assert_eq!((status, &series["number"]), (200, &json!(1)), "{series}");
    let mut link = Device::new(&bed).join(server.address, bed.invite(Role::Volunteer)).await;
    let lease = link.lease(LeaseRequest::default()).await;
    assert_eq!((lease.base_version, lease.updates.len()), (1, 0));
    let (bytes_up, offer) = trained(&model, &lease, 1);
    let offered = link.ask(ask::Body::DeltaOffer(offer.clone())).await;
    assert!(matches!(offered, answer::Body::Upload(_)), "{offered:?}");
    link.upload(lease.id, &bytes_up).await.unwrap();
    let done = link.ask(ask::Body::DeltaOffer(offer)).await;
    assert!(matches!(&done, answer::Body::Done(done) if done.merged), "{done:?}");
    let series = loop {
        let (_, series) = told(&server, &viewer, "GET", "series", json!({})).await;
        if series["is_over"] == true {
            break series;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(
        (&series["devices"], &series["samples"], &series["left_out"]),
        (&json!(1), &json!(lease.samples), &json!(0))
    );
    assert!((series["train_loss"].as_f64().unwrap() - 2.6).abs() < 1e-9, "{series}");
    let (status, came) = asks(&server, &viewer, "GET", "series/weights", vec![]).await;
    assert_eq!((status, came.len()), (200, good.len()));
    let mut change = vec![0.0; n];
    delta::add_scaled(&model, &bytes_up, &vec![1.0; model.tensors().len()], &mut change).unwrap();
    let read = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
    let (given, came) = (read(&good), read(&came));
    let off = given.iter().zip(&change).zip(&came).map(|((w, g), got)| (w - g - got).abs()).fold(0.0, f32::max);
    let moved = change.iter().fold(0f32, |most, g| most.max(g.abs()));
    assert!(moved > 1e-5 && off < 1e-6, "moved {moved}, off {off}");

    let (status, fault) = told(&server, &operator, "POST", "series/cut", json!({"name": "two"})).await;
    assert!(status == 404 && fault["error"].as_str().unwrap().contains("not the newest"), "{fault}");
    let (_, audit) = told(&server, &viewer, "GET", "audit?limit=50", json!({})).await;
    assert!(audit.to_string().contains("series begin"), "{audit}");
    server.stop().await;
}
