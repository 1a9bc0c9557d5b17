//! Connecting, waiting and refusing, against servers that answer what a test wants.
#![allow(clippy::unwrap_used, clippy::panic)]
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn config(url: &str) -> DatabaseConfig {
    DatabaseConfig {
        url: Some(Secret::new(url)),
        url_source: Source::Environment("RUNLOG_DATABASE__URL".to_owned()),
        ..DatabaseConfig::default()
    }
}

fn config_at(listener: &TcpListener) -> DatabaseConfig {
    let port = listener.local_addr().unwrap().port();
    config(&format!(
        "postgres://app:hunter2@127.0.0.1:{port}/runs?sslmode=disable"
    ))
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Reads the startup message of one connection and answers it with an error of this code.
async fn refuse(listener: &TcpListener, code: &str) -> Vec<u8> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let startup = read_startup(&mut stream).await;
    let fields = format!("SFATAL\0VFATAL\0C{code}\0Mtest\0\0");
    let mut answer = vec![b'E'];
    answer.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    answer.extend(fields.as_bytes());
    stream.write_all(&answer).await.unwrap();
    startup
}

async fn read_startup(stream: &mut TcpStream) -> Vec<u8> {
    let length = stream.read_u32().await.unwrap() as usize;
    let mut startup = vec![0; length - 4];
    stream.read_exact(&mut startup).await.unwrap();
    startup
}

/// An error with its causes, as a user sees it.
fn chain(error: DatabaseError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[test]
fn a_url_that_is_missing_or_unusable_says_where_it_was_set_and_hides_it() {
    let missing = connect_options(&DatabaseConfig::default(), "test").unwrap_err();
    assert!(chain(missing).contains("RUNLOG_DATABASE__URL"));
    for bad in [
        "mysql://app:hunter2@db/runs",
        "host=db password=hunter2",
        "postgres://app:hunter2@db:99999/runs",
        "postgres://app:hunter2@db/runs?sslmode=maybe",
        "postgres://app@db/runs?sslpassword=hunter2",
        "postgres://app@db/runs?sslkey=-----BEGIN%20PRIVATE%20KEY-----hunter2",
        "postgres://app:hunter2@db/runs?sslrootcert=/nonexistent",
    ] {
        let error = connect_options(&config(bad), "test").unwrap_err();
        assert!(
            matches!(error, DatabaseError::Url(ConfigError::Invalid { .. })),
            "{bad}"
        );
        let text = chain(error);
        assert!(
            text.contains("environment variable RUNLOG_DATABASE__URL"),
            "{text}"
        );
        let says_how = ["postgres://user:password@host:port/database", "ssl"];
        assert!(says_how.iter().any(|how| text.contains(how)), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn every_connection_carries_name_and_time_limits() {
    let listener = listener().await;
    let mut config = config_at(&listener);
    config.statement_timeout = Duration::from_millis(1500);
    let pool = pool(&config, "runlog-test").unwrap();
    assert_eq!(pool.options().get_max_connections(), 10);
    assert_eq!(pool.options().get_acquire_timeout(), Duration::from_secs(5));
    let (startup, _) = tokio::join!(refuse(&listener, "28P01"), pool.acquire());
    let startup = String::from_utf8_lossy(&startup);
    for part in [
        "application_name\0runlog-test\0",
        "-c statement_timeout=1500",
        "-c lock_timeout=10000",
        "-c idle_in_transaction_session_timeout=30000",
    ] {
        assert!(startup.contains(part), "{part} is not in {startup:?}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_named_with_its_source() {
    let listener = listener().await;
    let config = config_at(&listener);
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let pool = pool(&config, "test").unwrap();
    let error = wait_reachable(&pool, &config, Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Unreachable { cause: Some(_), .. }),
        "{error:?}"
    );
    let text = chain(error);
    assert!(
        text.contains(&format!("127.0.0.1:{port}, database runs, user app")),
        "{text}"
    );
    assert!(
        text.contains("set by environment variable RUNLOG_DATABASE__URL"),
        "{text}"
    );
    assert!(text.contains("within 300ms"), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_connection_that_ends_in_its_handshake_may_pass() {
    let listener = listener().await;
    let port = listener.local_addr().unwrap().port();
    // Asks for TLS first, where the answer is one byte.
    let config = config(&format!("postgres://app@127.0.0.1:{port}/runs"));
    let pool = pool(&config, "test").unwrap();
    let server = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_startup(&mut stream).await;
        }
    };
    let waiting = wait_reachable(&pool, &config, Duration::from_millis(300));
    tokio::select! {
        () = server => {}
        result = waiting => assert!(
            matches!(result, Err(DatabaseError::Unreachable { cause: Some(sqlx::Error::Protocol(_)), .. })),
            "{result:?}"
        ),
    }
}

#[tokio::test]
async fn a_database_that_hangs_is_given_up_in_time() {
    let listener = listener().await;
    let config = config_at(&listener);
    let pool = pool(&config, "test").unwrap();
    let waiting = wait_reachable(&pool, &config, Duration::from_millis(200));
    let result = tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap();
    assert!(matches!(
        result,
        Err(DatabaseError::Unreachable { cause: None, .. })
    ));
}

#[tokio::test]
async fn what_may_pass_is_waited_for_and_a_refusal_is_not() {
    let listener = listener().await;
    let config = config_at(&listener);
    let pool = pool(&config, "test").unwrap();
    let server = async {
        refuse(&listener, "57P03").await; // starting up
        refuse(&listener, "53300").await; // too many connections
        refuse(&listener, "28P01").await; // wrong password
    };
    let waiting = wait_reachable(&pool, &config, Duration::from_secs(60));
    // Bounded for the server's sake, which is left waiting by a client that gives up early.
    let both = async { tokio::join!(server, waiting) };
    let ((), result) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .unwrap();
    let Err(error @ DatabaseError::Refused { .. }) = result else {
        panic!("not refused: {result:?}");
    };
    assert!(
        error.to_string().contains("database runs, user app"),
        "{error}"
    );
}
