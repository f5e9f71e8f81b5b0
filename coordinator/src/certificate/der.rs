//! The few kinds of values that a certificate is made of, in the encoding that certificates have (DER, X.690).

use nightjar_shared::time::Wall;

/// A value: what kind it is, how long, and what it holds.
fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(byte) => out.extend([0x81, byte]),
        Err(_) => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    parts.iter().for_each(|part| out.extend(*part));
    out
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    value(0x30, parts)
}

pub fn set(parts: &[&[u8]]) -> Vec<u8> {
    value(0x31, parts)
}

/// A number that is not negative, most significant byte first.
pub fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros.min(bytes.len().saturating_sub(1))..];
    // Its first bit would be its sign.
    let sign: &[u8] = if bytes.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    value(0x02, &[sign, bytes])
}

pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    value(0x03, &[&[0], bytes])
}

pub fn octet_string(bytes: &[u8]) -> Vec<u8> {
    value(0x04, &[bytes])
}

/// An object identifier, whose arcs are encoded already.
pub fn object_id(arcs: &[u8]) -> Vec<u8> {
    value(0x06, &[arcs])
}

pub fn utf8_string(text: &str) -> Vec<u8> {
    value(0x0c, &[text.as_bytes()])
}

/// A value that is a choice of its context.
pub fn context(number: u8, bytes: &[u8]) -> Vec<u8> {
    value(0x80 | number, &[bytes])
}

/// A value in a tag of its context.
pub fn explicit(number: u8, inner: &[u8]) -> Vec<u8> {
    value(0xa0 | number, &[inner])
}

/// A moment: with two digits of its year before 2050, with four from then on (RFC 5280, section 4.1.2.5).
pub fn utc_time(at: Wall) -> Vec<u8> {
    let seconds = at.unix_ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if year < 2050 {
        value(0x17, &[format!("{:02}{rest}", year % 100).as_bytes()])
    } else {
        value(0x18, &[format!("{year:04}{rest}").as_bytes()])
    }
}

/// Year, month and day of a day since 1970-01-01.
fn date(mut day: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_signs_are_as_the_standard_has_them() {
        assert_eq!(octet_string(&[7; 3]), [4, 3, 7, 7, 7]);
        assert_eq!(octet_string(&[0; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(octet_string(&[0; 0x100])[..4], [4, 0x82, 1, 0]);
        assert_eq!(integer(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0]), [2, 1, 0]);
    }

    #[test]
    fn dates_are_the_calendars() {
        for (day, expected) in
            [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_787, (2026, 11, 30))]
        {
            assert_eq!(date(day), expected);
        }
        let moment = |unix_ms| String::from_utf8_lossy(&utc_time(Wall { unix_ms })[2..]).into_owned();
        assert_eq!(moment(1_796_070_896_999), "261130203456Z");
        assert_eq!(moment(2_524_608_000_000), "20500101000000Z");
    }
}
