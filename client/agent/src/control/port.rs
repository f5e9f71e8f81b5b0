//! Where the control API listens: the same port at each start of an installation, so that a bookmark of its page leads
//! there still. Who may come in is another matter: the token is new at each start.

use nightjar_shared::{disk::Disk, rng};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};
use tokio::net::TcpListener;

/// The file that remembers the port, in the home folder.
pub(crate) const PORT_FILE: &str = "page-port";
/// The first port is drawn from these: systems give none of them to outgoing connections, which could hold it at the
/// next start.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// So many are tried before the system chooses.
const DRAWS_MAX: u64 = 16;

/// A listening socket, and what there is to say of it.
pub(super) struct Opened {
    pub listener: TcpListener,
    /// Why it is not where it was the last time.
    pub moved: Option<String>,
}

/// Opens the remembered port; at the first start one drawn with `seed`, which is remembered. Another takes its place
/// for as long as this process runs where it is taken.
pub(super) async fn open(disk: &dyn Disk, seed: u64) -> io::Result<Opened> {
    let Some(usual) = remembered(disk) else {
        let listener = draw(seed).await?;
        remember(disk, listener.local_addr()?.port());
        return Ok(Opened { listener, moved: None });
    };
    match bind(usual).await {
        Ok(listener) => Ok(Opened { listener, moved: None }),
        Err(taken) => {
            let listener = draw(seed).await?;
            let now = listener.local_addr()?.port();
            let moved = format!(
                "the page's usual port {usual} cannot be had ({taken}), so until the next start the page is at port {now}; \
                 `nightjar open` opens it"
            );
            Ok(Opened { listener, moved: Some(moved) })
        }
    }
}

async fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}

async fn draw(seed: u64) -> io::Result<TcpListener> {
    for n in 0..DRAWS_MAX {
        let port = PORTS.start + rng::below(seed, rng::stream::JITTER, n, PORTS.len() as u64) as u16;
        if let Ok(listener) = bind(port).await {
            return Ok(listener);
        }
    }
    bind(0).await
}

/// What is damaged is drawn anew.
fn remembered(disk: &dyn Disk) -> Option<u16> {
    let bytes = disk.read_at(PORT_FILE, 0, 8).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok().filter(|port| *port >= 1024)
}

fn remember(disk: &dyn Disk, port: u16) {
    if let Err(e) = disk.write(PORT_FILE, format!("{port}\n").as_bytes()) {
        tracing::warn!("the page's port cannot be remembered ({e}); the next start has another");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightjar_shared::disk::FolderDisk;

    fn port(opened: &Opened) -> u16 {
        opened.listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn an_installation_keeps_its_port_and_gives_way_where_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(folder.path()).unwrap();
        let first = open(&disk, 7).await.unwrap();
        let usual = port(&first);
        assert!(first.moved.is_none() && PORTS.contains(&usual));

        // Another installation beside it, or whatever program: both go on, and the one that gives way says so.
        let beside = open(&disk, 7).await.unwrap();
        assert_ne!(port(&beside), usual);
        let moved = beside.moved.clone().unwrap();
        assert!(moved.contains(&usual.to_string()) && moved.contains(&port(&beside).to_string()), "{moved}");
        drop((first, beside));

        let again = open(&disk, 8).await.unwrap();
        assert!(port(&again) == usual && again.moved.is_none(), "what was taken once is tried again");
        drop(again);
        for nonsense in ["", "x", "80", "99999", "-1"] {
            disk.write(PORT_FILE, nonsense.as_bytes()).unwrap();
            let opened = open(&disk, 7).await.unwrap();
            assert!(opened.moved.is_none() && remembered(&disk) == Some(port(&opened)), "{nonsense}");
        }
    }
}
