//! A process full of devices. They come from many addresses of the loopback network, so that what the coordinator
//! bounds by address stays as it is for real ones.

use crate::{
    device::{self, Blobs, Shared},
    orders::Order,
};
use anyhow::{Context, Result};
use clap::Args;
use nightjar_agent::{identity::Identity, link::Dialer, membership::Membership};
use nightjar_shared::disk::FolderDisk;
use quinn::Endpoint;
use std::{
    io::{BufRead, Write},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

/// Devices behind one socket, which has an address of its own.
const DEVICES_A_SOCKET: usize = 250;

/// Devices that are on their way to their first lease at once: of more, some would be given up on a busy machine.
const JOINING_MAX: usize = 50;

/// Which part of the devices it is.
#[derive(Args)]
pub struct Options {
    /// Its number: addresses and keys follow from it.
    #[arg(long)]
    number: u8,
    /// Where the coordinator listens.
    #[arg(long)]
    to: SocketAddr,
    /// Where blobs are kept.
    #[arg(long)]
    blobs: PathBuf,
    /// Devices that begin each second, so that none waits for its handshake in vain.
    #[arg(long)]
    new_a_second: u32,
    /// Invites, as links.
    invites: Vec<String>,
}

/// Does what it is told on stdin until that ends.
pub fn run(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(obey(options))
}

async fn obey(options: Options) -> Result<()> {
    let (orders, mut told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if orders.send(serde_json::from_str::<Order>(&line)).is_err() {
                return;
            }
        }
    });
    let shared = Arc::new(Shared::new(Blobs::new(FolderDisk::open(&options.blobs)?)));
    let (wanted, wants) = watch::channel(0);
    let crowd = Crowd { options, shared: shared.clone(), endpoints: vec![], devices: 0 };
    let mut connecting = tokio::spawn(crowd.connect(wants));
    loop {
        let order = tokio::select! {
            order = told.recv() => order,
            ended = &mut connecting => return ended?,
        };
        match order.transpose().context("an order that is none")? {
            None => return Ok(()),
            Some(Order::Connect(devices)) => drop(wanted.send_replace(devices)),
            Some(Order::Work { devices, think_us }) => {
                shared.think_us.store(think_us, Ordering::Relaxed);
                shared.at_work.send_replace(devices);
            }
            Some(Order::Report) => {
                let mut out = std::io::stdout().lock();
                serde_json::to_writer(&mut out, &shared.report())?;
                out.write_all(b"\n")?;
                out.flush()?;
            }
        }
    }
}

struct Crowd {
    options: Options,
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    devices: usize,
}

impl Crowd {
    /// Starts devices, a few at a time, as many as are wanted.
    async fn connect(mut self, mut wants: watch::Receiver<usize>) -> Result<()> {
        let mut due = tokio::time::interval(Duration::from_secs(1) / self.options.new_a_second.max(1));
        loop {
            while self.devices < *wants.borrow_and_update() {
                due.tick().await;
                while self.devices >= self.shared.connected() + JOINING_MAX {
                    sleep(Duration::from_millis(10)).await;
                }
                self.start_one()?;
            }
            if wants.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    fn start_one(&mut self) -> Result<()> {
        let number = self.devices;
        self.devices += 1;
        let socket = number / DEVICES_A_SOCKET;
        if socket == self.endpoints.len() {
            let address = Ipv4Addr::new(127, 1 + self.options.number, (socket >> 8) as u8, 1 + socket as u8);
            self.endpoints.push(Endpoint::client((address, 0).into())?);
        }
        let invites = &self.options.invites;
        let invite = invites.get(number % invites.len().max(1)).context("no invite")?;
        let unix_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64);
        let member = Membership::from_link(invite, "load", unix_ms)?;
        let identity = Identity::generate()?;
        let dialer = Dialer::new(&identity, &member.invite)?;
        let profile = device::profile(identity.device(), &member);
        let way = device::Way { dialer, endpoint: self.endpoints[socket].clone(), to: self.options.to };
        tokio::spawn(device::run(number, profile, way, self.shared.clone()));
        Ok(())
    }
}
