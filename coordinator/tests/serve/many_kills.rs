//! Kill after kill at a seed: whoever serves a run, whoever trains for it, and its database. All of them are processes,
//! and devices deliver all the while. In the end the ledger holds what devices were told, each delta once.

use crate::{
    bed::Bed,
    command_line::program,
    database::Database,
    device_process::{DeviceProcess, Merged},
    object_store::{KEYS, ObjectStore},
    processes::Processes,
    until,
};
use nightjar_shared::rng;
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    env, fs,
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// SIGKILLs in every test run. `NIGHTJAR_KILLS` asks for more.
const KILLS: u64 = 8;
const PROCESSES: usize = 3;
const DEVICES: u64 = 6;
/// Merged deltas that are waited for before the next blow, at most.
const MERGED_BETWEEN_MAX: u64 = 12;
/// How long whoever was killed is gone, at most.
const GONE_MS_MAX: u64 = 1500;
/// How long a leader hangs that nobody need follow, at most.
const HANGS_MS_MAX: u64 = 4000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Leader,
    Door,
    Device,
    Database,
}

const VICTIMS: [Victim; 4] = [Victim::Leader, Victim::Door, Victim::Device, Victim::Database];

/// What happens to them.
#[derive(Debug)]
enum Blow {
    /// SIGKILL, at the same moment.
    Kill(Vec<Victim>),
    /// The leader is stopped and woken: before anybody notices, or once another one leads.
    Hang { until_followed: bool },
}

struct Draws {
    seed: u64,
    drawn: u64,
}

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.drawn += 1;
        rng::below(self.seed, rng::stream::SIM, self.drawn, n)
    }

    fn ms(&mut self, max: u64) -> Duration {
        Duration::from_millis(self.below(max))
    }

    /// Each kind comes once before any comes again.
    fn blow(&mut self, number: u64) -> Blow {
        match if number < 6 { number } else { self.below(8) } {
            kind @ 0..4 => Blow::Kill(vec![VICTIMS[kind as usize]]),
            4 => Blow::Hang { until_followed: number < 6 || self.below(2) == 0 },
            5 => {
                let first = self.below(4);
                let second = (first + 1 + self.below(3)) % 4;
                Blow::Kill(vec![VICTIMS[first as usize], VICTIMS[second as usize]])
            }
            _ => Blow::Kill(vec![[Victim::Leader, Victim::Device][self.below(2) as usize]]),
        }
    }
}

/// What is served, and who serves it.
struct Scene<'a> {
    database: Database,
    processes: Processes<'a>,
    devices: Vec<DeviceProcess>,
    draws: Draws,
    /// At which step of their work devices were killed, and how often.
    steps: BTreeMap<String, u64>,
}

impl Scene<'_> {
    fn merged(&self) -> u64 {
        self.number("SELECT count(*) FROM deltas")
    }

    fn version(&self) -> u64 {
        self.number("SELECT coalesce(max(version), 0) FROM versions")
    }

    fn number(&self, sql: &str) -> u64 {
        self.database.psql(sql).parse().unwrap()
    }

    fn leader(&self) -> usize {
        until("a leader", || self.processes.leader(&self.database))
    }

    /// Says what it did.
    fn strike(&mut self, blow: &Blow) -> String {
        match blow {
            Blow::Kill(victims) => self.kill(victims),
            Blow::Hang { until_followed } => {
                let leader = self.leader();
                self.processes.signal(leader, Signal::STOP);
                if *until_followed {
                    until("another leader", || self.processes.leader(&self.database).filter(|other| *other != leader));
                } else {
                    sleep(self.draws.ms(HANGS_MS_MAX));
                }
                self.processes.signal(leader, Signal::CONT);
                format!("leader {leader} hung{}", if *until_followed { " and was followed" } else { "" })
            }
        }
    }

    fn kill(&mut self, victims: &[Victim]) -> String {
        let (mut processes, mut devices, mut is_database, mut said) = (vec![], vec![], false, vec![]);
        for victim in victims {
            match victim {
                Victim::Leader => {
                    let leader = self.leader();
                    said.push(format!("leader {leader}"));
                    processes.push(leader);
                }
                Victim::Door => {
                    let leader = self.processes.leader(&self.database).unwrap_or(0);
                    let door = (leader + 1 + self.draws.below(PROCESSES as u64 - 1) as usize) % PROCESSES;
                    said.push(format!("door {door}"));
                    processes.push(door);
                }
                Victim::Device => devices.push(self.draws.below(DEVICES) as usize),
                Victim::Database => is_database = true,
            }
        }
        processes.iter().for_each(|n| self.processes.kill(*n));
        if is_database {
            said.push("database".into());
            self.database.kill();
        }
        for n in &devices {
            let step = self.devices[*n].kill();
            said.push(format!("device {n} ({step})"));
            *self.steps.entry(step).or_default() += 1;
        }
        sleep(self.draws.ms(GONE_MS_MAX));
        if is_database {
            self.database.go_on();
        }
        processes.iter().for_each(|n| self.processes.start_again(*n));
        devices.iter().for_each(|n| self.devices[*n].start_again());
        said.join(" and ")
    }

    /// What devices were told counts.
    fn acknowledged(&self) -> BTreeMap<u64, Merged> {
        self.devices.iter().flat_map(DeviceProcess::acknowledged).collect()
    }

    /// What counts by the ledger.
    fn ledger(&self) -> BTreeMap<u64, Merged> {
        let rows = self.database.psql("SELECT lease, encode(blob, 'hex'), tokens FROM deltas");
        let of_row = |row: &str| {
            let mut cells = row.split('|');
            let mut cell = || cells.next().unwrap().to_owned();
            (cell().parse().unwrap(), (cell(), cell().parse().unwrap()))
        };
        rows.lines().map(of_row).collect()
    }

    /// Nobody ends who was not killed, and what was acknowledged is there.
    fn hold(&mut self) {
        let mut ended = self.processes.ended();
        ended.extend(self.devices.iter_mut().filter_map(DeviceProcess::ended));
        assert!(ended.is_empty(), "{}", ended.join("\n"));
        let told = self.acknowledged();
        let ledger = self.ledger();
        let lost: Vec<_> = told.iter().filter(|(lease, merged)| ledger.get(lease) != Some(merged)).collect();
        assert!(lost.is_empty(), "acknowledged, and not in the ledger: {lost:?}");
    }
}

fn given(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn whoever_is_killed_each_acknowledged_delta_counts_once() {
    let (Some(database), Some(store)) = (Database::start(), ObjectStore::start()) else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (kills, seed) = (given("NIGHTJAR_KILLS", KILLS), given("NIGHTJAR_SEED", now));
    println!("{kills} kills at seed {seed}; repeat them with: cargo xtask kills --kills {kills} --seed {seed}");
    let mut bed = Bed::new();
    // So that a delta waits for another one while somebody dies.
    bed.spec.merge.quorum = Some(2);
    fs::write(bed.run_file(), bed.run_toml()).unwrap();
    let processes = Processes::start(&bed, PROCESSES, &database.url(), &store.url("runs/kills"));
    let devices = (1..=DEVICES).map(|n| DeviceProcess::start(&bed, &processes.addresses, n)).collect();
    let draws = Draws { seed, drawn: 0 };
    let mut scene = Scene { database, processes, devices, draws, steps: BTreeMap::new() };
    let (begun, mut done) = (Instant::now(), 0);
    for number in 0.. {
        let (before, more) = (scene.merged(), scene.draws.below(MERGED_BETWEEN_MAX));
        until("merged deltas", || (scene.merged() >= before + more).then_some(()));
        sleep(scene.draws.ms(100));
        let blow = scene.draws.blow(number);
        let said = scene.strike(&blow);
        scene.hold();
        done += if let Blow::Kill(victims) = blow { victims.len() as u64 } else { 0 };
        let left = begun.elapsed().as_secs() * kills.saturating_sub(done) / done.max(1);
        let (merged, version) = (scene.merged(), scene.version());
        println!("{done:4} of {kills}, about {left} s left: {said}; {merged} merged, version {version}");
        if done >= kills {
            break;
        }
    }
    let version = scene.version();
    until("new versions", || (scene.version() >= version + 3).then_some(()));
    scene.devices.iter().for_each(DeviceProcess::ask_to_stop);
    until("the devices' end", || scene.devices.iter_mut().all(DeviceProcess::has_stopped).then_some(()));
    let (told, ledger) = (scene.acknowledged(), scene.ledger());
    let tokens = |merged: &BTreeMap<u64, Merged>| merged.values().map(|(_, tokens)| tokens).sum::<u64>();
    println!("told of {} deltas with {} tokens; devices were killed at {:?}", told.len(), tokens(&told), scene.steps);
    let unheard: Vec<_> = ledger.iter().filter(|(lease, _)| !told.contains_key(lease)).collect();
    assert!(unheard.is_empty(), "in the ledger, and acknowledged to nobody: {unheard:?}");
    assert_eq!((told.len(), tokens(&told)), (ledger.len(), tokens(&ledger)));
    assert_eq!(scene.number("SELECT count(DISTINCT blob) FROM deltas"), ledger.len() as u64, "each once");
    let dropped: Vec<String> = scene.devices.iter().flat_map(DeviceProcess::dropped).collect();
    assert!(dropped.is_empty(), "nobody was gone for long, and yet leases were dropped: {dropped:?}");

    scene.processes.end();
    let of_run = |command: &[&str]| {
        let mut program = program();
        program.args(command).arg("--state").arg(bed.state()).arg("--data").arg(bed.data()).envs(KEYS);
        let output = program.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    println!("{}", of_run(&["verify"]));
    let stats: serde_json::Value = serde_json::from_str(&of_run(&["stats", "--json"])).unwrap();
    let merged = serde_json::Value::from(ledger.len());
    assert_eq!((&stats["merged"], &stats["acknowledged"]), (&merged, &merged), "{stats}");
    assert_eq!((&stats["duplicates"], &stats["lost_samples"]), (&0.into(), &0.into()), "{stats}");
}
