//! Curves as an SVG picture that stands for itself: no script, no font, nothing from elsewhere. The same points make the
//! same bytes.

use maud::{Markup, html};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// Room for numbers and names around the curves.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 44.0;
/// One a curve, told apart also by those who see few colours.
const COLOURS: [&str; 4] = ["#4453c4", "#c2571a", "#2f8f6b", "#8a4f9e"];
const GREY: &str = "#808080";
/// Marks on an axis, about.
const MARKS: f64 = 5.0;

/// A curve.
pub struct Curve<'a> {
    /// What it is of.
    pub name: &'a str,
    /// Its points, from left to right; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// An axis: from where to where, and what stands beside it.
struct Axis {
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
        let span = if most > least { most - least } else { most.abs().max(1.0) };
        // 1, 2 or 5 times a power of ten.
        let rough = span / MARKS;
        let ten = 10f64.powi(rough.log10().floor() as i32);
        let step = [1.0, 2.0, 5.0].into_iter().map(|by| by * ten).find(|step| *step >= rough).unwrap_or(10.0 * ten);
        let from = (least / step).floor() * step;
        let to = (most / step).ceil() * step;
        Axis { from, to: if to > from { to } else { from + step }, step }
    }

    /// How far along a value is.
    fn share(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from)
    }

    fn marks(&self) -> impl Iterator<Item = f64> + '_ {
        let count = ((self.to - self.from) / self.step).round() as u32;
        (0..=count).map(|mark| self.from + f64::from(mark) * self.step)
    }
}

/// A number as it stands beside an axis.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        1e9.. => (value / 1e9, " G"),
        1e6.. => (value / 1e6, " M"),
        1e4.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The picture; `across` and `up` say what the axes are.
pub fn draw(across: &str, up: &str, curves: &[Curve<'_>]) -> Markup {
    let is_point = |(x, y): &&(f64, f64)| x.is_finite() && y.is_finite();
    let all = || curves.iter().flat_map(|curve| curve.points.iter().filter(is_point));
    let (x_axis, y_axis) = (Axis::of(all().map(|p| p.0)), Axis::of(all().map(|p| p.1)));
    let x = |value: f64| LEFT + x_axis.share(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - y_axis.share(value) * (HEIGHT - TOP - BOTTOM);
    let place = |value: f64| format!("{value:.1}");
    let path = |curve: &Curve<'_>| {
        let points = curve.points.iter().filter(is_point).map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)));
        points.collect::<Vec<_>>().join(" ")
    };
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
            aria-label=(format!("{up} over {across}")) font-family="sans-serif" font-size="12" fill=(GREY) {
            @for mark in y_axis.marks() {
                line x1=(place(LEFT)) x2=(place(WIDTH - RIGHT)) y1=(place(y(mark))) y2=(place(y(mark))) stroke=(GREY)
                    stroke-opacity="0.25" {}
                text x=(place(LEFT - 6.0)) y=(place(y(mark) + 4.0)) style="text-anchor:end" { (short(mark)) }
            }
            @for mark in x_axis.marks() {
                text x=(place(x(mark))) y=(place(HEIGHT - BOTTOM + 16.0)) style="text-anchor:middle" { (short(mark)) }
            }
            text x=(place(WIDTH - RIGHT)) y=(place(HEIGHT - 8.0)) style="text-anchor:end" { (across) }
            text x=(place(8.0)) y=(place(14.0)) style="text-anchor:start" { (up) }
            @for (at, curve) in curves.iter().enumerate() {
                @let colour = COLOURS[at % COLOURS.len()];
                polyline points=(path(curve)) fill="none" stroke=(colour) stroke-width="2" stroke-linejoin="round" {}
                @if curves.len() > 1 {
                    text x=(place(WIDTH - RIGHT)) y=(place(14.0 + 14.0 * at as f64)) style=(format!("text-anchor:end;fill:{colour}")) { (curve.name) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_where_their_numbers_say_and_names_are_escaped() {
        let curves = [
            Curve { name: "a <b>", points: vec![(0.0, 5.0), (1e6, 1.0), (f64::NAN, 3.0)] },
            Curve { name: "c", points: vec![(5e5, 3.0)] },
        ];
        let svg = draw("tokens", "loss", &curves).into_string();
        assert!(svg.contains(r#"points="64.0,28.0 704.0,256.0""#) && svg.contains(r#"points="384.0,142.0""#), "{svg}");
        assert!(svg.contains("a &lt;b&gt;") && svg.contains(">1 M<") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg, draw("tokens", "loss", &curves).into_string());
    }

    #[test]
    fn axes_have_round_marks_also_where_there_is_little_to_show() {
        let marks = |values: &[f64]| Axis::of(values.iter().copied()).marks().map(short).collect::<Vec<_>>();
        assert_eq!(marks(&[1.3, 5.5]), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(marks(&[0.0, 2.4e6]), ["0", "500 k", "1 M", "1.5 M", "2 M", "2.5 M"]);
        assert!(!marks(&[]).is_empty() && marks(&[3.0]).len() > 1);
    }
}
