//! The operators' desk: tokens, issued invites and the audit log. They lie in the ledger, but the engine decides nothing
//! by them. So a command on the coordinator's computer writes here while the run is served: what is written here depends
//! on no generation, and raises none.

use super::{LedgerError, ledger::Answer};
use crate::engine::record::AuditRecord;
use nightjar_shared::{time::Wall, wire::Role};
use serde::{Deserialize, Serialize};

/// Tokens that are not revoked, at most.
pub const TOKENS_MAX: usize = 1000;
/// Longest name of a token, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Read.
    Viewer,
    /// Read, and change the run.
    Operator,
}

impl Access {
    /// Every role, the least first.
    pub const ALL: [Access; 2] = [Access::Viewer, Access::Operator];

    /// The role's word.
    pub const fn name(self) -> &'static str {
        match self {
            Access::Viewer => "viewer",
            Access::Operator => "operator",
        }
    }
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// What the audit log calls its holder; no two tokens ever have the same.
    pub name: String,
    /// What it allows.
    pub role: Access,
    /// BLAKE3 of the secret.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Wall,
    /// When it ends by itself.
    pub expires_at: Option<Wall>,
    /// When it was used last, to about a minute.
    pub used_at: Option<Wall>,
    /// Since when it is good for nothing.
    pub revoked_at: Option<Wall>,
}

impl TokenRecord {
    /// Whether it is good for anything at this time.
    pub fn is_good(&self, now: Wall) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// An invite as it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteRecord {
    /// What tells it from others.
    pub nonce: Vec<u8>,
    /// What it makes of a device.
    pub role: Role,
    /// Devices that may hold a place by it; 0: any number.
    pub devices_max: u64,
    /// When it ends; `None`: never.
    pub expires_at: Option<Wall>,
    /// When it was issued.
    pub issued_at: Wall,
    /// By whom.
    pub issued_by: String,
}

/// What the ledger knows of an invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteFacts {
    /// What tells it from others.
    pub nonce: Vec<u8>,
    /// As it was issued; `None` where only its use is known.
    pub issued: Option<InviteRecord>,
    /// Devices that came with it and have not left.
    pub devices: u64,
    /// Since when nobody enrols with it.
    pub revoked_at: Option<Wall>,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number, from 1.
    pub id: u64,
    /// What it says.
    pub record: AuditRecord,
}

/// Something to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A token was made.
    Token(TokenRecord),
    /// A token was used.
    TokenUsed {
        /// Its name.
        name: String,
        /// When.
        at: Wall,
    },
    /// A token is good for nothing any more.
    TokenRevoked {
        /// Its name.
        name: String,
        /// When.
        at: Wall,
    },
    /// An invite was issued.
    Invite(InviteRecord),
    /// Somebody did something.
    Audit(AuditRecord),
}

/// See the module. Every ledger has one.
pub trait Desk: Send + Sync {
    /// Writes in one transaction; [`LedgerError::Contradiction`] for a second token or invite of the same name, or for
    /// a token that is not there or was revoked already.
    fn note<'a>(&'a self, notes: &'a [Note]) -> Answer<'a, ()>;

    /// The token of a hash, whatever became of it.
    fn token(&self, hash: [u8; 32]) -> Answer<'_, Option<TokenRecord>>;

    /// All tokens, by name.
    fn tokens(&self) -> Answer<'_, Vec<TokenRecord>>;

    /// At most so many invites after one, by nonce: those that were issued, and those that devices came with.
    fn invites<'a>(&'a self, after: &'a [u8], most: u32) -> Answer<'a, Vec<InviteFacts>>;

    /// At most so many entries of the audit log before one, newest first.
    fn audit(&self, before: Option<u64>, most: u32) -> Answer<'_, Vec<AuditEntry>>;
}

/// Refuses a text that would not be read back as it is.
pub(super) fn check_text(column: &'static str, text: &str) -> Result<(), LedgerError> {
    match text.contains('\0') {
        true => Err(LedgerError::Unfit { column, why: "has a character that ends a text" }),
        false => Ok(()),
    }
}
