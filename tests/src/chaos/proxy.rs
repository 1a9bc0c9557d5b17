//! A TCP proxy that can be slow, cut what it carries, and refuse to carry anything.
//!
//! Called by [`super::servers`]: one before Kafka, one before PostgreSQL, one between PostgreSQL and
//! its standby.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes carried at once.
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, Debug)]
struct Way {
    target: SocketAddr,
    latency: Duration,
    refuses: bool,
}

/// A proxy; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    way: Arc<Mutex<Way>>,
    cut: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of 127.0.0.1 (0 = any) and forwards to `target`.
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn start(port: u16, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("the proxy cannot listen on port {port}"))?;
        let port = listener.local_addr()?.port();
        let way = Arc::new(Mutex::new(Way {
            target,
            latency: Duration::ZERO,
            refuses: false,
        }));
        let (cut, cuts) = watch::channel(0);
        let task = tokio::spawn(accept(listener, Arc::clone(&way), cuts));
        Ok(Self {
            port,
            way,
            cut,
            task,
        })
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Delays every piece of data by so much from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// Cuts every connection and takes no new one, until told otherwise.
    pub fn set_refusing(&self, refuses: bool) {
        self.lock().refuses = refuses;
        if refuses {
            self.cut();
        }
    }

    /// Forwards to another server from now on; what was open is cut.
    pub fn set_target(&self, target: SocketAddr) {
        self.lock().target = target;
        self.cut();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, way: Arc<Mutex<Way>>, cuts: watch::Receiver<u64>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Too many open files, say: a moment later there may be fewer.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let now = *way.lock().unwrap_or_else(PoisonError::into_inner);
        if !now.refuses {
            tokio::spawn(carry(client, now.target, Arc::clone(&way), cuts.clone()));
        }
    }
}

async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    way: Arc<Mutex<Way>>,
    mut cuts: watch::Receiver<u64>,
) -> std::io::Result<()> {
    cuts.borrow_and_update();
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            _ = forward(&mut from_client, &mut to_server, &way) => {}
            _ = forward(&mut from_server, &mut to_client, &way) => {}
            _ = cuts.changed() => {}
        }
    }
    // A reset, as a firewall sends it, not an orderly end.
    client.set_zero_linger()?;
    server.set_zero_linger()
}

async fn forward(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    way: &Mutex<Way>,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let latency = way.lock().unwrap_or_else(PoisonError::into_inner).latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}
