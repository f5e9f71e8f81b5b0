//! The icon as pictures, for desktops that take no drawing: the page's own SVG, painted. Only what that file uses is
//! understood: circles, and paths of lines and circular arcs.

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, Crc, write::ZlibEncoder};
use std::io::Write;

/// Each pixel is sampled this often in either direction.
const SAMPLES: u32 = 4;
/// Steps that stand for an arc or a circle.
const STEPS: usize = 256;

type Point = [f64; 2];

/// Outlines, each with a colour; later ones lie on earlier ones.
pub struct Drawing {
    size: f64,
    shapes: Vec<(Vec<Point>, [u8; 3])>,
}

impl Drawing {
    pub fn read(svg: &str) -> Result<Drawing> {
        let mut drawing = Drawing { size: 0.0, shapes: vec![] };
        for tag in svg.split('<').map(str::trim).filter(|tag| !tag.is_empty()) {
            let (name, rest) = tag.split_once([' ', '>']).unwrap_or((tag, ""));
            let number = |key: &str| -> Result<f64> { Ok(attribute(rest, key)?.parse()?) };
            match name {
                "svg" => {
                    let sides = numbers(attribute(rest, "viewBox")?)?;
                    ensure!(sides.len() == 4 && sides[..2] == [0.0, 0.0] && sides[2] == sides[3], "no square picture");
                    drawing.size = sides[2];
                }
                "circle" => {
                    let (centre, r) = ([number("cx")?, number("cy")?], number("r")?);
                    let turn = |step: usize| std::f64::consts::TAU * step as f64 / STEPS as f64;
                    let outline = (0..STEPS).map(|step| on_circle(centre, r, turn(step))).collect();
                    drawing.shapes.push((outline, colour(rest)?));
                }
                "path" => drawing.shapes.push((outline(attribute(rest, "d")?)?, colour(rest)?)),
                "/svg" => {}
                other => bail!("the icon has an element that is not understood: {other}"),
            }
        }
        Ok(drawing)
    }

    /// A PNG of so many pixels a side.
    pub fn png(&self, pixels: u32) -> Result<Vec<u8>> {
        let place = |sample: u32| (f64::from(sample) + 0.5) * self.size / f64::from(SAMPLES * pixels);
        let mut rows = Vec::new();
        for y in 0..pixels {
            // Sums of the colours, and how many samples of a pixel are covered at all.
            let mut sums = vec![[0_u32; 4]; pixels as usize];
            for line in 0..SAMPLES {
                let at = place(y * SAMPLES + line);
                let shapes: Vec<_> =
                    self.shapes.iter().rev().map(|(shape, colour)| (crossings(shape, at), colour)).collect();
                for sample in 0..SAMPLES * pixels {
                    let x = place(sample);
                    if let Some((_, [red, green, blue])) = shapes.iter().find(|(crossings, _)| is_inside(crossings, x))
                    {
                        let sum = &mut sums[(sample / SAMPLES) as usize];
                        let parts = [*red, *green, *blue, 1].map(u32::from);
                        sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
                    }
                }
            }
            // No filter.
            rows.push(0);
            for [red, green, blue, covered] in sums {
                rows.extend([red, green, blue].map(|sum| (sum / covered.max(1)) as u8));
                rows.push((covered * 255 / (SAMPLES * SAMPLES)) as u8);
            }
        }
        let mut packed = ZlibEncoder::new(vec![], Compression::best());
        packed.write_all(&rows)?;
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        let side = pixels.to_be_bytes();
        // Eight bits a channel, of four channels.
        chunk(&mut png, b"IHDR", &[&side[..], &side, &[8, 6, 0, 0, 0]].concat());
        chunk(&mut png, b"IDAT", &packed.finish()?);
        chunk(&mut png, b"IEND", &[]);
        Ok(png)
    }

    /// An icon of Windows: PNGs of several sizes in one file.
    pub fn ico(&self) -> Result<Vec<u8>> {
        let pictures = [16, 32, 48, 256].map(|pixels| self.png(pixels).map(|png| (pixels, png)));
        let mut at = 6 + 16 * pictures.len() as u32;
        let mut head = [0_u16, 1, pictures.len() as u16].map(u16::to_le_bytes).concat();
        let mut bodies = vec![];
        for picture in pictures {
            let (pixels, png) = picture?;
            // 256 is written as 0.
            head.extend([pixels as u8, pixels as u8, 0, 0, 1, 0, 32, 0]);
            head.extend([png.len() as u32, at].map(u32::to_le_bytes).concat());
            at += png.len() as u32;
            bodies.extend(png);
        }
        head.extend(bodies);
        Ok(head)
    }
}

fn chunk(png: &mut Vec<u8>, name: &[u8; 4], body: &[u8]) {
    let named = [&name[..], body].concat();
    let mut sum = Crc::new();
    sum.update(&named);
    png.extend((body.len() as u32).to_be_bytes());
    png.extend(named);
    png.extend(sum.sum().to_be_bytes());
}

fn attribute<'a>(tag: &'a str, key: &str) -> Result<&'a str> {
    let after = tag.split_once(&format!("{key}=\"")).map(|(_, after)| after);
    Ok(after.and_then(|after| after.split_once('"')).with_context(|| format!("the icon lacks {key}"))?.0)
}

fn colour(tag: &str) -> Result<[u8; 3]> {
    let digits = attribute(tag, "fill")?.strip_prefix('#').context("a colour is #rrggbb")?;
    let [_, red, green, blue] = u32::from_str_radix(digits, 16)?.to_be_bytes();
    Ok([red, green, blue])
}

fn numbers(text: &str) -> Result<Vec<f64>> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words.map(|word| word.parse().with_context(|| format!("{word} is no number"))).collect()
}

/// The outline of a path.
fn outline(path: &str) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = vec![];
    let commands = path.char_indices().filter(|(_, c)| c.is_ascii_alphabetic()).map(|(at, _)| at);
    let ends: Vec<usize> = commands.chain([path.len()]).collect();
    for pair in ends.windows(2) {
        let (command, n) = (&path[pair[0]..=pair[0]], numbers(&path[pair[0] + 1..pair[1]])?);
        match (command, n.as_slice(), points.last().copied()) {
            ("M" | "L", &[x, y], _) => points.push([x, y]),
            ("A", &[r, s, _, long, sweep, x, y], Some(from)) if r == s => {
                arc(&mut points, from, [x, y], r, [long, sweep])
            }
            ("a", &[r, s, _, long, sweep, x, y], Some(from)) if r == s => {
                arc(&mut points, from, [from[0] + x, from[1] + y], r, [long, sweep]);
            }
            ("Z" | "z", &[], _) => {}
            _ => bail!("the icon's path has a part that is not understood: {}", &path[pair[0]..pair[1]]),
        }
    }
    Ok(points)
}

/// Adds an arc of a circle (SVG 1.1, F.6.5).
fn arc(points: &mut Vec<Point>, from: Point, to: Point, r: f64, [long, sweep]: [f64; 2]) {
    let half = [(from[0] - to[0]) / 2.0, (from[1] - to[1]) / 2.0];
    let away_squared = half[0] * half[0] + half[1] * half[1];
    let r = r.max(away_squared.sqrt());
    let sign = if long == sweep { -1.0 } else { 1.0 };
    let k = sign * ((r * r - away_squared) / away_squared).max(0.0).sqrt();
    let centre = [(from[0] + to[0]) / 2.0 + k * half[1], (from[1] + to[1]) / 2.0 - k * half[0]];
    let angle = |p: Point| (p[1] - centre[1]).atan2(p[0] - centre[0]);
    let (begin, mut turn) = (angle(from), angle(to) - angle(from));
    if sweep == 1.0 && turn < 0.0 {
        turn += std::f64::consts::TAU;
    } else if sweep == 0.0 && turn > 0.0 {
        turn -= std::f64::consts::TAU;
    }
    points.extend((1..=STEPS).map(|step| on_circle(centre, r, begin + turn * step as f64 / STEPS as f64)));
}

fn on_circle(centre: Point, r: f64, angle: f64) -> Point {
    [centre[0] + r * angle.cos(), centre[1] + r * angle.sin()]
}

/// Where a horizontal line crosses an outline.
fn crossings(outline: &[Point], y: f64) -> Vec<f64> {
    let edges = outline.iter().zip(outline.iter().cycle().skip(1));
    let crosses = edges.filter(|(a, b)| (a[1] > y) != (b[1] > y));
    crosses.map(|(a, b)| a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])).collect()
}

/// Whether a ray to the right from there crosses the outline an odd number of times.
fn is_inside(crossings: &[f64], x: f64) -> bool {
    crossings.iter().filter(|crossing| x < **crossing).count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moon_lies_on_the_disc_and_nothing_around_it() {
        let drawing = Drawing::read(include_str!("../../../client/agent/src/page/icon.svg")).unwrap();
        let (disc, moon) = (&drawing.shapes[0].0, &drawing.shapes[1].0);
        let covers = |shape: &[Point], x: f64, y: f64| is_inside(&crossings(shape, y), x);
        // The middle of the sickle's back, its hollow, and a corner of the picture.
        assert!(covers(disc, 9.0, 17.0) && covers(moon, 9.0, 17.0));
        assert!(covers(disc, 25.0, 13.0) && !covers(moon, 25.0, 13.0));
        assert!(!covers(disc, 0.5, 0.5));
        assert!(Drawing::read("<svg viewBox=\"0 0 8 8\"><rect/></svg>").is_err());
    }

    #[test]
    fn a_picture_has_the_size_and_the_colours_that_were_asked_for() {
        let svg = "<svg viewBox=\"0 0 2 2\"><path d=\"M0 0L2 0L2 2L0 2Z\" fill=\"#102030\"/></svg>";
        let png = Drawing::read(svg).unwrap().png(4).unwrap();
        assert_eq!((&png[..8], &png[16..24]), (&b"\x89PNG\r\n\x1a\n"[..], &[0, 0, 0, 4, 0, 0, 0, 4][..]));
        let body = u32::from_be_bytes(png[33..37].try_into().unwrap()) as usize;
        let mut rows = vec![];
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&png[41..41 + body]), &mut rows).unwrap();
        assert_eq!(rows.len(), 4 * (1 + 4 * 4));
        assert!(rows.chunks(17).all(|row| row[0] == 0 && row[1..].chunks(4).all(|p| p == [0x10, 0x20, 0x30, 255])));
    }
}
