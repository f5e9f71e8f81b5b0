//! HTTP as this program needs it: answers of bounded length, certificates of the lab's own.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{io::Read, path::Path, sync::Arc, time::Duration};
use ureq::{
    Agent, Body,
    http::Response,
    tls::{Certificate, RootCerts, TlsConfig},
};

/// A connection that does not come about in so long does not.
const CONNECT: Duration = Duration::from_secs(20);
/// An answer that takes longer is none: an object may be 64 MiB, and a line slow.
const ANSWER: Duration = Duration::from_secs(600);
/// Of what a refusal says so much is told.
const WORDS_MAX: usize = 300;

/// A file that holds no certificate.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be used as the SuperLink's certificate: {why}; name the PEM file that its operator gave out")]
pub struct BadCertificate {
    path: String,
    why: String,
}

/// Asks over HTTP and HTTPS. Certificates are checked against `ca`, or else against those that this computer trusts.
pub fn agent(ca: Option<&Path>) -> Result<Agent, BadCertificate> {
    let roots: Vec<CertificateDer<'static>> = match ca {
        None => rustls_native_certs::load_native_certs().certs,
        Some(path) => {
            let bad = |why: String| BadCertificate { path: path.display().to_string(), why };
            let found = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
            let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
            if found.is_empty() {
                return Err(bad("it holds no certificate".into()));
            }
            found
        }
    };
    let roots: Vec<Certificate<'static>> = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(ANSWER));
    Ok(config.build().new_agent())
}

/// The body of an answer, up to so many bytes: a longer one is an error.
pub fn body(answer: Response<Body>, most: usize) -> std::io::Result<Vec<u8>> {
    let (mut bytes, most) = (vec![], most as u64);
    answer.into_body().into_reader().take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!("the answer is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// What a refusal says, on one line.
pub fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}
