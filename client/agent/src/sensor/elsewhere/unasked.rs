//! Systems that this version cannot ask: the app around it has to tell (`HostFed`), or the owner waives the question.

use crate::{
    policy::{Power, Reading},
    sensor::readings::Readings,
};
use std::time::Duration;

pub const NAME: &str = "this system";

fn unknown<T>() -> Reading<T> {
    Reading::Unknown("this version cannot ask this system".into())
}

pub fn idle() -> Reading<Duration> {
    unknown()
}

pub fn power() -> Reading<Power> {
    unknown()
}

pub fn full_screen() -> Reading<bool> {
    unknown()
}

pub fn listen_for_sleep(_: std::sync::Arc<Readings>) {}

pub fn metered() -> Reading<bool> {
    unknown()
}
