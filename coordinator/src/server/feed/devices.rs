//! All devices, as pages show them: a table that the event loop changes record by record, so that a reader never asks
//! the loop. A reader holds it for a few thousand rows at a time, and its memory is bounded by the page that it wants,
//! so a million devices hold nobody up.

mod helpers;

use crate::engine::{
    record::{DeltaRecord, DeviceRecord, LeaseOutcome, LeaseRecord, Record},
    snapshot::Snapshot,
};
use nightjar_shared::{
    ids::{DeviceId, LeaseId},
    time::Wall,
    wire::Role,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Rows that a reader looks at before it lets the event loop have its turn.
const ROWS_AT_ONCE: usize = 4096;
/// How far into a sorted list a page may begin. Beyond it a filter finds more than turning pages does.
pub const OFFSET_MAX: usize = 100_000;
/// Most devices on a page.
pub const PAGE_MAX: usize = 200;

/// What a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds a lease to train.
    Training,
    /// It holds a lease to measure held-out loss.
    Evaluating,
    /// It is connected, and holds no lease.
    Waiting,
    /// It is not connected, and holds no lease.
    Away,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::Training, State::Evaluating, State::Waiting, State::Away];

    /// Its word on pages and in addresses.
    pub const fn name(self) -> &'static str {
        match self {
            State::Training => "training",
            State::Evaluating => "evaluating",
            State::Waiting => "waiting",
            State::Away => "away",
        }
    }
}

/// A device at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRow {
    /// As last written; with its name, its role and its speed.
    pub record: DeviceRecord,
    /// Whether it is connected.
    pub online: bool,
    /// Tokens merged.
    pub tokens: u64,
    /// Leases merged.
    pub merged: u64,
    /// Leases that ended otherwise since this process began: screened out, returned, expired.
    pub unmerged: [u64; 3],
    /// The lease that it holds.
    pub lease: Option<LeaseRecord>,
    /// The version that its newest lease starts from; `None` where that is not known.
    pub version: Option<u64>,
    /// Staleness of its last merged delta; `None` where that is not known.
    pub staleness: Option<u64>,
    /// When the ledger last had something of it, since this process began.
    pub heard: Option<Wall>,
}

impl DeviceRow {
    fn new(record: DeviceRecord) -> Self {
        DeviceRow {
            record,
            online: false,
            tokens: 0,
            merged: 0,
            unmerged: [0; 3],
            lease: None,
            version: None,
            staleness: None,
            heard: None,
        }
    }

    /// What it does; `None` where it has left.
    pub fn state(&self) -> Option<State> {
        match &self.lease {
            _ if self.record.left => None,
            Some(lease) if lease.kind.trains() => Some(State::Training),
            Some(_) => Some(State::Evaluating),
            None if self.online => Some(State::Waiting),
            None => Some(State::Away),
        }
    }
}

/// By what a list is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Tokens merged.
    #[default]
    Tokens,
    /// Its name, or its id where it has none.
    Name,
    /// What it does.
    State,
    /// Measured speed.
    Speed,
    /// Leases merged.
    Leases,
    /// Staleness of its last merged delta.
    Staleness,
    /// The version that it works on.
    Version,
}

impl Sort {
    /// Every order, with its word in addresses.
    pub const ALL: [(Sort, &str); 7] = [
        (Sort::Name, "name"),
        (Sort::State, "state"),
        (Sort::Speed, "speed"),
        (Sort::Version, "version"),
        (Sort::Staleness, "staleness"),
        (Sort::Leases, "leases"),
        (Sort::Tokens, "tokens"),
    ];

    fn key(self, row: &DeviceRow) -> u128 {
        let known = |value: Option<u64>| value.map_or(0, |value| u128::from(value) + 1);
        match self {
            Sort::Tokens => row.tokens.into(),
            Sort::Leases => row.merged.into(),
            // Positive numbers stand in the order of their bits.
            Sort::Speed => row.record.tokens_per_s.max(0.0).to_bits().into(),
            Sort::Staleness => known(row.staleness),
            Sort::Version => known(row.version),
            Sort::State => row.state().map_or(0, |state| 4 - state as u128),
            Sort::Name => {
                let mut start = [0; 16];
                let lower = row.record.name.to_lowercase();
                start.iter_mut().zip(lower.bytes()).for_each(|(to, byte)| *to = byte);
                u128::from_be_bytes(start)
            }
        }
    }
}

/// Which devices are wanted, and in which order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// In which order.
    pub sort: Sort,
    /// Whether the least comes first.
    pub ascending: bool,
    /// Only those that do this.
    pub state: Option<State>,
    /// Only those whose name or id has this in it; in lower case.
    pub search: String,
    /// How many come before the page, up to [`OFFSET_MAX`].
    pub offset: usize,
    /// How many are on it, up to [`PAGE_MAX`].
    pub limit: usize,
}

/// A page of devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DevicePage {
    /// In order.
    pub rows: Vec<DeviceRow>,
    /// How many devices are wanted in all.
    pub matching: usize,
}

#[derive(Default)]
struct Table {
    rows: Vec<DeviceRow>,
    places: HashMap<DeviceId, usize>,
    /// Who holds which lease.
    leases: HashMap<LeaseId, usize>,
    counts: [usize; State::ALL.len()],
}

impl Table {
    /// Changes a row, and what is counted of it.
    fn change(&mut self, place: usize, change: impl FnOnce(&mut DeviceRow)) {
        let Some(row) = self.rows.get_mut(place) else { return };
        let before = row.state();
        change(row);
        let after = row.state();
        if before != after {
            before.into_iter().for_each(|state| self.counts[state as usize] -= 1);
            after.into_iter().for_each(|state| self.counts[state as usize] += 1);
        }
    }

    fn note(&mut self, record: &DeviceRecord) -> usize {
        match self.places.get(&record.id) {
            Some(place) => {
                let place = *place;
                self.change(place, |row| row.record = record.clone());
                place
            }
            None => {
                let row = DeviceRow::new(record.clone());
                row.state().into_iter().for_each(|state| self.counts[state as usize] += 1);
                self.rows.push(row);
                self.places.insert(record.id, self.rows.len() - 1);
                self.rows.len() - 1
            }
        }
    }

    fn issued(&mut self, lease: &LeaseRecord) {
        let Some(place) = self.places.get(&lease.device).copied() else { return };
        self.leases.insert(lease.id, place);
        self.change(place, |row| {
            row.version = Some(lease.base_version.0);
            row.heard = row.heard.max(Some(lease.issued_at));
            row.lease = Some(lease.clone());
        });
    }

    fn closed(&mut self, lease: LeaseId, outcome: LeaseOutcome, at: Wall) {
        let Some(place) = self.leases.remove(&lease) else { return };
        self.change(place, |row| {
            row.lease = None;
            row.heard = row.heard.max(Some(at));
            match outcome {
                LeaseOutcome::ScreenedOut => row.unmerged[0] += 1,
                LeaseOutcome::Returned => row.unmerged[1] += 1,
                LeaseOutcome::Expired => row.unmerged[2] += 1,
                LeaseOutcome::Merged | LeaseOutcome::Evaluated => {}
            }
        });
    }

    fn merged(&mut self, delta: &DeltaRecord) {
        let Some(place) = self.places.get(&delta.device).copied() else { return };
        self.change(place, |row| {
            row.tokens += delta.tokens;
            row.merged += 1;
            row.staleness = Some(delta.staleness);
        });
    }
}

/// See the module.
#[derive(Default)]
pub struct Devices {
    table: RwLock<Table>,
}

impl Devices {
    /// As they were when this process began.
    pub fn restored(snapshot: &Snapshot) -> Self {
        let mut table = Table::default();
        for device in &snapshot.devices {
            let place = table.note(&device.record);
            table.change(place, |row| (row.tokens, row.merged) = (device.tokens, device.merged));
        }
        snapshot.open_leases.iter().for_each(|lease| table.issued(lease));
        table.rows.iter_mut().for_each(|row| row.heard = None);
        Devices { table: RwLock::new(table) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        // Every change leaves a whole table behind, whatever panics after it.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what was written to the ledger.
    pub fn add(&self, records: &[Record]) {
        let mut table = self.write();
        for record in records {
            match record {
                Record::Device(device) => drop(table.note(device)),
                Record::LeaseIssued(lease) => table.issued(lease),
                Record::LeaseClosed { id, outcome, at, .. } => table.closed(*id, *outcome, *at),
                Record::Delta(delta) => table.merged(delta),
                Record::DeviceRevoked { id, .. } => {
                    if let Some(place) = table.places.get(id).copied() {
                        table.change(place, |row| row.record.left = true);
                    }
                }
                Record::Version(_)
                | Record::Evaluation(_)
                | Record::InviteRevoked { .. }
                | Record::Paused(_)
                | Record::Extended { .. }
                | Record::Series(_)
                | Record::Audit(_) => {}
            }
        }
    }

    /// A device has connected, or is gone.
    pub fn connected(&self, device: DeviceId, online: bool) {
        let mut table = self.write();
        if let Some(place) = table.places.get(&device).copied() {
            table.change(place, |row| row.online = online);
        }
    }

    /// How many do what, in the order of [`State::ALL`].
    pub fn counts(&self) -> [usize; State::ALL.len()] {
        self.read().counts
    }

    /// A device.
    pub fn get(&self, device: DeviceId) -> Option<DeviceRow> {
        let table = self.read();
        table.places.get(&device).and_then(|place| table.rows.get(*place)).cloned()
    }

    /// A page of them. It looks at every row, a few thousand at a time: whoever asks often does so beside the runtime.
    pub fn page(&self, wanted: &Wanted) -> DevicePage {
        let (offset, limit) = (wanted.offset.min(OFFSET_MAX), wanted.limit.min(PAGE_MAX));
        // The least of the best is on top, and makes room.
        let mut best: BinaryHeap<Reverse<(u128, Reverse<usize>)>> = BinaryHeap::new();
        let (mut matching, mut place) = (0, 0);
        loop {
            let table = self.read();
            let Some(rows) = table.rows.get(place..).filter(|rows| !rows.is_empty()) else { break };
            for row in rows.iter().take(ROWS_AT_ONCE) {
                let at = place;
                place += 1;
                if !is_wanted(row, wanted) {
                    continue;
                }
                matching += 1;
                let key = wanted.sort.key(row);
                best.push(Reverse((if wanted.ascending { !key } else { key }, Reverse(at))));
                if best.len() > offset + limit {
                    best.pop();
                }
            }
        }
        let places = best.into_sorted_vec();
        let table = self.read();
        let rows = places.iter().skip(offset).filter_map(|Reverse((_, Reverse(place)))| table.rows.get(*place));
        DevicePage { rows: rows.cloned().collect(), matching }
    }
}

fn is_wanted(row: &DeviceRow, wanted: &Wanted) -> bool {
    let Some(state) = row.state() else { return false };
    let is_found = || {
        let search = &*wanted.search;
        row.record.name.to_lowercase().contains(search) || row.record.id.to_string().starts_with(search)
    };
    wanted.state.is_none_or(|only| only == state) && (wanted.search.is_empty() || is_found())
}

/// A role's word.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Anchor => "anchor",
        Role::Volunteer | Role::Unspecified => "volunteer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::{
        blob::BlobRef,
        ids::{Generation, Version},
        lease::LeaseKind,
    };

    fn id(n: u32) -> DeviceId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        DeviceId(id)
    }

    pub(super) fn device(n: u32, name: &str, tokens_per_s: f64) -> Record {
        Record::Device(DeviceRecord {
            id: id(n),
            name: name.into(),
            device: String::new(),
            role: Role::Volunteer,
            invite_nonce: vec![],
            enrolled_at: Wall::default(),
            tokens_per_s,
            left: false,
            public_name: None,
            name_hidden: false,
        })
    }

    pub(super) fn lease(n: u32) -> Record {
        Record::LeaseIssued(LeaseRecord {
            id: LeaseId(n.into()),
            generation: Generation(1),
            device: id(n),
            kind: LeaseKind::Train,
            base_version: Version(7),
            epoch: 0,
            shard: 0,
            first_sample: 0,
            samples: 4,
            steps: 1,
            issued_at: Wall { unix_ms: 5 },
        })
    }

    pub(super) fn delta(n: u32, tokens: u64) -> Record {
        Record::Delta(DeltaRecord {
            seq: n.into(),
            lease: LeaseId(n.into()),
            device: id(n),
            blob: BlobRef::of(b"delta"),
            steps: 1,
            tokens,
            staleness: 2,
            weight: 1.0,
            norm: 1.0,
            train_ms: 1,
            wall_ms: 1,
            loss_first: 1.0,
            loss_last: 1.0,
            merged_at: Wall::default(),
        })
    }

    fn closed(n: u32, outcome: LeaseOutcome) -> Record {
        Record::LeaseClosed { id: LeaseId(n.into()), outcome, samples_used: 0, at: Wall { unix_ms: 9 } }
    }

    fn names(page: &DevicePage) -> Vec<&str> {
        page.rows.iter().map(|row| &*row.record.name).collect()
    }

    #[test]
    fn a_device_is_counted_by_what_it_does() {
        let devices = Devices::default();
        devices.add(&[device(1, "a", 0.0), device(2, "b", 0.0)]);
        assert_eq!(devices.counts(), [0, 0, 0, 2]);
        devices.connected(id(1), true);
        assert_eq!(devices.counts(), [0, 0, 1, 1]);
        devices.add(&[lease(1), lease(2)]);
        assert_eq!(devices.counts(), [2, 0, 0, 0]);
        devices.add(&[delta(1, 30), closed(1, LeaseOutcome::Merged), closed(2, LeaseOutcome::Expired)]);
        assert_eq!(devices.counts(), [0, 0, 1, 1]);
        let (first, second) = (devices.get(id(1)).unwrap(), devices.get(id(2)).unwrap());
        assert_eq!((first.tokens, first.merged, first.staleness, first.version), (30, 1, Some(2), Some(7)));
        assert_eq!((second.tokens, second.unmerged, second.heard), (0, [0, 0, 1], Some(Wall { unix_ms: 9 })));
        let Record::Device(mut left) = device(2, "b", 0.0) else { unreachable!() };
        left.left = true;
        devices.add(&[Record::Device(left)]);
        assert_eq!(
            (devices.counts(), devices.page(&Wanted { limit: 9, ..Wanted::default() }).matching),
            ([0, 0, 1, 0], 1)
        );
    }

    #[test]
    fn pages_are_sorted_filtered_and_bounded() {
        let devices = Devices::default();
        for (n, name, speed) in [(1, "Wren", 2.5), (2, "owl", 10.0), (3, "Nightjar", 0.5), (4, "", 4.0)] {
            devices.add(&[device(n, name, speed)]);
        }
        devices.connected(id(3), true);
        let wanted = Wanted { limit: 10, ..Wanted::default() };
        let sorted = |sort, ascending| devices.page(&Wanted { sort, ascending, ..wanted.clone() });
        assert_eq!(names(&sorted(Sort::Speed, false)), ["owl", "", "Wren", "Nightjar"]);
        assert_eq!(names(&sorted(Sort::Speed, true)), ["Nightjar", "Wren", "", "owl"]);
        assert_eq!(names(&sorted(Sort::Name, true)), ["", "Nightjar", "owl", "Wren"]);
        assert_eq!(names(&sorted(Sort::State, false))[0], "Nightjar");
        let page = devices.page(&Wanted { sort: Sort::Speed, offset: 1, limit: 2, ..wanted.clone() });
        assert_eq!((names(&page), page.matching), (vec!["", "Wren"], 4));
        let found = devices.page(&Wanted { search: "wr".into(), ..wanted.clone() });
        assert_eq!((names(&found), found.matching), (vec!["Wren"], 1));
        assert_eq!(
            devices.page(&Wanted { search: id(2).to_string()[..8].into(), ..wanted.clone() }).rows[0].record.id,
            id(2)
        );
        assert_eq!(names(&devices.page(&Wanted { state: Some(State::Waiting), ..wanted })), ["Nightjar"]);
    }

    #[test]
    fn a_page_of_many_devices_is_that_of_sorting_them_all() {
        let devices = Devices::default();
        let count = 3 * ROWS_AT_ONCE as u32 + 17;
        let speed = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) % 1_000_003);
        let records: Vec<_> = (0..count).map(|n| device(n, &format!("d{n}"), speed(n))).collect();
        devices.add(&records);
        let mut all: Vec<u32> = (0..count).collect();
        all.sort_by(|a, b| speed(*b).total_cmp(&speed(*a)).then(a.cmp(b)));
        let wanted = Wanted { sort: Sort::Speed, offset: 5000, limit: 50, ..Wanted::default() };
        let page = devices.page(&wanted);
        let want: Vec<String> = all[5000..5050].iter().map(|n| format!("d{n}")).collect();
        assert_eq!((names(&page), page.matching), (want.iter().map(|n| &**n).collect(), count as usize));
        assert_eq!(devices.page(&Wanted { limit: usize::MAX, ..wanted }).rows.len(), PAGE_MAX);
    }
}
