//! Who asks: a token, or a session that a token began. Wrong ones are counted by address.

use super::{Admin, ApiError};
use crate::{
    engine::orders::Giver,
    server::{
        bucket::{Buckets, Rate},
        clock::wall_now,
        subnet::Subnet,
        token,
    },
    store::{Access, LedgerError, TokenRecord, desk::Note},
};
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, Method, header, request::Parts},
};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use utoipa::{
    Modify,
    openapi::{
        OpenApi,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// The cookie's name.
pub(super) const COOKIE: &str = "nightjar_session";
/// The header that a page shows besides the cookie.
const CSRF: &str = "x-csrf-token";
/// Wrong tokens of one address: so many at once, and so many a second in the long run.
const WRONG: Rate = Rate::new(10, 1.0 / 30.0);
/// Wrong tokens that are written to the audit log, of all addresses: strangers do not fill it.
const WRONG_TOLD: Rate = Rate::new(20, 1.0 / 60.0);
/// Addresses that are remembered for it.
const ADDRESSES_MAX: usize = 4096;
/// A token's use is written down once in so long.
const USED_EVERY_MS: u64 = 60_000;

/// Counts wrong tokens.
pub(super) struct Gate {
    wrong: Mutex<(Buckets<Subnet>, Buckets<()>)>,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { wrong: Mutex::new((Buckets::new(WRONG, ADDRESSES_MAX), Buckets::new(WRONG_TOLD, 1))) }
    }
}

impl Gate {
    /// Whether somebody at this address may show a token now.
    fn check(&self, from: Subnet, now: Instant) -> Result<(), ApiError> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.0.wait(&from, 1.0, now).map_or(Ok(()), |wait| Err(ApiError::TooMany(wait)))
    }

    /// A wrong one was shown; whether it is to be written down.
    fn count(&self, from: Subnet, now: Instant) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        // It was asked for before: at most the last of several at once finds nothing left.
        let _ = wrong.0.take(from, 1.0, now);
        wrong.1.take((), 1.0, now).is_ok()
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The token.
    pub token: TokenRecord,
    /// From which address.
    pub from: IpAddr,
    /// The cookie's secret, where it is a page.
    pub session: Option<String>,
}

impl Caller {
    /// As orders and the audit log have it.
    pub fn giver(&self) -> Giver {
        Giver { name: self.token.name.clone(), from: self.from.to_string() }
    }

    /// An entry of the audit log.
    pub fn did(&self, action: &str, subject: &str, outcome: &str) -> Note {
        Note::Audit(self.giver().record(wall_now(), action, subject, outcome))
    }
}

/// Where a request comes from.
pub(super) struct From(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for From {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(From(address(parts)))
    }
}

/// Whoever has a good token.
pub(super) struct Viewer(pub Caller);

/// Whoever has an operator's.
pub(super) struct Operator(pub Caller);

impl FromRequestParts<Arc<Admin>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, ApiError> {
        let from = address(parts);
        if let Some(shown) = bearer(&parts.headers) {
            let token = admin.token(shown, from).await?;
            return Ok(Viewer(Caller { token, from, session: None }));
        }
        let cookie = cookie(&parts.headers).ok_or(ApiError::NoToken)?;
        let (hash, csrf) = admin.sessions.get(&cookie, wall_now()).ok_or(ApiError::NoToken)?;
        let token = admin.known(hash).await?.ok_or(ApiError::BadToken)?;
        let shown = parts.headers.get(CSRF).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if parts.method != Method::GET && !token::same(token::hash(shown), token::hash(&csrf)) {
            return Err(ApiError::NoCsrf);
        }
        Ok(Viewer(Caller { token, from, session: Some(cookie) }))
    }
}

impl FromRequestParts<Arc<Admin>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, ApiError> {
        let Viewer(caller) = Viewer::from_request_parts(parts, admin).await?;
        if caller.token.role == Access::Operator {
            return Ok(Operator(caller));
        }
        let refused = caller.did("refused", parts.uri.path(), "a viewer's token");
        admin.context.ledger.note(&[refused]).await?;
        Err(ApiError::ViewerOnly)
    }
}

impl Admin {
    /// The token that is shown, if it is good. Wrong ones count against the address.
    pub(super) async fn token(&self, shown: &str, from: IpAddr) -> Result<TokenRecord, ApiError> {
        let (subnet, now) = (Subnet::of(from), Instant::now());
        self.gate.check(subnet, now)?;
        let known = match token::has_form(shown) {
            true => self.known(token::hash(shown)).await?,
            false => None,
        };
        if let Some(known) = known {
            return Ok(known);
        }
        if self.gate.count(subnet, now) {
            let nobody = Giver { name: "nobody".into(), from: from.to_string() };
            let entry = nobody.record(wall_now(), "login", "", "refused: a wrong token");
            self.context.ledger.note(&[Note::Audit(entry)]).await?;
        }
        Err(ApiError::BadToken)
    }

    /// The token of a hash, if it is good; its use is written down.
    async fn known(&self, hash: [u8; 32]) -> Result<Option<TokenRecord>, LedgerError> {
        let (desk, now) = (&self.context.ledger, wall_now());
        let found = desk.token(hash).await?.filter(|token| token::same(token.hash, hash) && token.is_good(now));
        let used = found
            .as_ref()
            .filter(|token| token.used_at.is_none_or(|at| now.unix_ms.saturating_sub(at.unix_ms) >= USED_EVERY_MS));
        if let Some(token) = used
            && let Err(error) = desk.note(&[Note::TokenUsed { name: token.name.clone(), at: now }]).await
        {
            // It is good all the same; a disk without room is no reason to lock operators out.
            tracing::warn!(%error, "a token's use is not written down");
        }
        Ok(found)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned()).next()
}

/// Where the request comes from. This server listens on loopback only, so whoever is before it is a proxy of this
/// computer: it tells, last of all, whom it has it from.
fn address(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let told = parts.headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let told = told.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
    told.or(peer).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// How a token is shown, for the document.
pub(super) struct Scheme;

impl Modify for Scheme {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn wrong_tokens_are_counted_by_address() {
        let (gate, now) = (Gate::default(), Instant::now());
        let [bad, other] = [1, 2].map(|n| Subnet::of([192, 0, 2, n].into()));
        let counted = (0..100).filter(|_| gate.check(bad, now).is_ok() && gate.count(bad, now)).count();
        assert_eq!(counted, 10);
        assert!(matches!(gate.check(bad, now), Err(ApiError::TooMany(wait)) if wait > Duration::from_secs(20)));
        gate.check(other, now).unwrap();
        gate.check(bad, now + Duration::from_secs(31)).unwrap();
    }

    #[test]
    fn what_a_request_shows_is_read_as_it_is_meant() {
        let mut headers = HeaderMap::new();
        assert_eq!((bearer(&headers), cookie(&headers)), (None, None));
        headers.insert(header::AUTHORIZATION, "bearer  nightjar_1 ".parse().unwrap());
        headers.append(header::COOKIE, "theme=dark; other_nightjar_session=1".parse().unwrap());
        headers.append(header::COOKIE, "nightjar_session=abc; x=y".parse().unwrap());
        assert_eq!((bearer(&headers), cookie(&headers).as_deref()), (Some("nightjar_1"), Some("abc")));
        headers.insert(header::AUTHORIZATION, "Basic nightjar_1".parse().unwrap());
        assert_eq!(bearer(&headers), None);
    }
}
