//! D-Bus, as the sensors use it: every call has a time limit, an object's changes are a stream, and one that loses its
//! owner ends the source that asks it.

use futures_util::StreamExt;
use std::time::Duration;
use zbus::{
    Connection, Proxy,
    fdo::{PropertiesChangedStream, PropertiesProxy},
    proxy::{CacheProperties, OwnerChangedStream},
    zvariant::{OwnedValue, Type},
};

/// A service must answer within this time; starting it may be part of it.
const LIMIT: Duration = Duration::from_secs(2);

/// Waits for a D-Bus operation, at most [`LIMIT`].
pub async fn within<T>(operation: impl Future<Output = zbus::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, operation).await {
        Ok(result) => result.map_err(|e| brief(&e)),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// The bus at an address.
pub async fn connect(address: &str) -> Result<Connection, String> {
    within(async { zbus::connection::Builder::address(address)?.max_queued(16).build().await }).await
}

/// An interface of an object.
pub async fn proxy(
    bus: &Connection,
    name: &'static str,
    path: &str,
    interface: &'static str,
) -> Result<Proxy<'static>, String> {
    let build = async {
        let builder = zbus::proxy::Builder::new(bus).destination(name)?.path(path.to_owned())?.interface(interface)?;
        builder.cache_properties(CacheProperties::No).build().await
    };
    within(build).await
}

/// Calls a method.
pub async fn call<B, R>(proxy: &Proxy<'_>, method: &'static str, arguments: &B) -> Result<R, String>
where
    B: serde::ser::Serialize + zbus::zvariant::DynamicType,
    R: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
{
    within(proxy.call::<_, _, R>(method, arguments)).await
}

/// An object whose properties are watched.
pub struct Watched {
    proxy: Proxy<'static>,
    changes: PropertiesChangedStream,
    owner: OwnerChangedStream<'static>,
}

impl Watched {
    /// Watches an object.
    pub async fn new(
        bus: &Connection,
        name: &'static str,
        path: &'static str,
        interface: &'static str,
    ) -> Result<Self, String> {
        let proxy = proxy(bus, name, path, interface).await?;
        let owner = within(proxy.receive_owner_changed()).await?;
        let properties =
            within(async { PropertiesProxy::builder(bus).destination(name)?.path(path)?.build().await }).await?;
        let changes = within(properties.receive_properties_changed()).await?;
        Ok(Watched { proxy, changes, owner })
    }

    /// A property's value now.
    pub async fn get<T>(&self, property: &'static str) -> Result<T, String>
    where
        T: TryFrom<OwnedValue> + Type,
        T::Error: Into<zbus::Error>,
    {
        within(self.proxy.get_property(property)).await
    }

    /// Waits until a property may have changed; fails when the service has gone.
    pub async fn changed(&mut self) -> Result<(), String> {
        loop {
            tokio::select! {
                change = self.changes.next() => return change.map(|_| ()).ok_or_else(gone),
                owner = self.owner.next() => match owner {
                    Some(Some(_)) => {}
                    Some(None) | None => return Err("it went away".into()),
                },
            }
        }
    }
}

/// What is said of a bus that closed.
pub fn gone() -> String {
    "the bus was closed".into()
}

/// An error in one short line: the words in it come from another process.
fn brief(error: &zbus::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(160).collect()
}
