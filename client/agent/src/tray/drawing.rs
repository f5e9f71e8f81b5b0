//! The tray icon's pictures, drawn by arithmetic: a night disc with a moon. Lit while it runs, a pale sickle while it
//! holds, two bars while it is paused, and a red spot where something is wrong. Shapes differ as well as colours.

use super::State;

/// Sizes that panels ask for, in pixels.
pub const SIZES: [usize; 4] = [16, 22, 32, 48];

/// A colour: red, green, blue.
type Colour = [f64; 3];

const NIGHT: Colour = [0x2b as f64, 0x23 as f64, 0x47 as f64];
/// Around the disc, so that it stands out from dark panels too.
const RIM: Colour = [0x8f as f64, 0x83 as f64, 0xbd as f64];
const LIT: Colour = [0xf7 as f64, 0xb9 as f64, 0x57 as f64];
const PALE: Colour = [0xb4 as f64, 0xa9 as f64, 0xcc as f64];
const ALARM: Colour = [0xe5 as f64, 0x53 as f64, 0x3d as f64];

/// Each pixel is sampled this often in either direction.
const SAMPLES: usize = 4;

/// A square picture of `size` pixels a side: alpha, red, green, blue for each, row by row.
pub fn argb(state: State, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size * size * 4);
    for y in 0..size {
        for x in 0..size {
            let mut sum = [0.0; 3];
            let mut covered = 0.0;
            for i in 0..SAMPLES * SAMPLES {
                let place = |pixel: usize, i: usize| (pixel as f64 + (i as f64 + 0.5) / SAMPLES as f64) / size as f64;
                if let Some(colour) = colour_at(state, place(x, i % SAMPLES), place(y, i / SAMPLES)) {
                    covered += 1.0;
                    for (sum, part) in sum.iter_mut().zip(colour) {
                        *sum += part;
                    }
                }
            }
            let alpha = covered * 255.0 / (SAMPLES * SAMPLES) as f64;
            bytes.push(alpha.round() as u8);
            bytes.extend(sum.map(|part| if covered > 0.0 { (part / covered).round() as u8 } else { 0 }));
        }
    }
    bytes
}

/// The colour at a point of the unit square; `None` outside of the picture.
fn colour_at(state: State, x: f64, y: f64) -> Option<Colour> {
    let within = |cx: f64, cy: f64, r: f64| (x - cx).powi(2) + (y - cy).powi(2) <= r * r;
    if state == State::Trouble {
        if within(0.77, 0.77, 0.20) {
            return Some(ALARM);
        }
        // A gap, so that the spot reads where colours do not.
        if within(0.77, 0.77, 0.27) {
            return None;
        }
    }
    if !within(0.5, 0.5, 0.49) {
        return None;
    }
    if !within(0.5, 0.5, 0.44) {
        return Some(RIM);
    }
    let disc = within(0.47, 0.52, 0.31);
    let (moon, sickle) = (disc && !within(0.61, 0.39, 0.27), disc && !within(0.545, 0.45, 0.295));
    let bar = (0.27..0.73).contains(&y) && ((0.31..0.44).contains(&x) || (0.56..0.69).contains(&x));
    let drawn = match state {
        State::Running | State::Trouble if moon => LIT,
        State::Held if sickle => PALE,
        State::Paused if bar => PALE,
        _ => NIGHT,
    };
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who sees no colours, or has a panel without them, sees the shapes.
    #[test]
    fn the_states_are_told_apart_without_colour() {
        let states = [State::Running, State::Held, State::Paused, State::Trouble];
        for size in SIZES {
            // What is lighter than the night.
            let shape = |state| -> Vec<bool> {
                let picture = argb(state, size);
                assert_eq!(picture.len(), size * size * 4);
                picture.chunks_exact(4).map(|p| p[0] > 127 && p[1] > 110).collect()
            };
            for (i, one) in states.iter().enumerate() {
                for other in &states[..i] {
                    let differing = shape(*one).iter().zip(shape(*other)).filter(|(a, b)| **a != *b).count();
                    assert!(
                        differing * 20 > size * size,
                        "{one:?} and {other:?} at {size} pixels differ in {differing}"
                    );
                }
            }
        }
    }

    #[test]
    fn corners_are_clear_and_the_middle_is_not() {
        for state in [State::Running, State::Held, State::Paused, State::Trouble] {
            let picture = argb(state, 32);
            assert_eq!(picture[0], 0);
            assert_eq!(picture[(16 * 32 + 16) * 4], 255);
        }
    }
}
