//! The operators' desk in a database.

use super::{
    Dialect, SqlLedger,
    rows::{self, SetAside, TableRow, Word},
    tables::{Cells, Statement, Tables, sql},
};
use crate::{
    engine::{record::AuditRecord, snapshot::Standing},
    store::{
        BadRow, LedgerError,
        desk::check_text,
        desk::{Access, AuditEntry, Desk, InviteFacts, InviteRecord, Note, TokenRecord},
        ledger::{Answer, check_audit, integer},
    },
};
use nightjar_shared::{ids::DeviceId, time::Wall};

impl Word for Access {
    const ALL: &'static [Self] = &Access::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

/// Writes a note.
pub(in crate::store) async fn write(tx: &mut impl Tables, note: &Note) -> Result<(), LedgerError> {
    let statement = match note {
        Note::Token(token) => {
            check_text("tokens.name", &token.name)?;
            sql("/* token */ INSERT INTO tokens VALUES ($1, $2, $3, $4, $5, $6, $7)")
                .bind(&*token.name)
                .bind(token.role.word())
                .bind(&token.hash[..])
                .bind(moment("tokens.created_at", Some(token.created_at))?)
                .bind(moment("tokens.expires_at", token.expires_at)?)
                .bind(moment("tokens.used_at", token.used_at)?)
                .bind(moment("tokens.revoked_at", token.revoked_at)?)
        }
        Note::TokenUsed { name, at } => sql("/* token used */ UPDATE tokens SET used_at = $1 WHERE name = $2")
            .bind(moment("tokens.used_at", Some(*at))?)
            .bind(&**name),
        Note::TokenRevoked { name, at } => {
            sql("/* token revoked */ UPDATE tokens SET revoked_at = $1 WHERE name = $2 AND revoked_at IS NULL")
                .bind(moment("tokens.revoked_at", Some(*at))?)
                .bind(&**name)
        }
        Note::Invite(invite) => {
            check_text("invites.issued_by", &invite.issued_by)?;
            sql("/* invite */ INSERT INTO invites VALUES ($1, $2, $3, $4, $5, $6)")
                .bind(&invite.nonce[..])
                .bind(i64::from(i32::from(invite.role)))
                .bind(integer("invites.devices_max", invite.devices_max)?)
                .bind(moment("invites.expires_at", invite.expires_at)?)
                .bind(moment("invites.issued_at", Some(invite.issued_at))?)
                .bind(&*invite.issued_by)
        }
        Note::Audit(entry) => audit_row(entry)?,
    };
    if tx.change(statement).await? == 0 {
        return Err(LedgerError::Contradiction(format!("nothing to change for {note:?}")));
    }
    Ok(())
}

/// An entry of the audit log.
pub(super) fn audit_row(entry: &AuditRecord) -> Result<Statement, LedgerError> {
    check_audit(entry)?;
    let row = sql("/* audit */ INSERT INTO audit (at, name, address, action, subject, outcome)
                   VALUES ($1, $2, $3, $4, $5, $6)");
    let row = row.bind(integer("audit.at", entry.at.unix_ms)?).bind(&*entry.name).bind(&*entry.from);
    Ok(row.bind(&*entry.action).bind(&*entry.subject).bind(&*entry.outcome))
}

fn moment(column: &'static str, at: Option<Wall>) -> Result<Option<i64>, LedgerError> {
    at.map(|at| integer(column, at.unix_ms)).transpose()
}

/// What operators ordered. A ledger that only an older version has written has no tables of it.
pub(super) async fn standing<D: Dialect>(tx: &mut D::Transaction) -> Result<Standing, LedgerError> {
    if tx.number(sql(D::HAS_TABLE).bind("revoked_devices")).await? == 0 {
        return Ok(Standing::default());
    }
    let paused = sql("/* standing: pause */ SELECT paused_at AS n FROM run WHERE paused_at IS NOT NULL");
    let budget = sql("/* standing: budget */ SELECT token_budget AS n FROM run WHERE token_budget IS NOT NULL");
    let (paused, budget) = (tx.rows(paused).await?, tx.rows(budget).await?);
    let devices = tx.rows(sql("/* standing: devices */ SELECT * FROM revoked_devices")).await?;
    let invites = tx.rows(sql("/* standing: invites */ SELECT * FROM revoked_invites")).await?;
    let one = |rows: &[_]| rows.first().map(|row| rows::number(row, "n")).transpose();
    // Whoever was taken out stays out: a row of these that cannot be read is an error.
    let devices = devices.iter().map(|row| {
        let cells = TableRow { row, table: "revoked_devices", key: "device" };
        Ok((DeviceId(cells.hash("device")?), cells.wall("revoked_at")?))
    });
    let invites = invites.iter().map(|row| {
        let cells = TableRow { row, table: "revoked_invites", key: "nonce" };
        Ok((cells.bytes("nonce")?.to_vec(), cells.wall("revoked_at")?))
    });
    Ok(Standing {
        paused_at: one(&paused)?.map(|unix_ms| Wall { unix_ms }),
        token_budget: one(&budget)?,
        revoked_devices: devices.collect::<Result<_, BadRow>>()?,
        revoked_invites: invites.collect::<Result<_, BadRow>>()?,
    })
}

fn token(row: &impl Cells, aside: &mut SetAside) -> Result<TokenRecord, BadRow> {
    let cells = TableRow { row, table: "tokens", key: "created_at" };
    Ok(TokenRecord {
        name: cells.text("name")?.to_owned(),
        role: cells.word("role")?,
        hash: cells.hash("hash")?,
        created_at: aside.or_unknown(cells.wall("created_at")),
        expires_at: cells.wall_if_any("expires_at")?,
        used_at: cells.wall_if_any("used_at")?,
        revoked_at: cells.wall_if_any("revoked_at")?,
    })
}

fn invite(row: &impl Cells, aside: &mut SetAside) -> Result<InviteFacts, BadRow> {
    let cells = TableRow { row, table: "invites", key: "nonce" };
    let nonce = cells.bytes("nonce")?.to_vec();
    let issued_at = cells.wall_if_any("issued_at")?;
    let issued = issued_at.map(|issued_at| {
        Ok(InviteRecord {
            nonce: nonce.clone(),
            role: rows::role(&cells)?,
            devices_max: cells.number("devices_max")?,
            expires_at: cells.wall_if_any("expires_at")?,
            issued_at,
            issued_by: aside.or_unknown(cells.text("issued_by").map(str::to_owned)),
        })
    });
    let revoked_at = cells.wall_if_any("revoked_at")?;
    Ok(InviteFacts { nonce, issued: issued.transpose()?, devices: cells.number("devices")?, revoked_at })
}

fn entry(row: &impl Cells, _: &mut SetAside) -> Result<AuditEntry, BadRow> {
    let cells = TableRow { row, table: "audit", key: "id" };
    let text = |column| cells.text(column).map(str::to_owned);
    let record = AuditRecord {
        at: cells.wall("at")?,
        name: text("name")?,
        from: text("address")?,
        action: text("action")?,
        subject: text("subject")?,
        outcome: text("outcome")?,
    };
    Ok(AuditEntry { id: cells.number("id")?, record })
}

impl<D: Dialect> SqlLedger<D> {
    /// The answer's rows, as far as they can be read.
    async fn listed<T>(
        &self,
        statement: Statement,
        read: impl Fn(&<D::Transaction as Tables>::Row, &mut SetAside) -> Result<T, BadRow> + Send,
    ) -> Result<Vec<T>, LedgerError>
    where
        T: Send,
    {
        let rows = self.dialect.begin().await?.rows(statement).await?;
        let mut aside = SetAside::default();
        let readable = aside.readable(&rows, read);
        aside.told();
        Ok(readable)
    }
}

impl<D: Dialect> Desk for SqlLedger<D> {
    fn note<'a>(&'a self, notes: &'a [Note]) -> Answer<'a, ()> {
        Box::pin(self.dialect.note(notes))
    }

    fn token(&self, hash: [u8; 32]) -> Answer<'_, Option<TokenRecord>> {
        Box::pin(async move {
            let found = sql("/* token */ SELECT * FROM tokens WHERE hash = $1").bind(&hash[..]);
            Ok(self.listed(found, token).await?.pop())
        })
    }

    fn tokens(&self) -> Answer<'_, Vec<TokenRecord>> {
        Box::pin(self.listed(sql("/* tokens */ SELECT * FROM tokens ORDER BY name"), token))
    }

    fn invites<'a>(&'a self, after: &'a [u8], most: u32) -> Answer<'a, Vec<InviteFacts>> {
        let page = sql("/* invites */
             SELECT n.nonce, i.role, i.devices_max, i.expires_at, i.issued_at, i.issued_by, r.revoked_at,
                    (SELECT count(*) FROM devices d WHERE d.invite_nonce = n.nonce AND d.has_left = 0) AS devices
             FROM (SELECT nonce FROM invites WHERE nonce > $1 UNION
                   SELECT invite_nonce FROM devices WHERE invite_nonce > $1 UNION
                   SELECT nonce FROM revoked_invites WHERE nonce > $1
                   ORDER BY 1 LIMIT $2) n
             LEFT JOIN invites i ON i.nonce = n.nonce
             LEFT JOIN revoked_invites r ON r.nonce = n.nonce
             ORDER BY n.nonce");
        Box::pin(self.listed(page.bind(after).bind(most), invite))
    }

    fn audit(&self, before: Option<u64>, most: u32) -> Answer<'_, Vec<AuditEntry>> {
        let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
        let page = sql("/* audit log */ SELECT * FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2");
        Box::pin(self.listed(page.bind(before).bind(most), entry))
    }
}
