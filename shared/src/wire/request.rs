//! What a device's request may hold, checked once where it comes in: nothing of it is kept before.

use super::{
    Hello, LeaseRequest, Refusal, RefusalAction, RefusalCode,
    device_message::Body,
    limits::{CAPABILITIES_MAX, SHARDS_NAMED_MAX},
};

/// Refuses a request whose lists are longer than the table of limits allows.
pub fn check(body: &Body) -> Result<(), Refusal> {
    let too_many = match body {
        Body::Hello(Hello { codecs, kinds, .. }) if codecs.len().max(kinds.len()) > CAPABILITIES_MAX => "capabilities",
        Body::LeaseRequest(LeaseRequest { shards, .. }) if shards.len() > SHARDS_NAMED_MAX => "shards",
        _ => return Ok(()),
    };
    let sentence = format!("The request names more {too_many} than a message may.");
    Err(Refusal::with(RefusalCode::Limit, RefusalAction::Stop, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_refused_and_those_of_the_bound_are_not() {
        let lease = |n| Body::LeaseRequest(LeaseRequest { shards: vec![vec![]; n], ..LeaseRequest::default() });
        let hello = |n| Body::Hello(Hello { codecs: vec![1; n], kinds: vec![1; n], ..Hello::default() });
        check(&lease(SHARDS_NAMED_MAX)).unwrap();
        check(&hello(CAPABILITIES_MAX)).unwrap();
        for body in [lease(SHARDS_NAMED_MAX + 1), hello(CAPABILITIES_MAX + 1)] {
            assert_eq!(check(&body).unwrap_err().code(), RefusalCode::Limit);
        }
    }
}
