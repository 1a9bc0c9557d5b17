//! What a PostgreSQL says that is stopping, starting, recovering or crashing (57P01, 57P02, 57P03), from
//! one that really does: all of it is the environment's.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use event_log::fault::sqlstate;
use event_log::{FaultClass, classify};
use sqlx::PgConnection;
use support::private_server::{PrivateServer, send};

fn assert_environments(error: &sqlx::Error) {
    assert_eq!(classify(error), FaultClass::Environment, "{error}");
}

async fn ask(session: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(session)
        .await
}

/// A server with one session, and no container's: what is done here needs its processes.
fn server() -> Option<PrivateServer> {
    let server = PrivateServer::new();
    if server.is_none() {
        eprintln!("no PostgreSQL programs on this machine: not tested");
    }
    server
}

#[tokio::test]
async fn a_server_that_is_stopping_or_starting_is_the_environments() {
    let Some(mut server) = server() else { return };
    server.start(&[]);
    let mut session = server
        .connect_until(None, assert_environments)
        .await
        .unwrap();
    // No new sessions while this one is open.
    server.signal("TERM");
    server
        .connect_until(Some("57P03"), assert_environments)
        .await;
    ask(&mut session).await.unwrap();
    server.signal("INT");
    server.wait_stopped();
    let error = ask(&mut session).await.unwrap_err();
    assert_environments(&error);
    let code = sqlstate(&error);
    assert!(matches!(code.as_deref(), Some("57P01") | None), "{error}");
    assert_environments(&server.connect().await.unwrap_err());
    // A standby that answers nobody, as one that is still recovering.
    server.become_standby();
    server.start(&["hot_standby=off"]);
    server
        .connect_until(Some("57P03"), assert_environments)
        .await;
}

#[tokio::test]
async fn a_server_that_crashes_and_recovers_is_the_environments() {
    let Some(mut server) = server() else { return };
    server.start(&[]);
    let mut session = server
        .connect_until(None, assert_environments)
        .await
        .unwrap();
    let mut victim = server.connect().await.unwrap();
    let backend = ask(&mut victim).await.unwrap();
    // The server ends all other sessions, too (57P02), since that one may have damaged its memory.
    send("KILL", &backend.to_string());
    let mut ended = None;
    while ended.is_none() {
        ended = ask(&mut session).await.err();
    }
    assert_environments(&ended.unwrap());
    assert_environments(&ask(&mut victim).await.unwrap_err());
    let mut again = server
        .connect_until(None, assert_environments)
        .await
        .unwrap();
    ask(&mut again).await.unwrap();
}
