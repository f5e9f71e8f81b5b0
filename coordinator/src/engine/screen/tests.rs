//! The screen: what passes without history, beside others, and after a lasting change.

use super::*;

fn spec() -> RunSpec {
    serde_json::from_str(r#"{"name": "x", "token_budget": 1000000}"#).unwrap()
}

/// A screen, and devices whose deltas it judges, each at the same place of the schedule.
struct Trial {
    spec: RunSpec,
    screen: Screen,
    wall_s: u64,
}

impl Trial {
    fn new(spec: RunSpec) -> Self {
        let screen = Screen::restore(&spec, spec.model.parameters() as f64, &[], |_| false);
        Trial { spec, screen, wall_s: 1_000_000 }
    }

    /// A delta of so many times the way that Adam's steps can lead.
    fn delta(&self, device: u8, share: f64, steps: u32) -> Candidate {
        let told = Told { tokens: 500_000, tokens_per_step: 512 };
        let norm = share * sum_of_rates(&self.spec, told, steps) * (self.spec.model.parameters() as f64).sqrt();
        Candidate {
            device: DeviceId([device; 32]),
            is_anchors: false,
            measured: Measured { norm, largest: 0.0 },
            steps,
            staleness: 0,
            told: Some(told),
            tokens_so_far: 500_000,
            wall: Wall { unix_ms: self.wall_s * 1000 },
        }
    }

    fn judge(&mut self, device: u8, share: f64, steps: u32) -> Result<(), Unfit> {
        let delta = self.delta(device, share, steps);
        self.screen.judge(&self.spec, &delta)
    }

    /// Three devices have shown how far 100 steps lead.
    fn with_history() -> Self {
        let mut trial = Trial::new(spec());
        for _ in 0..3 {
            (1..=3).for_each(|device| trial.judge(device, 0.3, 100).unwrap());
        }
        trial
    }
}

#[test]
fn without_history_no_more_passes_than_an_optimizer_can_do() {
    let mut trial = Trial::new(spec());
    // From a random start and late in a run, as honest runs were measured.
    for (share, steps) in
        [(0.97, 1), (0.84, 2), (0.65, 16), (0.67, 32), (0.43, 64), (0.31, 128), (0.28, 256), (0.26, 500)]
    {
        trial.judge(1, share, steps).unwrap();
    }
    for (share, steps) in [(1.4, 1), (1.4, 64), (1.4, 128), (1.4, 256), (1.4, 500)] {
        assert!(matches!(trial.judge(2, share, steps), Err(Unfit::Impossible { .. })), "{share} {steps}");
    }
    assert!(matches!(trial.judge(2, f64::NAN, 4), Err(Unfit::Impossible { .. })));
}

/// The bound goes by the rates that the steps had: at a run's beginning these are a thirtieth of the peak.
#[test]
fn the_schedule_decides_how_far_steps_lead() {
    let mut trial = Trial::new(spec());
    let begins = Told { tokens: 0, tokens_per_step: 512 };
    let peak = trial.delta(1, 1.0, 4);
    let early = Candidate { told: Some(begins), ..peak };
    assert!(matches!(trial.screen.judge(&trial.spec, &early), Err(Unfit::Impossible { .. })));
    trial.screen.judge(&trial.spec, &peak).unwrap();
    // What was told before a restart is forgotten: the largest rate until now counts.
    trial.screen.judge(&trial.spec, &Candidate { told: None, ..peak }).unwrap();
    let forgotten = Candidate { told: None, tokens_so_far: 1000, ..peak };
    let judged = trial.screen.judge(&trial.spec, &forgotten);
    assert!(matches!(judged, Err(Unfit::Impossible { .. })), "the peak of the schedule is still to come");
}

#[test]
fn beside_others_no_more_passes_than_twice_what_they_do() {
    let mut trial = Trial::with_history();
    trial.judge(4, 0.55, 100).unwrap();
    assert!(matches!(trial.judge(5, 0.65, 100), Err(Unfit::Far(_))));
    // Few steps lead as far as they can, and an optimizer that starts afresh takes whole ones.
    trial.judge(4, 0.9, 4).unwrap();
    // A faster device's steps may lead as far each as the others', but not further.
    assert!(trial.judge(4, 0.65, 400).is_err());
    trial.judge(4, 0.3, 400).unwrap();
}

#[test]
fn what_is_next_to_nothing_does_not_count() {
    let mut trial = Trial::with_history();
    for share in [0.0, 1e-9, 5e-5, 0.002] {
        assert!(matches!(trial.judge(4, share, 100), Err(Unfit::Nothing { .. })), "{share}");
    }
    let mut first = Trial::new(spec());
    assert!(first.judge(1, 5e-5, 100).is_err());
    first.judge(1, 0.005, 100).unwrap();
}

/// The attack that had 0 of 62 honest deltas merged and 2,038 of one that sends next to nothing.
#[test]
fn one_device_cannot_move_the_median() {
    let mut trial = Trial::with_history();
    for _ in 0..2000 {
        trial.judge(9, 0.011, 100).unwrap();
    }
    for device in 1..=3 {
        trial.judge(device, 0.3, 100).unwrap();
    }
    // Nor can two of five, nor one that is there first.
    let mut trial = Trial::new(spec());
    (0..2000).for_each(|_| trial.judge(9, 0.0011, 100).unwrap());
    for _ in 0..9 {
        (1..=3).for_each(|device| trial.judge(device, 0.3, 100).unwrap());
    }
    assert!(trial.judge(9, 0.0011, 100).is_err(), "by now the others' word counts");
}

/// However many keys somebody has: who has merged nothing takes nobody's place.
#[test]
fn a_crowd_of_strangers_leaves_the_others_their_say() {
    let mut trial = Trial::with_history();
    for number in 0..DELTAS_KEPT as u32 {
        trial.wall_s += 1;
        let mut key = [9; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let delta = Candidate { device: DeviceId(key), ..trial.delta(9, 0.9, 100) };
        assert!(matches!(trial.screen.judge(&trial.spec, &delta), Err(Unfit::Far(_))), "stranger {number}");
    }
}

#[test]
fn it_takes_several_devices_and_an_anchors_word_comes_first() {
    let mut trial = Trial::new(spec());
    for _ in 0..9 {
        (1..=2).for_each(|device| trial.judge(device, 0.1, 100).unwrap());
    }
    trial.judge(3, 0.9, 100).unwrap();
    trial.judge(3, 0.9, 100).unwrap();
    let mut anchored = Trial::with_history();
    let anchors = |trial: &mut Trial| {
        let delta = Candidate { is_anchors: true, ..trial.delta(8, 0.5, 100) };
        trial.screen.judge(&trial.spec, &delta)
    };
    (0..2).for_each(|_| anchors(&mut anchored).unwrap());
    anchored.judge(4, 0.9, 100).unwrap();
}

#[test]
fn a_few_wild_ones_move_nothing_a_lasting_change_passes_in_the_end() {
    let mut trial = Trial::with_history();
    // However long all was otherwise.
    for _ in 0..40 {
        (1..=3).for_each(|device| trial.judge(device, 0.3, 100).unwrap());
    }
    for _ in 0..20 {
        assert!(trial.judge(3, 0.9, 64).is_err());
    }
    assert!(trial.judge(1, 0.9, 64).is_err(), "one device's change is no change of the run");
    let refused =
        (0..100).take_while(|_| [1, 2, 3].map(|device| trial.judge(device, 0.9, 64).is_err()).contains(&true)).count();
    assert!((2..10).contains(&refused), "{refused}");
}

#[test]
fn who_has_left_has_no_say_for_ever() {
    let mut trial = Trial::with_history();
    assert!(trial.judge(4, 0.9, 100).is_err());
    trial.wall_s += 3601;
    trial.judge(4, 0.9, 100).unwrap();
}

#[test]
fn what_the_ledger_remembers_has_a_say_after_a_restart() {
    let spec = spec();
    let trial = Trial::with_history();
    let norm = trial.delta(1, 0.3, 100).measured.norm;
    let recent = |(seq, device): (u64, u8)| RecentDelta {
        seq,
        device: DeviceId([device; 32]),
        norm,
        steps: 100,
        tokens_so_far: 550_000,
        merged_at: Wall { unix_ms: 1_000_000_000 },
    };
    let recent: Vec<RecentDelta> = (1..=6).zip([1, 2, 3].into_iter().cycle()).map(recent).collect();
    let screen = Screen::restore(&spec, spec.model.parameters() as f64, &recent, |_| false);
    let mut restarted = Trial { screen, ..trial };
    restarted.judge(4, 0.5, 100).unwrap();
    assert!(restarted.judge(4, 0.9, 100).is_err());
}

/// Three devices that send next to nothing, each first and again and again, keep nobody out for long.
#[test]
fn a_few_that_send_next_to_nothing_do_not_lock_the_others_out() {
    let mut trial = Trial::new(spec());
    for _ in 0..20 {
        (11..=13).for_each(|device| trial.judge(device, 1.2e-4, 1).unwrap());
    }
    (1..=4).for_each(|device| trial.judge(device, 0.19, 500).unwrap());
    // Larger ones are refused at first; then the many have their say.
    let refused = (0..50)
        .take_while(|_| [1, 2, 3, 4].map(|device| trial.judge(device, 0.4, 60).is_err()).contains(&true))
        .count();
    assert!(refused < 5, "{refused}");
}

/// All that a delta may be, in the 128 values of one small tensor.
#[test]
fn no_value_moves_further_than_a_weight_can() {
    let mut trial = Trial::with_history();
    let honest = trial.delta(4, 0.3, 100);
    let way = sum_of_rates(&trial.spec, honest.told.unwrap(), 100);
    let judge = |trial: &mut Trial, largest: f64| {
        let delta = Candidate { measured: Measured { largest, ..honest.measured }, ..honest };
        trial.screen.judge(&trial.spec, &delta)
    };
    let spike = honest.measured.norm / 128f64.sqrt();
    assert!(matches!(judge(&mut trial, spike), Err(Unfit::Spike { .. })), "{spike} and {way}");
    assert!(matches!(judge(&mut trial, f64::NAN), Err(Unfit::Spike { .. })));
    // A consistent gradient, and a large weight's decay.
    for largest in [1.0 * way, 5.0 * way] {
        judge(&mut trial, largest).unwrap();
    }
}

/// What was owed once is not owed for ever: each delta could else be larger than the one before.
#[test]
fn what_is_owed_does_not_grow() {
    let mut sparse = spec();
    (sparse.delta.codec, sparse.delta.k) = (CodecId::Sparse2, 64);
    let mut trial = Trial::new(sparse);
    let mut largest = 0.0;
    for _ in 0..40 {
        let more = largest + 3.0;
        largest = if trial.judge(1, more, 100).is_ok() { more } else { largest };
    }
    assert!(largest < 9.0, "{largest} times as far as steps can lead");
}

#[test]
fn a_stale_delta_is_refused_for_that() {
    let mut trial = Trial::new(spec());
    let stale = Candidate { staleness: 33, ..trial.delta(1, 0.3, 4) };
    assert_eq!(trial.screen.judge(&trial.spec, &stale), Err(Unfit::Stale(33, 32)));
}

/// A value that waits for its turn comes larger.
#[test]
fn sparse_deltas_with_feedback_have_room() {
    let mut sparse = spec();
    (sparse.delta.codec, sparse.delta.k) = (CodecId::Sparse2, 64);
    let mut trial = Trial::new(sparse);
    for _ in 0..3 {
        (1..=3).for_each(|device| trial.judge(device, 0.1, 100).unwrap());
    }
    trial.judge(1, 0.5, 100).unwrap();
    assert!(trial.judge(4, 0.7, 100).is_err());
}

/// A device that was away while the rates fell brings what its last delta owed.
#[test]
fn what_an_old_delta_owes_is_not_held_against_its_device() {
    let mut trial = Trial::with_history();
    let late = Told { tokens: 950_000, tokens_per_step: 512 };
    let late = |trial: &mut Trial, device: u8, share: f64| {
        let norm = share * sum_of_rates(&trial.spec, late, 100) * (trial.spec.model.parameters() as f64).sqrt();
        let delta = Candidate {
            told: Some(late),
            measured: Measured { norm, largest: 0.0 },
            ..trial.delta(device, share, 100)
        };
        trial.screen.judge(&trial.spec, &delta)
    };
    late(&mut trial, 1, 0.75).unwrap();
    assert!(late(&mut trial, 4, 0.75).is_err());
}
