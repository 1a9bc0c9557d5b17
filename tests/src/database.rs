//! A database of one test's own, migrated by the product's own command.
//!
//! Called by [`crate::Pipeline`] and by tests that need no Kafka topic.

use crate::environment::{Environment, run_to_end, said, unique_name};
use crate::roles::{self, Role};
use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};

/// Connections that a test's own queries may use.
const CONNECTIONS: u32 = 4;

/// A database that is dropped with this value. Where the test panics it stays, and its URL is
/// printed.
#[derive(Debug)]
pub struct Database {
    /// A superuser's URL of it.
    pub url: String,
    /// For the test's own queries, as superuser.
    pub pool: PgPool,
    name: String,
    admin_url: String,
}

impl Database {
    /// A new database without any tables.
    ///
    /// # Errors
    /// Where PostgreSQL refuses.
    pub async fn empty(environment: &Environment) -> Result<Self> {
        let name = unique_name("runlog-test");
        let admin_url = environment.database_url.clone();
        let mut admin = PgConnection::connect(&admin_url).await.with_context(
            || "PostgreSQL of RUNLOG_TEST_DATABASE_URL does not answer; run `make test`",
        )?;
        admin
            .execute(AssertSqlSafe(format!("CREATE DATABASE \"{name}\"")))
            .await?;
        let url = with_database(&admin_url, &name);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect_lazy(&url)?;
        Ok(Self {
            url,
            pool,
            name,
            admin_url,
        })
    }

    /// A new database after `runlog migrate`, with a login for each role.
    ///
    /// # Errors
    /// Where PostgreSQL refuses or the command fails.
    pub async fn migrated(environment: &Environment) -> Result<Self> {
        let database = Self::empty(environment).await?;
        let mut command = environment.program("runlog");
        command
            .arg("migrate")
            .env("RUNLOG_DATABASE__URL", &database.url);
        let output = run_to_end(command).await?;
        ensure!(
            output.status.success(),
            "`runlog migrate` ended with {}:\n{}",
            output.status,
            said(&output)
        );
        roles::make_logins(&database.admin_url).await?;
        Ok(database)
    }

    /// Its URL for a role's login.
    #[must_use]
    pub fn url_of(&self, role: Role) -> String {
        role.url(&self.url)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the test's database stays for a look: {}", self.url);
            return;
        }
        let (admin_url, name) = (self.admin_url.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || drop_database(&admin_url, &name)).join();
        if !matches!(dropped, Ok(Ok(()))) {
            eprintln!(
                "the test's database {} could not be dropped: {dropped:?}",
                self.name
            );
        }
    }
}

fn drop_database(admin_url: &str, name: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut admin = PgConnection::connect(admin_url).await?;
        admin
            .execute(AssertSqlSafe(format!(
                "DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"
            )))
            .await?;
        Ok(())
    })
}

/// The same URL with another database's name.
fn with_database(url: &str, name: &str) -> String {
    let (address, query) = match url.split_once('?') {
        Some((address, query)) => (address, format!("?{query}")),
        None => (url, String::new()),
    };
    let authority = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority..]
        .find('/')
        .map_or(address.len(), |at| authority + at);
    format!("{}/{name}{query}", &address[..end])
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_name_of_the_database_changes() {
        for (url, expected) in [
            ("postgres://u:p@h:1/a", "postgres://u:p@h:1/b"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/b"),
            (
                "postgres://h/a?sslmode=disable",
                "postgres://h/b?sslmode=disable",
            ),
        ] {
            assert_eq!(with_database(url, "b"), expected);
        }
    }
}
