//! The comparisons on a model of a few hundred parameters.

use super::*;

fn lab(method: Method, speeds: &[f64]) -> Lab {
    let model = ModelSpec {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 8,
        ..ModelSpec::tiny()
    };
    let text: Vec<u8> = b"the cat sat on the mat and the dog sat on the log. ".repeat(40);
    Lab {
        method,
        inner: InnerSpec { batch_samples: 2, ..InnerSpec::default() },
        token_budget: 4096,
        speeds: speeds.to_vec(),
        link: Link { up: 20.0, down: 100.0, latency_s: 0.05 },
        seed: 1,
        text: crate::text::tokens(&text).into(),
        measure: Measure::of_texts(&text[..400], Some(b"another text, that is not about cats at all"), 8, 10),
        measurements: 4,
        start: (model.draw_all(1).into(), None),
        model,
    }
}

#[test]
fn diloco_of_one_device_and_one_step_is_training_alone() {
    let alone = lab(Method::Alone, &[100.0]).run().unwrap();
    let diloco = lab(Method::Diloco { steps: 1, learning_rate: 1.0, momentum: 0.0 }, &[100.0]).run().unwrap();
    assert_eq!(alone.rounds, 256);
    for (a, d) in alone.curve.iter().zip(&diloco.curve) {
        assert!((a.loss.unwrap() - d.loss.unwrap()).abs() < 1e-3, "{a:?} {d:?}");
    }
    assert!(alone.curve[4].loss.unwrap() < alone.curve[0].loss.unwrap() - 0.5, "it learns");
    assert_eq!(alone.curve[4].bytes_up, 0);
}

#[test]
fn what_waits_for_the_slowest_takes_its_time() {
    let speeds = [100.0, 50.0, 25.0];
    let n = lab(Method::Alone, &speeds).model.parameters() as u64;
    let parallel = lab(Method::DataParallel, &speeds).run().unwrap();
    let end = parallel.curve.last().unwrap();
    // 86 steps of 16 tokens a device, each at 25 tokens a second give or take a tenth, and 0.1 s on the way.
    assert_eq!((parallel.rounds, end.bytes_up), (86, 86 * 3 * 2 * n));
    assert!(
        (86.0 * (16.0 / 25.0 * 0.9 + 0.1)..86.0 * (16.0 / 25.0 * 1.1 + 0.2)).contains(&end.virtual_s),
        "{}",
        end.virtual_s
    );
    assert!((0.3..0.6).contains(&parallel.utilisation), "{}", parallel.utilisation);
}

#[test]
fn halos_learns_without_waiting() {
    let halos = lab(Method::Halos { steps: 4, regions: 2 }, &[100.0, 50.0, 25.0, 25.0]).run().unwrap();
    let end = halos.curve.last().unwrap();
    assert!(halos.rounds >= 1, "{halos:?}");
    assert!(end.loss.unwrap() < halos.curve[0].loss.unwrap(), "{halos:?}");
    assert!(end.virtual_s < 1.3 * 4096.0 / 200.0, "{}", end.virtual_s);
    assert_eq!(halos, lab(Method::Halos { steps: 4, regions: 2 }, &[100.0, 50.0, 25.0, 25.0]).run().unwrap());
}
