//! Sleep: logind announces it and waits, a few seconds at most, while somebody holds its delay inhibitor. The sensors
//! hold one, and hand it to the event loop when sleep is announced; sessions that come and go are told here, too.

use super::bus;
use crate::sensor::{SleepDelay, readings::Readings};
use futures_util::StreamExt;
use std::{sync::Arc, time::Duration};
use zbus::zvariant::OwnedFd;

/// Listens for ever, asking again where it fails.
pub async fn listen(address: String, readings: Arc<Readings>) {
    let mut back_off = Duration::from_secs(1);
    loop {
        let why = watch(&address, &readings, &mut back_off).await.err().unwrap_or_else(bus::gone);
        tracing::debug!("logind does not tell of sleep: {why}");
        // A sleep whose end nobody tells is over.
        set(&readings, false, None);
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(Duration::from_secs(60));
    }
}

async fn watch(address: &str, readings: &Arc<Readings>, back_off: &mut Duration) -> Result<(), String> {
    const NAME: &str = "org.freedesktop.login1";
    let bus = bus::connect(address).await?;
    let manager = bus::proxy(&bus, NAME, "/org/freedesktop/login1", "org.freedesktop.login1.Manager").await?;
    let mut owner = bus::within(manager.receive_owner_changed()).await?;
    let mut sleeps = bus::within(manager.receive_signal("PrepareForSleep")).await?;
    let mut come = bus::within(manager.receive_signal("SessionNew")).await?;
    let mut go = bus::within(manager.receive_signal("SessionRemoved")).await?;
    let inhibit = ("sleep", "Nightjar", "saves its training state", "delay");
    let delay: Option<OwnedFd> = bus::call(&manager, "Inhibit", &inhibit).await.ok();
    let sleeping = bus::within(manager.get_property::<bool>("PreparingForSleep")).await?;
    set(readings, sleeping, delay);
    *back_off = Duration::from_secs(1);
    loop {
        tokio::select! {
            announced = sleeps.next() => {
                let body = announced.ok_or_else(bus::gone)?.body();
                if body.deserialize::<bool>().map_err(|e| e.to_string())? {
                    readings.facts().sleeping = true;
                    readings.alarm();
                } else {
                    let delay = bus::call(&manager, "Inhibit", &inhibit).await.ok();
                    set(readings, false, delay);
                    readings.nudge();
                }
            }
            session = come.next() => { session.ok_or_else(bus::gone)?; readings.nudge(); }
            session = go.next() => { session.ok_or_else(bus::gone)?; readings.nudge(); }
            owner = owner.next() => if !matches!(owner, Some(Some(_))) { return Err("logind went away".into()) },
        }
    }
}

fn set(readings: &Readings, sleeping: bool, delay: Option<OwnedFd>) {
    let changed = {
        let mut facts = readings.facts();
        facts.sleep_delay = delay.map(|fd| SleepDelay { _inhibitor: Box::new(fd) });
        std::mem::replace(&mut facts.sleeping, sleeping) != sleeping
    };
    if changed {
        readings.alarm();
    }
}
