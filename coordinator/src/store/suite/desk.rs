//! What every ledger promises of the operators' desk, and of what operators ordered.

use super::{Place, eventful, with_a_run};
use crate::{
    engine::{
        record::{AuditRecord, Record},
        snapshot::Standing,
    },
    store::{
        LedgerError,
        desk::{Access, AuditEntry, Desk, InviteRecord, Note, TokenRecord},
    },
};
use nightjar_shared::{ids::DeviceId, time::Wall, wire::Role};

fn at(unix_ms: u64) -> Wall {
    Wall { unix_ms }
}

fn token(name: &str, number: u8) -> TokenRecord {
    TokenRecord {
        name: name.into(),
        role: Access::ALL[usize::from(number % 2)],
        hash: [number; 32],
        created_at: at(5),
        expires_at: number.is_multiple_of(3).then(|| at(900)),
        used_at: None,
        revoked_at: None,
    }
}

fn audit(name: &str, unix_ms: u64) -> AuditRecord {
    AuditRecord {
        at: at(unix_ms),
        name: name.into(),
        from: "192.0.2.1".into(),
        action: "device revoke".into(),
        subject: "00".into(),
        outcome: "done".into(),
    }
}

/// Tokens are told as they were written, and a second of the same name or a second end is refused with all beside it.
pub async fn tokens_are_kept<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, _, _) = with_a_run(&place).await;
    ledger.note(&[Note::Token(token("ann", 1)), Note::Audit(audit("here", 7))]).await.unwrap();
    ledger.note(&[Note::Token(token("ben", 3))]).await.unwrap();
    assert_eq!(ledger.tokens().await.unwrap(), [token("ann", 1), token("ben", 3)]);
    assert_eq!(ledger.token([3; 32]).await.unwrap(), Some(token("ben", 3)));
    assert_eq!(ledger.token([2; 32]).await.unwrap(), None);
    let refused = [
        Note::Token(token("ann", 4)),
        Note::Token(token("eve", 1)),
        Note::TokenRevoked { name: "eve".into(), at: at(8) },
        Note::TokenUsed { name: "eve".into(), at: at(8) },
    ];
    for note in refused {
        let both = [Note::Audit(audit("eve", 8)), note];
        assert!(matches!(ledger.note(&both).await, Err(LedgerError::Contradiction(_))), "{:?}", both[1]);
    }
    assert_eq!(ledger.audit(None, 10).await.unwrap().len(), 1, "what is refused takes along what is beside it");
    let revoked = Note::TokenRevoked { name: "ann".into(), at: at(8) };
    ledger.note(&[Note::TokenUsed { name: "ann".into(), at: at(6) }, revoked.clone()]).await.unwrap();
    assert!(matches!(ledger.note(&[revoked]).await, Err(LedgerError::Contradiction(_))), "once");
    let ann = TokenRecord { used_at: Some(at(6)), revoked_at: Some(at(8)), ..token("ann", 1) };
    assert_eq!(ledger.token([1; 32]).await.unwrap(), Some(ann.clone()));
    let (before, after) = (at(899), at(900));
    assert!(!ann.is_good(before) && token("ben", 3).is_good(before) && !token("ben", 3).is_good(after));
    // Another coordinator's start makes no difference.
    let newer = place.open(1).await;
    ledger.note(&[Note::Token(token("zoe", 7))]).await.unwrap();
    assert_eq!(newer.tokens().await.unwrap().len(), 3);
}

/// The audit log has what a commit wrote and what was noted, in one order, and is read in pages.
pub async fn the_audit_log_is_read_in_pages<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, ..) = with_a_run(&place).await;
    for n in 0..4 {
        ledger.commit(&[Record::Audit(audit("commit", 2 * n))]).await.unwrap();
        ledger.note(&[Note::Audit(audit("note", 2 * n + 1))]).await.unwrap();
    }
    let bad = AuditRecord { outcome: "a\0".into(), ..audit("x", 1) };
    assert!(matches!(ledger.note(&[Note::Audit(bad)]).await, Err(LedgerError::Unfit { .. })));
    let first = ledger.audit(None, 5).await.unwrap();
    let rest = ledger.audit(first.last().map(|entry| entry.id), 5).await.unwrap();
    let all: Vec<AuditEntry> = first.into_iter().chain(rest).collect();
    let expected: Vec<AuditRecord> = (0..8).rev().map(|n| audit(["commit", "note"][n % 2], n as u64)).collect();
    assert_eq!(all.iter().map(|entry| entry.record.clone()).collect::<Vec<_>>(), expected);
    assert!(all.windows(2).all(|w| w[0].id > w[1].id));
}

/// Invites are listed that were issued, that devices came with, and that were revoked.
pub async fn invites_are_listed<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, model, _) = with_a_run(&place).await;
    let invite = |nonce: Vec<u8>, expires_at| InviteRecord {
        nonce,
        role: Role::Anchor,
        devices_max: 3,
        expires_at,
        issued_at: at(4),
        issued_by: "here".into(),
    };
    let used = ledger.facts().await.unwrap().devices[0].invite_nonce.clone();
    let notes = [Note::Invite(invite(vec![9; 16], None)), Note::Invite(invite(used.clone(), Some(at(77))))];
    let revoked = [vec![9; 16], vec![200; 3]].map(|nonce| Record::InviteRevoked { nonce, at: at(6) });
    ledger.note(&notes).await.unwrap();
    Desk::note(&model, &notes).await.unwrap();
    for record in revoked {
        ledger.commit(std::slice::from_ref(&record)).await.unwrap();
        model.commit(std::slice::from_ref(&record)).unwrap();
        assert!(matches!(ledger.commit(&[record]).await, Err(LedgerError::Contradiction(_))), "once");
    }
    assert!(matches!(ledger.note(&notes).await, Err(LedgerError::Contradiction(_))));
    let listed = ledger.invites(&[], 100).await.unwrap();
    assert_eq!(listed, Desk::invites(&model, &[], 100).await.unwrap());
    let with_used = listed.iter().find(|i| i.nonce == used).unwrap();
    assert!(with_used.devices > 0 && with_used.issued == Some(invite(used, Some(at(77)))));
    assert!(listed.iter().any(|i| i.issued.is_none() && i.revoked_at == Some(at(6))));
    for nonce in listed.iter().map(|i| &i.nonce[..]).chain([&[][..]]) {
        let page = ledger.invites(nonce, 2).await.unwrap();
        assert_eq!(page, Desk::invites(&model, nonce, 2).await.unwrap(), "after {nonce:?}");
    }
}

/// Orders stand after a restart, each once.
pub async fn orders_stand_after_a_restart<P: Place>() {
    let Some(place) = P::new() else { return };
    let (ledger, _, shards) = with_a_run(&place).await;
    let device = eventful().0.ledger.facts().devices[0].id;
    assert_eq!(ledger.snapshot(&shards).await.unwrap().standing, Standing::default());
    let revoked = Record::DeviceRevoked { id: device, at: at(3) };
    let records = [
        revoked.clone(),
        Record::InviteRevoked { nonce: vec![1], at: at(4) },
        Record::Paused(Some(at(5))),
        Record::Extended { token_budget: 77 },
    ];
    ledger.commit(&records).await.unwrap();
    assert!(matches!(ledger.commit(&[revoked]).await, Err(LedgerError::Contradiction(_))));
    let stranger = Record::DeviceRevoked { id: DeviceId([0xee; 32]), at: at(3) };
    assert!(matches!(ledger.commit(&[stranger]).await, Err(LedgerError::Contradiction(_))));
    let mut standing = Standing {
        paused_at: Some(at(5)),
        token_budget: Some(77),
        revoked_devices: [(device, at(3))].into(),
        revoked_invites: [(vec![1], at(4))].into(),
    };
    ledger.close().await;
    let ledger = place.open(1).await;
    assert_eq!(ledger.snapshot(&shards).await.unwrap().standing, standing);
    ledger.commit(&[Record::Paused(None)]).await.unwrap();
    standing.paused_at = None;
    assert_eq!(ledger.snapshot(&shards).await.unwrap().standing, standing);
}
