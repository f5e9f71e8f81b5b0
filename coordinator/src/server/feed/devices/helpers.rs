//! Who helps, for everybody to read: by the names that owners have chosen for it.

use super::{Devices, ROWS_AT_ONCE};
use nightjar_shared::public_name::PublicName;
use std::collections::HashMap;

impl Devices {
    /// The names that owners have chosen for everybody to read, those with the most merged tokens first, each once: so
    /// many at most, and how many more there are.
    pub fn helpers(&self, most: usize) -> (Vec<PublicName>, usize) {
        let mut tokens: HashMap<PublicName, u64> = HashMap::new();
        let mut place = 0;
        loop {
            let table = self.read();
            let Some(rows) = table.rows.get(place..).filter(|rows| !rows.is_empty()) else { break };
            place += rows.len().min(ROWS_AT_ONCE);
            for row in rows.iter().take(ROWS_AT_ONCE) {
                let Some(name) = row.record.shown_name() else { continue };
                match tokens.get_mut(name) {
                    Some(sum) => *sum = sum.saturating_add(row.tokens),
                    None => drop(tokens.insert(name.clone(), row.tokens)),
                }
            }
        }
        let mut names: Vec<(PublicName, u64)> = tokens.into_iter().collect();
        names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let more = names.len().saturating_sub(most);
        (names.into_iter().take(most).map(|(name, _)| name).collect(), more)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{delta, device, lease},
        *,
    };
    use crate::engine::record::{DeviceRecord, Record};

    #[test]
    fn who_helps_is_told_by_the_names_that_were_chosen_and_no_others() {
        let devices = Devices::default();
        assert_eq!(devices.helpers(9), (vec![], 0));
        let shown = |n: u32, name: &str, change: fn(&mut DeviceRecord)| {
            let Record::Device(mut record) = device(n, "den", 0.0) else { unreachable!() };
            record.public_name = PublicName::parse(name).ok();
            change(&mut record);
            devices.add(&[Record::Device(record)]);
        };
        let as_it_is = |_: &mut DeviceRecord| {};
        shown(1, "Zoë", as_it_is);
        shown(2, "Ada", as_it_is);
        shown(3, "Ada", as_it_is);
        shown(4, "", as_it_is);
        shown(5, "gone", |record| record.left = true);
        shown(6, "rude", |record| record.name_hidden = true);
        shown(7, "Bob", as_it_is);
        (1..8).for_each(|n| devices.add(&[lease(n), delta(n, if n == 1 { 30 } else { 20 })]));
        let told = |most| {
            let (names, more) = devices.helpers(most);
            (names.iter().map(ToString::to_string).collect::<Vec<_>>(), more)
        };
        let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        // Two devices of one name count together, and among equals the alphabet decides.
        assert_eq!(told(9), (names(&["Ada", "Zoë", "Bob"]), 0));
        assert_eq!(told(1), (names(&["Ada"]), 2));
        // Whoever does not want to be named any more is not.
        shown(2, "", as_it_is);
        shown(3, "", as_it_is);
        assert_eq!(told(9), (names(&["Zoë", "Bob"]), 0));
    }
}
