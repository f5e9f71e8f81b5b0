//! A welcome, read once: which run it is, and what the run asks of a device. One that cannot be read is damaged, or is
//! of a run that a newer program understands; the owner is told which.

use nightjar_shared::{
    ids::RunId,
    run_spec::{RunSpec, RunSpecError},
    wire::Welcome,
};
use serde_json::error::Category;

/// The key of now and the spare; room for what a later coordinator may want.
const PINS_MAX: usize = 4;

/// Why a run cannot be taken part in. The sentence is the owner's.
#[derive(Debug, thiserror::Error)]
pub enum BadWelcome {
    /// It has no run's id.
    #[error("the coordinator names no run; its operator has to look at it")]
    NoRun,
    /// No program of any version reads it.
    #[error("the coordinator's run spec is damaged ({0}); its operator has to look at it")]
    Damaged(#[source] serde_json::Error),
    /// It has keys or words that this version does not know.
    #[error("this run needs a newer nightjar: its run spec is not understood ({0}); upgrade, then start again")]
    Newer(#[source] serde_json::Error),
    /// It asks for what this version does not do.
    #[error("this nightjar cannot train this run ({0}); upgrade, then start again")]
    Unfit(#[from] RunSpecError),
}

/// The run's id and its spec.
pub fn read(welcome: &Welcome) -> Result<(RunId, RunSpec), BadWelcome> {
    let id = RunId::from_bytes(&welcome.run_id).ok_or(BadWelcome::NoRun)?;
    Ok((id, parse_spec(&welcome.run_spec_json)?))
}

/// The keys that the device is to pin from now on. `None` where it is told none, or what makes no sense: then it keeps
/// its own, which have just been good.
pub(crate) fn pins(welcome: &Welcome) -> Option<Vec<[u8; 32]>> {
    let keys = welcome.public_keys.iter().take(PINS_MAX + 1).map(|key| key.as_slice().try_into().ok());
    let keys = keys.collect::<Option<Vec<[u8; 32]>>>()?;
    (1..=PINS_MAX).contains(&keys.len()).then_some(keys)
}

/// A run spec as a welcome or a journal has it.
pub(crate) fn parse_spec(json: &str) -> Result<RunSpec, BadWelcome> {
    let spec: RunSpec = serde_json::from_str(json).map_err(|error| match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => BadWelcome::Damaged(error),
        Category::Data => BadWelcome::Newer(error),
    })?;
    spec.validate()?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_spec_is_told_apart_from_a_newer_one() {
        let read = |run_spec_json: &str| {
            let welcome = Welcome { run_id: vec![1; 32], run_spec_json: run_spec_json.into(), ..Welcome::default() };
            read(&welcome).map(|(id, spec)| (id, spec.name))
        };
        let known = r#"{"name": "x", "token_budget": 1000}"#;
        assert_eq!(read(known).unwrap(), (RunId([1; 32]), "x".to_owned()));
        assert!(matches!(read(&known[..20]), Err(BadWelcome::Damaged(_))));
        assert!(matches!(read(""), Err(BadWelcome::Damaged(_))));
        let newer = known.replacen('{', r#"{"a_key_of_tomorrow": 1, "#, 1);
        assert!(matches!(read(&newer), Err(BadWelcome::Newer(_))));
        let newer = known.replacen('{', r#"{"merge": {"rule": "of_tomorrow"}, "#, 1);
        assert!(matches!(read(&newer), Err(BadWelcome::Newer(_))));
        assert!(matches!(read(&known.replace("1000", "0")), Err(BadWelcome::Unfit(_))));
        assert!(matches!(super::read(&Welcome::default()), Err(BadWelcome::NoRun)));
    }

    #[test]
    fn keys_that_make_no_sense_change_nothing() {
        let told = |lengths: &[usize]| {
            let public_keys = lengths.iter().map(|bytes| vec![7; *bytes]).collect();
            pins(&Welcome { public_keys, ..Welcome::default() }).map(|keys| keys.len())
        };
        assert_eq!((told(&[32]), told(&[32, 32])), (Some(1), Some(2)));
        for nonsense in [&[][..], &[31], &[32, 33], &[32, 0], &[32; PINS_MAX + 1]] {
            assert_eq!(told(nonsense), None, "{nonsense:?}");
        }
    }
}
