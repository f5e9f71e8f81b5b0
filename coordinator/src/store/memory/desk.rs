//! The operators' desk in memory.

use super::MemoryLedger;
use crate::engine::record::AuditRecord;
use crate::store::{
    LedgerError,
    desk::check_text,
    desk::{AuditEntry, Desk, InviteFacts, InviteRecord, Note, TokenRecord},
    ledger::{Answer, check_audit, integer},
};
use nightjar_shared::time::Wall;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
};

/// What lies on it.
#[derive(Clone, Default)]
pub(super) struct Notes {
    tokens: BTreeMap<String, TokenRecord>,
    invites: BTreeMap<Vec<u8>, InviteRecord>,
    pub audit: Vec<AuditRecord>,
}

impl Notes {
    fn take(&mut self, note: &Note) -> Result<(), LedgerError> {
        let contradiction = || LedgerError::Contradiction(format!("{note:?}"));
        let moment = |at: Wall| integer("desk", at.unix_ms).map(drop);
        match note {
            Note::Token(token) => {
                check_text("tokens.name", &token.name)?;
                let moments = [Some(token.created_at), token.expires_at, token.used_at, token.revoked_at];
                moments.into_iter().flatten().try_for_each(moment)?;
                let is_known =
                    self.tokens.contains_key(&token.name) || self.tokens.values().any(|t| t.hash == token.hash);
                if is_known {
                    return Err(contradiction());
                }
                self.tokens.insert(token.name.clone(), token.clone());
            }
            Note::TokenUsed { name, at } => {
                moment(*at)?;
                self.tokens.get_mut(name).ok_or_else(contradiction)?.used_at = Some(*at);
            }
            Note::TokenRevoked { name, at } => {
                moment(*at)?;
                let token = self.tokens.get_mut(name).filter(|t| t.revoked_at.is_none());
                token.ok_or_else(contradiction)?.revoked_at = Some(*at);
            }
            Note::Invite(invite) => {
                check_text("invites.issued_by", &invite.issued_by)?;
                integer("invites.devices_max", invite.devices_max)?;
                [Some(invite.issued_at), invite.expires_at].into_iter().flatten().try_for_each(moment)?;
                if self.invites.insert(invite.nonce.clone(), invite.clone()).is_some() {
                    return Err(contradiction());
                }
            }
            Note::Audit(entry) => {
                check_audit(entry)?;
                self.audit.push(entry.clone());
            }
        }
        Ok(())
    }
}

impl Desk for MemoryLedger {
    fn note<'a>(&'a self, notes: &'a [Note]) -> Answer<'a, ()> {
        let mut state = self.state();
        let mut after = state.notes.clone();
        let written = notes.iter().try_for_each(|note| after.take(note));
        if written.is_ok() {
            state.notes = after;
        }
        Box::pin(ready(written))
    }

    fn token(&self, hash: [u8; 32]) -> Answer<'_, Option<TokenRecord>> {
        Box::pin(ready(Ok(self.state().notes.tokens.values().find(|t| t.hash == hash).cloned())))
    }

    fn tokens(&self) -> Answer<'_, Vec<TokenRecord>> {
        Box::pin(ready(Ok(self.state().notes.tokens.values().cloned().collect())))
    }

    fn invites<'a>(&'a self, after: &'a [u8], most: u32) -> Answer<'a, Vec<InviteFacts>> {
        let state = self.state();
        let (issued, revoked) = (&state.notes.invites, &state.standing.revoked_invites);
        let came = state.facts.devices.iter().map(|d| &d.invite_nonce);
        let all: BTreeSet<&Vec<u8>> = issued.keys().chain(revoked.keys()).chain(came).collect();
        let facts = all.into_iter().filter(|nonce| &nonce[..] > after).take(most as usize).map(|nonce| InviteFacts {
            nonce: nonce.clone(),
            issued: issued.get(nonce).cloned(),
            devices: state.facts.devices.iter().filter(|d| !d.left && d.invite_nonce == *nonce).count() as u64,
            revoked_at: revoked.get(nonce).copied(),
        });
        Box::pin(ready(Ok(facts.collect())))
    }

    fn audit(&self, before: Option<u64>, most: u32) -> Answer<'_, Vec<AuditEntry>> {
        let state = self.state();
        let numbered = (1..).zip(&state.notes.audit).take_while(|(id, _)| before.is_none_or(|before| *id < before));
        let all: Vec<AuditEntry> = numbered.map(|(id, record)| AuditEntry { id, record: record.clone() }).collect();
        Box::pin(ready(Ok(all.into_iter().rev().take(most as usize).collect())))
    }
}
