//! The HTTP port of a process: /healthz (alive), /readyz (able to work, or why not) and
//! /metrics. Called by each main; reads [`Health`] and the metrics registry, writes nothing.
//!
//! The port may be reachable by strangers, so every connection is bounded: one request, a head
//! of at most [`MAX_HEAD`] bytes, [`CONNECTION_TIME`] in all, [`MAX_CONNECTIONS`] at once, of which
//! the oldest makes room for the next.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::metrics::{self, MetricsRegistry};

const MAX_HEAD: usize = 16 << 10;
const MAX_CONNECTIONS: usize = 64;
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// What answers under way get once the server is told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// The server could not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for health and metrics; set telemetry.listen to a free host:port"
)]
pub struct ListenError {
    /// The address that could not be bound.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub cause: io::Error,
}

/// A running server.
#[derive(Debug)]
pub struct ServerHandle {
    /// Where it listens; tells the port where port 0 was asked for.
    pub local_addr: SocketAddr,
    /// Ends soon after the shutdown token is cancelled.
    pub join: JoinHandle<()>,
}

/// Serves until `shutdown` is cancelled. Give it a token that outlives the drain, so that
/// /readyz can say "stopping" while the process stops.
///
/// # Errors
/// [`ListenError`] where the address cannot be bound.
pub async fn serve(
    listen: SocketAddr,
    registry: MetricsRegistry,
    health: Health,
    shutdown: CancellationToken,
) -> Result<ServerHandle, ListenError> {
    let failed = |cause| ListenError {
        address: listen,
        cause,
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    tracing::info!(address = %local_addr, "serving /healthz, /readyz and /metrics");
    let join = tokio::spawn(accept(listener, router(registry, health), shutdown));
    Ok(ServerHandle { local_addr, join })
}

fn router(registry: MetricsRegistry, health: Health) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(health))
        .route("/metrics", get(scrape).with_state(registry))
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    condition: String,
    reason: String,
}

async fn readyz(State(health): State<Health>) -> Response {
    let reasons = health.reasons().into_iter();
    let reasons: Vec<_> = reasons
        .map(|(condition, reason)| Reason { condition, reason })
        .collect();
    // Judged by the reasons that are shown, so that the answer cannot contradict itself.
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    match serde_json::to_string(&Readiness { ready, reasons }) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => internal(&error),
    }
}

async fn scrape(State(registry): State<MetricsRegistry>) -> Response {
    match metrics::render(&registry) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => internal(&error),
    }
}

fn internal(error: &dyn std::error::Error) -> Response {
    tracing::error!(%error, "cannot write an answer of the health and metrics port");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

async fn accept(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    // In the order in which they came.
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.retain(|connection| !connection.is_finished());
                    // A request takes milliseconds: the oldest is the likeliest to be no request. Waiting
                    // for it instead would let anybody who only connects keep a probe from its answer.
                    if open.len() == MAX_CONNECTIONS && let Some(oldest) = open.pop_front() {
                        oldest.abort();
                    }
                    open.push_back(connections.spawn(answer(stream, router.clone(), CONNECTION_TIME)));
                }
                Err(error) => {
                    // Most likely out of file descriptors: some will come back.
                    tracing::warn!(%error, "cannot accept a connection for health and metrics");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    // Those that need longer are aborted with the set.
    let _ = timeout(GRACE, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

/// One connection, one request. A client's failure is its own affair.
async fn answer(stream: TcpStream, router: Router, within: Duration) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(within)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        // A client that has nothing more to send still gets its answer; without this it depends on luck.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(within, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a health or metrics request failed"),
        Err(_) => tracing::debug!("a health or metrics request took too long"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::register_build_info;

    struct Server {
        handle: ServerHandle,
        health: Health,
        shutdown: CancellationToken,
    }

    async fn server() -> Server {
        let registry = MetricsRegistry::new();
        register_build_info(&registry, "test").unwrap();
        let (health, shutdown) = (Health::new(&["database"]), CancellationToken::new());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let handle = serve(any, registry, health.clone(), shutdown.clone())
            .await
            .unwrap();
        Server {
            handle,
            health,
            shutdown,
        }
    }

    /// Sends raw bytes and reads to the end of the connection.
    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A refusal may close the connection before all is written, or read.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(server: &Server, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        exchange(server.handle.local_addr, request.as_bytes()).await
    }

    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").unwrap().1
    }

    #[tokio::test]
    async fn healthz_answers_ok_whatever_the_readiness() {
        let answer = get(&server().await, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(body(&answer), "ok\n");
    }

    #[tokio::test]
    async fn readyz_is_503_with_reasons_until_every_condition_is_met() {
        let server = server().await;
        server.health.set_unready("database", "no connection");
        let answer = get(&server, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains("content-type: application/json\r\n"),
            "{answer}"
        );
        let reasons = r#"[{"condition":"database","reason":"no connection"}]"#;
        assert_eq!(
            body(&answer),
            format!(r#"{{"ready":false,"reasons":{reasons}}}"#)
        );

        server.health.set_ready("database");
        let answer = get(&server, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(body(&answer), r#"{"ready":true,"reasons":[]}"#);
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let answer = get(&server().await, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4\r\n"),
            "{answer}"
        );
        assert!(
            body(&answer).contains("runlog_build_info{component=\"test\""),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let server = server().await;
        assert!(get(&server, "/").await.starts_with("HTTP/1.1 404 "));
        assert!(
            get(&server, "/metrics/x")
                .await
                .starts_with("HTTP/1.1 404 ")
        );
        let mut post = b"POST /metrics HTTP/1.1\r\ncontent-length: 9999999\r\n\r\n".to_vec();
        post.resize(100_000, b'x');
        let address = server.handle.local_addr;
        assert!(
            exchange(address, &post[..60])
                .await
                .starts_with("HTTP/1.1 405 ")
        );
        let mut long = b"GET /healthz HTTP/1.1\r\nx: ".to_vec();
        long.resize(2 * MAX_HEAD, b'x');
        assert!(exchange(address, &long).await.starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_request_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: ")
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let router = router(MetricsRegistry::new(), Health::new(&[]));
        let dropped = answer(stream, router, Duration::from_millis(50));
        timeout(Duration::from_secs(5), dropped).await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_connection_makes_room_beyond_the_bound_and_only_that_one() {
        let server = server().await;
        let mut idle = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            idle.push(TcpStream::connect(server.handle.local_addr).await.unwrap());
        }
        let next = timeout(Duration::from_secs(5), get(&server, "/healthz"));
        assert!(next.await.unwrap().starts_with("HTTP/1.1 200 "));
        let oldest = timeout(Duration::from_secs(5), idle[0].read(&mut [0])).await;
        assert!(matches!(oldest, Ok(Ok(0) | Err(_))), "{oldest:?}");
        let second = &mut idle[1];
        second
            .write_all(b"GET /healthz HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        second.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_ends_the_server_although_a_client_hangs_on() {
        let server = server().await;
        let _hanging = TcpStream::connect(server.handle.local_addr).await.unwrap();
        // An answer to a later client: the hanging one has been accepted by now.
        assert!(get(&server, "/healthz").await.starts_with("HTTP/1.1 200 "));
        server.shutdown.cancel();
        timeout(Duration::from_secs(5), server.handle.join)
            .await
            .unwrap()
            .unwrap();
        assert!(TcpStream::connect(server.handle.local_addr).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_key() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let (registry, health) = (MetricsRegistry::new(), Health::new(&[]));
        let error = serve(address, registry, health, CancellationToken::new())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("telemetry.listen"), "{text}");
    }
}
