//! HTTP for the object store's client: hyper, with TLS by ring and the system's roots.

use http_body_util::BodyExt;
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector as Connector},
    rt::{TokioExecutor, TokioTimer},
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{error::Error as _, io, pin::Pin, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long the store may take to be reached.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long it may take to answer, once it has what was sent.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a connection that nobody uses is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A client that reaches servers without TLS, and with it unless `is_plain`.
pub fn client<B>(is_plain: bool) -> io::Result<Client<HttpsConnector<Connector>, B>>
where
    B: Body + Send,
    B::Data: Send,
{
    let builder = HttpsConnectorBuilder::new();
    let builder = if is_plain {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        builder.with_tls_config(tls.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    } else {
        builder.with_provider_and_native_roots(ring::default_provider())?
    };
    // Whether a server may be reached without TLS was asked before; a machine's role has its keys from beside it.
    let builder = builder.https_or_http().enable_http1();
    let mut connector = Connector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_MAX));
    let mut pool = Client::builder(TokioExecutor::new());
    let pool = pool.pool_idle_timeout(IDLE_MAX).pool_timer(TokioTimer::new());
    Ok(pool.build(builder.wrap_connector(connector)))
}

/// See the module. Clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpsConnector<Connector>, HttpRequestBody>,
}

impl Http {
    /// For a store that is reached without TLS, or with it.
    pub fn new(is_plain: bool) -> io::Result<Self> {
        Ok(Http { client: client(is_plain)? })
    }
}

impl HttpConnector for Http {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Http {
    fn call<'a, 'c>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>
    where
        'a: 'c,
    {
        Box::pin(async move {
            let answer = timeout(ANSWER_MAX, self.client.request(request)).await;
            let answer = answer.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
            let (head, body) = answer.map_err(|error| HttpError::new(kind(&error), error))?.into_parts();
            let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
            Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
        })
    }
}

/// What a failed request was about: whether it may be sent again depends on it.
fn kind(error: &Error) -> HttpErrorKind {
    if error.is_connect() {
        return HttpErrorKind::Connect;
    }
    // All that is sent is as good when it is sent twice.
    match error.source() {
        Some(_) => HttpErrorKind::Interrupted,
        None => HttpErrorKind::Unknown,
    }
}
