//! What all cases share: the database, the network before it, and a count of what they met.

use std::collections::BTreeMap;
use std::sync::Mutex;

use sqlx::PgPool;

use crate::support::database::{Database, pool};
use crate::support::proxy::Proxy;

/// What the writers' sessions are called, so that their backends can be found.
const WRITERS: &str = "writer";

/// What all cases share.
pub struct Ground {
    pub database: Database,
    pub proxy: Proxy,
    /// The writers' pool, through the proxy.
    pub writers: PgPool,
    /// How often each thing happened: a model that meets no conflict tests none.
    seen: Mutex<BTreeMap<&'static str, u32>>,
}

impl Ground {
    pub async fn new(database: Database) -> Self {
        let proxy = Proxy::start(&database.options).await;
        let options = proxy.options(&database.options).application_name(WRITERS);
        let writers = pool(&options, 4).await;
        Self {
            database,
            proxy,
            writers,
            seen: Mutex::default(),
        }
    }

    pub fn saw(&self, what: &'static str) {
        *self.seen.lock().unwrap().entry(what).or_default() += 1;
    }

    pub fn seen(&self) -> String {
        format!("{:?}", self.seen.lock().unwrap())
    }

    pub async fn kill_writers(&self) {
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = $1",
        )
        .bind(WRITERS)
        .execute(&self.database.pool)
        .await
        .unwrap();
    }
}
