//! Whether a schema can be used, asked of a real PostgreSQL whose connections fail at first.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub, dead_code)]

mod support;

use std::time::Duration;

use event_log::schema;
use sqlx::postgres::{PgPoolOptions, PgSslMode};
use support::database::with_database;
use tokio::net::{TcpListener, TcpStream};

/// Connections that are cut before anything is said.
const CUT: usize = 3;

#[tokio::test]
async fn a_database_that_is_starting_again_is_waited_for() {
    with_database(|database| async move {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = (
            database.options.get_host().to_owned(),
            database.options.get_port(),
        );
        let forward = async {
            for _ in 0..CUT {
                drop(listener.accept().await.unwrap());
            }
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(server).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        };
        let options = database.options.clone().host("127.0.0.1").port(port);
        let pool = PgPoolOptions::new().connect_lazy_with(options.ssl_mode(PgSslMode::Disable));
        let patient = schema::check_within(&pool, Duration::from_secs(60));
        tokio::select! {
            _ = forward => panic!("the server has hung up"),
            answer = patient => answer.unwrap(),
        }
    })
    .await;
}
