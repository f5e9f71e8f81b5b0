//! An invite: the link that lets a device join a run. It names where the coordinator listens, pins its keys, and says
//! what the holder may be; the coordinator signs it and recognises it by that signature.
//!
//! `nightjar:` followed by base64url of: the message [`wire::Invite`], [sealed](crate::sealed) under
//! "nightjar invite 1". Signing and checking need a key, so they are functions given as arguments.

use crate::{
    sealed::{self, SIGNATURE_BYTES},
    wire::{self, Role},
};
use data_encoding::BASE64URL_NOPAD;
use prost::Message as _;

const SCHEME: &str = "nightjar:";
const CONTEXT: &[u8] = b"nightjar invite 1";
/// Longest link accepted, in characters.
const LINK_MAX: usize = 4096;
/// Longest text that a link is looked for in, in bytes: a zero-width space between any two of its characters makes it
/// four times as long, and some words may stand around it.
const PASTED_BYTES_MAX: usize = 8 * LINK_MAX;
/// So many places are tried at which a link may end that has words behind it.
const WORDS_MAX: usize = 256;

/// Text that is no invite, or one that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum InviteError {
    /// It does not start as a link does.
    #[error("an invite starts with \"nightjar:\"; paste the whole link that you were given")]
    NotALink,
    /// It was cut or changed on the way.
    #[error("the invite is damaged or incomplete; copy it again, the whole line")]
    Damaged,
    /// The signature does not fit.
    #[error("the invite's signature does not fit its contents; ask for a new one")]
    BadSignature,
    /// It is too old.
    #[error("the invite has expired; ask for a new one")]
    Expired,
}

/// The token (message and signature) of an invite; `sign` is the coordinator's ed25519 key.
pub fn seal(invite: &wire::Invite, sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> Vec<u8> {
    sealed::seal(CONTEXT, invite.encode_to_vec(), sign)
}

/// Opens a token. `verify(public_key, message, signature)` checks against the first of the invite's own pinned keys;
/// a coordinator must also check that this key is its own.
pub fn open(token: &[u8], verify: impl FnOnce(&[u8], &[u8], &[u8]) -> bool) -> Result<wire::Invite, InviteError> {
    let (message, signature) = sealed::split(token).ok_or(InviteError::Damaged)?;
    let invite = wire::Invite::decode(message).map_err(|_| InviteError::Damaged)?;
    let key = invite.public_keys.first().ok_or(InviteError::Damaged)?;
    if invite.addresses.is_empty()
        || invite.public_keys.iter().chain(&invite.certificates).any(|k| k.len() != 32)
        || Role::try_from(invite.role).is_err()
    {
        return Err(InviteError::Damaged);
    }
    if !verify(key, &sealed::covered(CONTEXT, message), signature) {
        return Err(InviteError::BadSignature);
    }
    Ok(invite)
}

/// The link of a token.
pub fn to_link(token: &[u8]) -> String {
    format!("{SCHEME}{}", BASE64URL_NOPAD.encode(token))
}

/// The token of a link, as a person pastes it: for the command line and the page alike. What mail programs, chats and
/// shells put in and around it is forgiven, since the signature tells whether what is left is what was sent.
pub fn from_link(text: &str) -> Result<Vec<u8>, InviteError> {
    if text.len() > PASTED_BYTES_MAX {
        return Err(InviteError::Damaged);
    }
    let (text, breaks) = as_it_was_sent(text);
    let small = text.to_ascii_lowercase();
    let at = small.find(SCHEME).ok_or(InviteError::NotALink)? + SCHEME.len();
    // Some programs take it for a web address and put slashes there. Behind it come full stops, quotes, brackets.
    let body = text[at..].trim_start_matches('/');
    let at = text.len() - body.len();
    let end = body.find(|c: char| !is_of_a_body(c)).unwrap_or(body.len());
    // What else follows has grown together with it: the same again, or more words.
    let others = small[at..].find(SCHEME).into_iter().chain(breaks.iter().filter_map(|place| place.checked_sub(at)));
    let others = others.filter(|other| *other < end).take(WORDS_MAX);
    let token = |end: usize| BASE64URL_NOPAD.decode(&body.as_bytes()[..end.min(LINK_MAX)]).ok();
    let whole = [end].into_iter().chain(others).filter_map(token).find(|token| is_whole(token));
    // One of a later version may have more in it than is known here.
    let token = whole.or_else(|| token(end).filter(|_| end <= LINK_MAX));
    token.ok_or(InviteError::Damaged)
}

/// Whether a token holds an invite, and nothing else.
fn is_whole(token: &[u8]) -> bool {
    let message = token.len().checked_sub(SIGNATURE_BYTES).map(|at| &token[..at]);
    message.is_some_and(|message| wire::Invite::decode(message).is_ok_and(|invite| invite.encode_to_vec() == message))
}

/// Without what nobody sees: line breaks, and how quoted mail marks and breaks lines; zero-width and other characters
/// that only shape a text. Hyphens and colons that a program made prettier, or hid in an address, are plain again. Says
/// where there was a space, or another line began.
fn as_it_was_sent(text: &str) -> (String, Vec<usize>) {
    let text = text.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/");
    let lines = text.lines().map(|line| line.trim_start_matches(|c: char| c == '>' || c.is_whitespace() || shapes(c)));
    let plain = |c: char| match c {
        '\u{2010}' | '\u{2011}' | '\u{2012}' | '\u{2013}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}' => "-".into(),
        '\u{2014}' => "--".into(),
        '\u{fe55}' | '\u{ff1a}' => ":".into(),
        // Ends a line that goes on, in quoted-printable.
        '=' => String::new(),
        c if c.is_whitespace() || shapes(c) => String::new(),
        c => c.to_string(),
    };
    let (mut sent, mut breaks) = (String::new(), vec![]);
    for line in lines {
        breaks.push(sent.len());
        for c in line.chars() {
            if c.is_whitespace() {
                breaks.push(sent.len());
            }
            sent += &plain(c);
        }
    }
    (sent, breaks)
}

/// Whether a character has no look of its own: controls, and what Unicode calls format characters (Cf) and variation
/// selectors.
fn shapes(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e01ef}')
}

fn is_of_a_body(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// SubjectPublicKeyInfo (DER) of a raw ed25519 public key (RFC 8410): what TLS shows and what ids are made of.
pub fn spki_of_ed25519(public_key: &[u8; 32]) -> Vec<u8> {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    [&PREFIX[..], public_key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> wire::Invite {
        wire::Invite {
            addresses: vec!["127.0.0.1:4433".into()],
            public_keys: vec![vec![7; 32]],
            role: Role::Volunteer as i32,
            run_name: "demo".into(),
            ..Default::default()
        }
    }

    /// Stands in for a key: the "signature" is the message's hash, twice.
    fn sign(message: &[u8]) -> [u8; 64] {
        let h = blake3::hash(message);
        [*h.as_bytes(), *h.as_bytes()].concat().try_into().unwrap()
    }

    fn verify(_: &[u8], message: &[u8], signature: &[u8]) -> bool {
        sign(message) == signature
    }

    #[test]
    fn a_link_opens_to_what_was_sealed() {
        let link = to_link(&seal(&invite(), sign));
        assert_eq!(open(&from_link(&format!("  {link}\n")).unwrap(), verify), Ok(invite()));
        let (head, tail) = link.split_at(40);
        assert_eq!(open(&from_link(&format!("'{head}\r\n {tail}'")).unwrap(), verify), Ok(invite()));
        assert_eq!(from_link(&format!("{link}{}", " ".repeat(1 << 20))), Err(InviteError::Damaged));
    }

    /// As it comes out of mail programs, chats, word processors and terminals.
    #[test]
    fn what_is_put_around_and_into_a_link_is_forgiven() {
        let link = to_link(&seal(&invite(), sign));
        let body = link.strip_prefix(SCHEME).unwrap();
        let (head, tail) = link.split_at(40);
        let between = |what: &str| link.chars().map(String::from).collect::<Vec<_>>().join(what);
        let pasted = [
            format!("“{link}”"),
            format!("„{link}“"),
            format!("‘{link}’"),
            format!("«\u{a0}{link}\u{a0}»"),
            format!("`{link}`"),
            format!("<{link}>"),
            format!("({link})."),
            format!("{link}."),
            format!("{link},"),
            format!("{link}…"),
            format!("{link}!"),
            format!("**{link}**"),
            format!("[{link}]({link})"),
            format!("Nightjar:{body}"),
            format!("NIGHTJAR: {body}"),
            format!("nightjar\u{ff1a}{body}"),
            format!("nightjar://{body}"),
            format!("Your invite: {link}"),
            format!("nightjar join '{link}'"),
            format!("\u{feff}{link}\u{200b}"),
            between("\u{200b}"),
            between("\u{ad}"),
            format!("> {head}\r\n> {tail}\r\n"),
            format!(">> {head}=\n>> {tail}\n"),
            format!("{head}\u{2028}\t{tail}"),
            format!("{link}\u{fe0f}"),
            format!("\u{202a}{link}\u{202c}"),
            link.replace('-', "\u{2011}"),
            link.replace("--", "\u{2014}"),
            format!("nightjar%3A{body}"),
            format!("nightjar%3a%2F%2F{body}"),
            format!("{link} is your invite, see you there"),
            format!("{link}\nBest wishes\nAnn"),
            format!("{head}\n{tail}\nBest wishes\nAnn"),
            format!("{link}{link}"),
            format!("{link} {link}"),
            format!("{link}\n{link}\n"),
        ];
        for pasted in pasted {
            assert_eq!(from_link(&pasted).and_then(|token| open(&token, verify)), Ok(invite()), "{pasted:?}");
        }
        assert_eq!(from_link("nightjar join me"), Err(InviteError::NotALink));
        assert!(from_link("nightjar:").and_then(|token| open(&token, verify)).is_err());
        let torn = format!("{head}€{tail}");
        assert!(from_link(&torn).and_then(|token| open(&token, verify)).is_err());
    }

    #[test]
    fn damage_is_noticed() {
        let link = to_link(&seal(&invite(), sign));
        assert_eq!(from_link("http://x"), Err(InviteError::NotALink));
        assert!(from_link(&link[..link.len() / 2]).and_then(|t| open(&t, verify)).is_err());
        let mut token = seal(&invite(), sign);
        token[3] ^= 1;
        assert!(open(&token, verify).is_err());
        assert_eq!(open(&[], verify), Err(InviteError::Damaged));
    }
}
