//! Which values of a chunk are sent: the largest magnitudes; of equal ones those that come first.

use super::wide::wide;

/// A chunk is looked at in so many rows: as many as leave enough columns, or else not at all.
const ROWS: [usize; 2] = [16, 4];

/// Room that is used again for every chunk.
#[derive(Default)]
pub(super) struct Selector {
    /// Magnitudes as integers, which order as the floats do; a NaN is larger than all.
    keys: Vec<u32>,
    maxima: Vec<u32>,
    candidates: Vec<u16>,
    sorted: Vec<u32>,
}

wide! {
    /// Fills `keys`, and `maxima` with the largest of each of so many columns; a last, incomplete row is left out.
    fn fill_keys(values: &[f32], columns: usize, keys: &mut Vec<u32>, maxima: &mut Vec<u32>) {
        keys.clear();
        keys.extend(values.iter().map(|v| v.to_bits() & 0x7fff_ffff));
        maxima.clear();
        maxima.resize(columns, 0);
        if columns > 0 {
            for row in keys.chunks_exact(columns) {
                for (most, key) in maxima.iter_mut().zip(row) {
                    // As signed numbers, which SSE2 can compare.
                    *most = (*most as i32).max(*key as i32) as u32;
                }
            }
        }
    }

    /// Places of keys of at least `least`, ascending. Most groups of 16 have none and are passed over as one.
    fn gather(keys: &[u32], least: u32, found: &mut Vec<u16>) {
        found.clear();
        let (groups, rest) = keys.as_chunks::<16>();
        for (group, base) in groups.iter().zip((0u16..).step_by(16)) {
            let most = group.iter().fold(0i32, |m, key| m.max(*key as i32));
            if most as u32 >= least {
                found.extend(group.iter().zip(base..).filter(|(key, _)| **key >= least).map(|(_, at)| at));
            }
        }
        let base = (groups.len() * 16) as u16;
        found.extend(rest.iter().zip(base..).filter(|(key, _)| **key >= least).map(|(_, at)| at));
    }
}

/// The `keep`-th largest.
fn kth_largest(keys: &mut [u32], keep: usize) -> u32 {
    *keys.select_nth_unstable_by(keep - 1, |a, b| b.cmp(a)).1
}

impl Selector {
    /// Appends the places of the `keep` largest magnitudes to `places`, ascending. 1 ≤ `keep` ≤ `values.len()` ≤ 4096.
    pub fn largest(&mut self, values: &[f32], keep: usize, places: &mut Vec<u16>) {
        let columns = ROWS.map(|rows| values.len() / rows).into_iter().find(|columns| 2 * keep <= *columns);
        fill_keys(values, columns.unwrap_or(0), &mut self.keys, &mut self.maxima);
        // Each of `keep` columns has a value as large as the keep-th largest column's maximum, so the keep-th largest
        // value is no smaller: few values are left to choose from.
        let least = if columns.is_some() { kth_largest(&mut self.maxima, keep) } else { 0 };
        self.sorted.clear();
        if least > 0 {
            gather(&self.keys, least, &mut self.candidates);
            self.sorted.extend(self.candidates.iter().map(|at| self.keys[usize::from(*at)]));
        } else {
            self.candidates.clear();
            self.candidates.extend(0..values.len() as u16);
            self.sorted.extend_from_slice(&self.keys);
        }
        let threshold = kth_largest(&mut self.sorted, keep);
        let mut ties = keep - self.sorted[..keep].iter().filter(|key| **key > threshold).count();
        for at in &self.candidates {
            let key = self.keys[usize::from(*at)];
            if key > threshold {
                places.push(*at);
            } else if key == threshold && ties > 0 {
                ties -= 1;
                places.push(*at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain way: sort everything.
    fn by_sorting(values: &[f32], keep: usize) -> Vec<u16> {
        let mut order: Vec<u16> = (0..values.len() as u16).collect();
        order.sort_by(|a, b| values[usize::from(*b)].abs().total_cmp(&values[usize::from(*a)].abs()).then(a.cmp(b)));
        order.truncate(keep);
        order.sort_unstable();
        order
    }

    proptest! {
        /// Also with many equal values, and with clusters that defeat the shortcut.
        #[test]
        fn the_shortcut_finds_what_sorting_finds(
            n in prop_oneof![Just(4096usize), 1usize..4096], share in 0.0f64..1.0, small in any::<bool>(), levels in 1i32..40, seed in any::<u64>(),
        ) {
            let keep = ((n as f64 * if small { share / 40.0 } else { share }) as usize).clamp(1, n);
            let values: Vec<f32> = (0..n as u64)
                .map(|i| {
                    let x = crate::rng::normal(seed, 0, i) as f32;
                    if levels > 30 { x } else { (x * levels as f32).round() * if i % 64 < 8 { 5.0 } else { 1.0 } }
                })
                .collect();
            let mut places = vec![];
            Selector::default().largest(&values, keep, &mut places);
            prop_assert_eq!(places, by_sorting(&values, keep));
        }
    }
}
