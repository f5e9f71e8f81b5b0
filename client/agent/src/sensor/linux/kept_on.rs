//! For desktops that do not tell which windows cover the screen: whether a program keeps the screen from going dark, as
//! players of films and games do. That it does, is taken for a full screen; that none does, proves nothing.

use super::bus;
use crate::{policy::Reading, sensor::readings::Reporter};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(5);
/// GNOME's flag for "the session must not be taken for idle".
const IDLE: u32 = 8;

/// Asks GNOME's session manager or the freedesktop.org power manager until that fails; returns why.
pub async fn kept_on(address: Option<String>, reporter: Reporter<bool>) -> String {
    let Some(address) = address else { return "there is no session bus".into() };
    watch(&address, &reporter).await.err().unwrap_or_else(bus::gone)
}

async fn watch(address: &str, reporter: &Reporter<bool>) -> Result<(), String> {
    let bus = bus::connect(address).await?;
    let gnome_name = "org.gnome.SessionManager";
    let gnome = bus::proxy(&bus, gnome_name, "/org/gnome/SessionManager", gnome_name).await?;
    let other_name = "org.freedesktop.PowerManagement.Inhibit";
    let other = bus::proxy(&bus, other_name, "/org/freedesktop/PowerManagement/Inhibit", other_name).await?;
    loop {
        let kept_on = match bus::call(&gnome, "IsInhibited", &IDLE).await {
            Ok(inhibited) => inhibited,
            Err(_) => bus::call(&other, "HasInhibit", &()).await?,
        };
        if kept_on {
            reporter.says_for(Reading::Known(true), EVERY * 6);
        } else {
            reporter.passes("the desktop tells nobody which windows cover the screen");
        }
        tokio::time::sleep(EVERY).await;
    }
}
