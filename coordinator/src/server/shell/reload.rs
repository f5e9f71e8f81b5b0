//! Another run spec while the run is served: what may change in a run that exists is written down, and then holds.
//! Devices learn it at their next hello, as after a restart.

use super::{Shell, ShellError, leases_of_device};
use crate::engine::event::Event;
use nightjar_shared::run_spec::RunSpec;
use std::sync::Arc;

impl Shell {
    /// Takes a run spec over: what of it is changed, in words, or why not.
    pub(super) async fn reload(&mut self, spec: RunSpec) -> Result<Result<Vec<String>, String>, ShellError> {
        let changes = match self.parts.spec.changed_to(&spec) {
            Ok(changes) if changes.is_empty() => return Ok(Ok(vec![])),
            Ok(changes) => changes.iter().map(ToString::to_string).collect(),
            Err(fixed) => return Ok(Err(fixed.to_string())),
        };
        // Cannot fail: it is plain data.
        let spec_json = serde_json::to_string(&spec).unwrap_or_default();
        match self.parts.ledger.change_spec(&spec_json).await {
            Ok(()) => {}
            Err(error) if error.may_pass() => return Ok(Err(format!("{error}; ask again later"))),
            Err(error) => return Err(error.into()),
        }
        self.leases = leases_of_device(&spec);
        self.parts.keep.send_replace(spec.keep.clone());
        self.parts.spec = Arc::new(spec.clone());
        self.decide(Event::SpecChanged(Box::new(spec)));
        Ok(Ok(changes))
    }
}
