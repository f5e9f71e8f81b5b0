//! Whole runs over populations with made-up gradients: links, losses, comings and goings, liars; and what is counted.

use nightjar_shared::{
    delta::{self, CodecId},
    ids::BlobHash,
    run_spec::{DeltaSpec, InnerState, MergeSpec, Pacing, PublishSpec},
};
use nightjar_sim::{
    Setup,
    dataset::Dataset,
    population::{Byzantine, Churn, Group, Lie, Owner, Population, Spell, Wanted},
    results::RunResult,
    run,
    scene::Scene,
    training::synthetic::Synthetic,
};

/// A small run on one group of devices, until so many tokens are merged.
fn setup(seed: u64, group: Group, tokens: u64) -> Setup {
    let scene = Scene { seed, ..Scene::default() };
    let mut spec = scene.spec();
    // The scene's choices differ from seed to seed; here all runs are alike.
    (spec.lease.pacing, spec.lease.steps, spec.lease.wall_s_end) = (Pacing::Free, 0, None);
    spec.inner.state = InnerState::Keep;
    spec.merge = MergeSpec { quorum: Some(3), learning_rate: 0.7, norm_factor_max: 1e6, ..MergeSpec::default() };
    (spec.delta, spec.publish) = (DeltaSpec::default(), PublishSpec { keyframe_every: 4, ..PublishSpec::default() });
    spec.delta.codec = CodecId::Blocks8;
    (spec.seed, spec.token_budget) = (1, tokens);
    let population = Population { group: vec![group], ..scene.population() };
    let mut setup = Setup::new("test", seed, spec, scene.dataset(), population);
    setup.until.virtual_s = 6.0 * 3600.0;
    setup
}

fn simulate(setup: &Setup) -> RunResult {
    run(setup, Box::new(Synthetic::new(setup.spec.seed)), &mut |_| {})
}

fn group() -> Group {
    Group::new("device", 5, 100.0)
}

#[test]
fn a_run_ends_at_its_budget_and_adds_up() {
    let setup = setup(3, group(), 60_000);
    let result = simulate(&setup);
    assert_eq!(result.faults, Vec::<String>::new());
    assert!(result.tokens >= 60_000 && result.versions > 5, "{} tokens, {} versions", result.tokens, result.versions);
    assert_eq!(result.staleness.values().sum::<u64>(), result.merged);
    assert_eq!(result.leases["merged"], result.merged);
    let allowed = delta::bytes_allowed(&setup.spec.model, &setup.spec.delta);
    let sent = allowed.start() * result.merged..=allowed.end() * (result.merged + 10);
    assert!(sent.contains(&result.bytes.deltas), "{} bytes, not {sent:?}", result.bytes.deltas);
    assert!(result.bytes.keyframes > 0 && result.bytes.updates > 0 && result.bytes.messages_up > 0);
    assert_eq!((result.bytes.resent_up, result.bytes.resent_down), (0, 0), "nothing broke");
    let all = 5.0 * result.virtual_s;
    let time = result.time;
    assert!((time.available() + time.held + time.offline - all).abs() < 1e-6 * all, "every second is somewhere");
    assert!(result.utilisation > 0.5 && result.utilisation <= 1.0, "{}", result.utilisation);
    let losses: Vec<f64> = result.curve.iter().filter_map(|p| p.loss).collect();
    assert!(losses.last() < losses.first(), "{losses:?}");
    assert!(result.curve.windows(2).all(|w| w[0].virtual_s <= w[1].virtual_s && w[0].tokens <= w[1].tokens));
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let shaky = Group { loss: 0.1, message_loss: 0.02, tokens_per_s_jitter: 0.3, ..group() };
    let [a, b, c] = [7, 7, 8].map(|seed| RunResult { host: None, ..simulate(&setup(seed, shaky.clone(), 30_000)) });
    assert_eq!(a, b);
    assert_ne!(a.digest, c.digest);
}

#[test]
fn devices_without_memory_for_the_model_take_no_part() {
    let mut setup = setup(3, group(), 30_000);
    setup.population.group.push(Group { memory_gib: 0.1.into(), ..Group::new("small", 5, 100.0) });
    let result = simulate(&setup);
    assert_eq!(result.faults, Vec::<String>::new());
    let without =
        simulate(&Setup { population: Population { group: vec![group()], ..setup.population.clone() }, ..setup });
    assert!(result.tokens >= 30_000 && without.tokens >= 30_000);
    assert!(
        (result.virtual_s / without.virtual_s - 1.0).abs() < 0.1,
        "{} s, {} s",
        result.virtual_s,
        without.virtual_s
    );
    assert!(result.utilisation < 0.6 * without.utilisation, "half of the devices idle: {}", result.utilisation);
}

#[test]
fn a_thin_link_costs_time_and_breaks_cost_bytes() {
    let fast = simulate(&setup(3, group(), 30_000));
    let thin = simulate(&setup(3, Group { up_mbit: 0.002.into(), ..group() }, 30_000));
    assert!(thin.virtual_s > 1.3 * fast.virtual_s, "{} s, not {} s", thin.virtual_s, fast.virtual_s);
    assert!(thin.time.uploading > 3.0 * fast.time.uploading, "{} s, {} s", thin.time.uploading, fast.time.uploading);
    // Blobs of this run are smaller than what is in flight: a broken one comes again whole.
    let broken =
        simulate(&setup(3, Group { up_mbit: 0.01.into(), down_mbit: 0.01.into(), loss: 0.3, ..group() }, 30_000));
    assert_eq!(broken.faults, Vec::<String>::new());
    assert!(broken.bytes.resent_up > 0 && broken.bytes.resent_down > 0, "{:?}", broken.bytes);
}

#[test]
fn devices_that_come_and_go_lose_no_sample() {
    let churn = Some(Churn { on_s: 40.0, off_s: 60.0 });
    let result = simulate(&setup(5, Group { churn, ..group() }, 40_000));
    assert_eq!(result.faults, Vec::<String>::new());
    let share = result.time.offline / (5.0 * result.virtual_s);
    assert!((0.4..0.8).contains(&share), "{share} of the time off");
    assert!(result.leases.contains_key("expired"), "{:?}", result.leases);
}

#[test]
fn half_of_all_deltas_lost_is_half_of_the_work() {
    let whole = simulate(&setup(3, group(), 40_000));
    let half = simulate(&setup(3, Group { deltas_lost: 0.5, ..group() }, 40_000));
    let away = simulate(&setup(3, Group { deltas_lost: 0.5, lost_away_s: 60.0, ..group() }, 40_000));
    for result in [&half, &away] {
        assert_eq!(result.faults, Vec::<String>::new());
        assert!(result.utilisation < 0.7 * whole.utilisation, "{} of {}", result.utilisation, whole.utilisation);
    }
    assert!(half.time.offline < 100.0 && away.time.offline > 100.0, "{} {}", half.time.offline, away.time.offline);
}

#[test]
fn liars_do_harm_and_are_counted_as_devices() {
    let distance = |result: &RunResult| result.curve.iter().filter_map(|p| p.loss).next_back().unwrap();
    let honest = distance(&simulate(&setup(3, group(), 40_000)));
    for sends in [Lie::Flipped, Lie::Random] {
        let byzantine = Some(Byzantine { share: 0.2, sends, factor: None });
        let result = simulate(&setup(3, Group { byzantine, ..group() }, 40_000));
        assert_eq!(result.faults, Vec::<String>::new());
        assert!(distance(&result) > 1.05 * honest, "{sends:?}: {} against {honest}", distance(&result));
    }
}

#[test]
fn a_run_that_cannot_be_trained_says_so() {
    let mut setup = setup(3, group(), 1000);
    setup.spec.merge.learning_rate = -1.0;
    let result = simulate(&setup);
    assert!(result.faults[0].contains("merge.learning_rate is -1"), "{:?}", result.faults);
}

#[test]
fn a_run_without_its_deltas_is_the_same_but_cannot_be_replayed() {
    let whole = setup(3, group(), 30_000);
    let forgetful = Setup { forget_deltas: true, ..whole.clone() };
    let [a, b] = [whole, forgetful].map(|setup| simulate(&setup));
    assert_eq!((a.digest, a.faults), (b.digest, b.faults));
}

/// Three devices on four shards of 40 kB, for several epochs.
#[test]
fn a_small_disk_holds_fewer_shards_and_fetches_them_again() {
    let (scene, tokens) = (Scene { seed: 3, ..Scene::default() }, 100_000);
    let run_with = |disk_bytes: u64| {
        let disk_gib = (disk_bytes as f64 / (1u64 << 30) as f64).into();
        let mut setup = setup(3, Group { disk_gib, count: 3, ..group() }, tokens);
        let bytes = |number| (0..40_000).map(|i| scene.shard(number)[i % 300]).collect::<Vec<u8>>();
        let mut manifest = scene.manifest();
        for (info, number) in manifest.train.iter_mut().chain(&mut manifest.heldout).zip(0..) {
            (info.hash, info.bytes) = (BlobHash::of(&bytes(number)), 40_000);
        }
        setup.dataset = Dataset::new(manifest, (0..5).map(bytes));
        simulate(&setup)
    };
    // At its worst training keeps 57 bytes a parameter; with the weights' blobs, there is room for one shard or two.
    let training = 57 * scene.spec().model.parameters() as u64;
    let [roomy, scarce] = [0, training + 70_000].map(run_with);
    for result in [&roomy, &scarce] {
        assert_eq!(result.faults, Vec::<String>::new());
        assert!(result.tokens >= tokens, "{}", result.tokens);
    }
    assert!(roomy.bytes.shards <= 3 * 4 * 40_000, "every device has every shard at most once: {}", roomy.bytes.shards);
    assert!(scarce.bytes.shards > 2 * roomy.bytes.shards, "{} and {}", scarce.bytes.shards, roomy.bytes.shards);
}

/// A device whose owner comes every five minutes, for one: what it trains in the time that the policy gives it.
#[test]
fn what_an_owner_wants_is_what_their_device_trains() {
    let of = |wanted: &[(&'static str, &'static str)]| {
        let preferences = Wanted::said(wanted.iter().copied()).unwrap();
        let owner = Owner { preferences, ..Owner::new(300.0, 60.0) };
        let mut setup = setup(5, Group { owner: Some(owner), ..group() }, 1 << 40);
        setup.until.virtual_s = 8.0 * 3600.0;
        // Long enough that owners come and go within one.
        (setup.spec.lease.wall_s, setup.spec.lease.wall_s_min, setup.spec.lease.steps_max) = (40.0, None, 250);
        let result = simulate(&setup);
        assert_eq!(result.faults, Vec::<String>::new());
        // Tokens for each second of five devices that train 100 tokens a second.
        (result.time, result.tokens as f64 / result.time.training / 100.0, result.tokens)
    };
    let (freed, pace_freed, _) = of(&[("idle_minutes", "1")]);
    let (frozen, pace_frozen, tokens_frozen) = of(&[("idle_minutes", "1"), ("free_memory_on_yield", "false")]);
    // A Poisson process of visits: alone for 5 of 6 minutes, of which a minute must have passed without input.
    let share = |time: nightjar_sim::results::TimeByActivity| time.held / (time.held + time.available());
    for time in [freed, frozen] {
        assert!((0.25..0.4).contains(&share(time)), "held for {}", share(time));
    }
    assert!(
        (0.85..=1.001).contains(&pace_frozen),
        "a frozen worker goes on where it was, and not before: {pace_frozen}"
    );
    assert!(pace_freed < pace_frozen, "an ended one goes back to its checkpoint: {pace_freed}, {pace_frozen}");

    let (slow, pace_slow, tokens_slow) = of(&[("idle_minutes", "1"), ("in_use_duty_percent", "20")]);
    assert_eq!(slow.held, 0.0, "it never holds");
    assert!(tokens_slow > tokens_frozen, "{tokens_slow} tokens, {tokens_frozen}");
    let (there, away) = (share(frozen), 1.0 - share(frozen));
    assert!((pace_slow - (away + 0.2 * there)).abs() < 0.08, "{pace_slow}, not {}", away + 0.2 * there);
}

/// A lease that is frozen, slowed down, ended and taken up again at another pace took as long as it took, and no longer
/// than it was out.
#[test]
fn nobody_honest_is_refused_for_having_been_interrupted() {
    let wanted = [("idle_minutes", "1"), ("in_use_duty_percent", "2"), ("checkpoint_s", "5")];
    let full_screen = Some(Spell { every_s: 60.0, for_s: 20.0 });
    let owner = Owner { full_screen, preferences: Wanted::said(wanted).unwrap(), ..Owner::new(150.0, 60.0) };
    let mut setup = setup(5, Group { owner: Some(owner), tokens_per_s_jitter: 0.6, ..group() }, 1 << 40);
    setup.until.virtual_s = 8.0 * 3600.0;
    (setup.spec.lease.wall_s, setup.spec.lease.wall_s_min, setup.spec.lease.steps_max) = (40.0, None, 250);
    let result = simulate(&setup);
    assert_eq!(result.faults, Vec::<String>::new());
    assert!(result.merged > 200 && !result.leases.contains_key("screened out"), "{:?}", result.leases);
}
