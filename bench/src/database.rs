//! A database of the bench: made, migrated, asked and dropped. Called by the measurements.

use std::process::Stdio;

use anyhow::{Context, ensure};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::Command;
use uuid::Uuid;

use crate::program::url_of;
use crate::stack::Stack;

/// A migrated database and a superuser's connection to it.
pub(crate) struct Database {
    /// Its name.
    pub(crate) name: String,
    /// The consumer group that fills it. Of its own each time: members that an earlier group has not
    /// let go of yet would hold up the next.
    pub(crate) group: String,
    /// The connection.
    pub(crate) connection: PgConnection,
}

/// What one table or index takes.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub(crate) struct Size {
    /// The table, or the table of the index.
    pub(crate) table: String,
    /// The index; `None` = the table itself, with its TOAST.
    pub(crate) index: Option<String>,
    /// Bytes.
    pub(crate) bytes: i64,
}

impl Database {
    /// A new, migrated database; one of this name that is there already is dropped.
    ///
    /// # Errors
    /// Where PostgreSQL or `runlog migrate` refuses.
    pub(crate) async fn create(stack: &Stack, name: &str) -> anyhow::Result<Self> {
        drop_database(stack, name).await?;
        administer(stack, &format!("CREATE DATABASE {name}")).await?;
        let url = url_of(&stack.database_url, name);
        let migrated = Command::new(stack.programs.join("runlog"))
            .arg("migrate")
            .env("RUNLOG_DATABASE__URL", &url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start runlog")?;
        ensure!(
            migrated.status.success(),
            "runlog migrate failed: {}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        let connection = connect(stack, name).await?;
        Ok(Self {
            name: name.to_owned(),
            group: format!("{name}_{}", Uuid::now_v7()),
            connection,
        })
    }

    /// Writes what waits in memory, so that the next measurement does not pay for it.
    ///
    /// # Errors
    /// Of PostgreSQL.
    pub(crate) async fn checkpoint(&mut self) -> anyhow::Result<()> {
        sqlx::raw_sql("CHECKPOINT")
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// The tables and indexes of the product, the largest first.
    ///
    /// # Errors
    /// Of PostgreSQL.
    pub(crate) async fn sizes(&mut self) -> anyhow::Result<Vec<Size>> {
        let sizes = sqlx::query_as(include_str!("sql/sizes.sql"));
        Ok(sizes.fetch_all(&mut self.connection).await?)
    }

    /// Drops it.
    ///
    /// # Errors
    /// Of PostgreSQL.
    pub(crate) async fn drop(self, stack: &Stack) -> anyhow::Result<()> {
        self.connection.close().await?;
        drop_database(stack, &self.name).await
    }
}

/// A superuser's connection.
///
/// # Errors
/// Where PostgreSQL cannot be reached.
pub(crate) async fn connect(stack: &Stack, database: &str) -> anyhow::Result<PgConnection> {
    let url = url_of(&stack.database_url, database);
    let connection = PgConnection::connect(&url).await;
    connection.with_context(|| format!("cannot connect to the database {database}"))
}

async fn drop_database(stack: &Stack, name: &str) -> anyhow::Result<()> {
    administer(
        stack,
        &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
    )
    .await
}

async fn administer(stack: &Stack, statement: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&stack.database_url)
        .await
        .context("cannot connect to PostgreSQL")?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}
