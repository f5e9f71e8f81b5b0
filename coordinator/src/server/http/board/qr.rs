//! A text as a QR code, as SVG of this program's own making.

use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write;

/// White modules around the code: the standard asks for four.
const QUIET: i32 = 4;

/// An SVG of the code; `None` where the text is too long for one.
pub fn svg(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let (size, side) = (code.size(), code.size() + 2 * QUIET);
    let mut path = String::new();
    for y in 0..size {
        for x in (0..size).filter(|x| code.get_module(*x, y)) {
            // Writing to a string cannot fail.
            let _ = write!(path, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" class=\"qr\" role=\"img\" \
         aria-label=\"The invite as a QR code\"><rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/>\
         <path fill=\"#000\" d=\"{path}\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_holds_its_corners_and_a_text_too_long_has_none() {
        let drawn = svg("nightjar:abc").unwrap();
        // The finder patterns begin in three corners.
        for corner in ["M4 4h1", "M24 4h1", "M4 24h1"] {
            assert!(drawn.contains(corner), "{corner}: {drawn}");
        }
        assert!(drawn.contains("viewBox=\"0 0 33 33\"") || drawn.contains("viewBox=\"0 0 29 29\""), "{drawn}");
        assert_eq!(svg(&"x".repeat(3000)), None);
    }
}
