//! A network that loses a commit's answer: forwards to PostgreSQL, and cuts a connection around its
//! COMMIT when told to.

use std::sync::{Arc, Mutex};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Where to cut the connection that sends the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The COMMIT does not reach the server.
    BeforeCommit,
    /// The COMMIT is sent, and the connection ends at once.
    AfterCommitIsSent,
    /// The server has committed; its answer does not reach the client.
    BeforeAnswer,
}

/// A running proxy; it ends with the process.
pub struct Proxy {
    port: u16,
    cut: Arc<Mutex<Option<Cut>>>,
}

impl Proxy {
    /// Starts a proxy before the server of `options`.
    pub async fn start(options: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(Mutex::new(None));
        let server = (options.get_host().to_owned(), options.get_port());
        let armed = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, armed) = (server.clone(), armed.clone());
                tokio::spawn(async move {
                    // An end of either connection ends both: that is all a network failure is.
                    let server = TcpStream::connect(server).await?;
                    forward(client, server, &armed).await
                });
            }
        });
        Self { port, cut }
    }

    /// The same database, through the proxy and in plain text.
    pub fn options(&self, direct: &PgConnectOptions) -> PgConnectOptions {
        direct
            .clone()
            .host("127.0.0.1")
            .port(self.port)
            .ssl_mode(PgSslMode::Disable)
    }

    /// Cuts the connection of the next COMMIT, once.
    pub fn cut_next_commit(&self, cut: Cut) {
        *self.cut.lock().unwrap() = Some(cut);
    }

    /// Takes the order back; whether it was still to be carried out.
    pub fn disarm(&self) -> bool {
        self.cut.lock().unwrap().take().is_some()
    }
}

async fn forward(
    mut client: TcpStream,
    mut server: TcpStream,
    armed: &Mutex<Option<Cut>>,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let to_server = async {
        // The first message has no type.
        let length = from_client.read_u32().await?;
        to_server.write_u32(length).await?;
        copy(&mut from_client, &mut to_server, length).await?;
        loop {
            let kind = from_client.read_u8().await?;
            let length = from_client.read_u32().await?;
            let mut message = vec![kind];
            message.extend(length.to_be_bytes());
            message.resize(length as usize + 1, 0);
            from_client.read_exact(&mut message[5..]).await?;
            let commits = kind == b'Q' && message[5..].starts_with(b"COMMIT");
            let cut = if commits {
                armed.lock().unwrap().take()
            } else {
                None
            };
            if cut == Some(Cut::BeforeCommit) {
                return Ok(None);
            }
            to_server.write_all(&message).await?;
            if cut.is_some() {
                return Ok(cut);
            }
        }
    };
    let to_client = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        Ok(None)
    };
    let cut: std::io::Result<Option<Cut>> = tokio::select! {
        cut = to_server => cut,
        ended = to_client => ended,
    };
    if cut? == Some(Cut::BeforeAnswer) {
        from_server.read_u8().await?;
    }
    Ok(())
}

/// Copies the rest of a message: its length counts itself.
async fn copy(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, length: u32) -> std::io::Result<()> {
    let mut rest = vec![0; length.saturating_sub(4) as usize];
    from.read_exact(&mut rest).await?;
    to.write_all(&rest).await
}
