//! A transaction that can be dropped at any point.
//!
//! The driver's own guard leaves a connection in an open transaction where its future is dropped
//! while BEGIN is under way, and hands it to the next caller. Here a connection goes back to the
//! pool only after a COMMIT or ROLLBACK that the server confirmed; in every other case (an error, a
//! dropped future, a panic) it is closed, and the server rolls back.

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

/// An open transaction, isolation level READ COMMITTED.
#[derive(Debug)]
pub struct Transaction {
    connection: Option<PoolConnection<Postgres>>,
}

impl Transaction {
    /// Takes a connection and begins.
    ///
    /// # Errors
    /// Where no connection can be had or the server refuses.
    pub async fn begin(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let mut transaction = Self {
            connection: Some(pool.acquire().await?),
        };
        transaction
            .run("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await?;
        failpoints::hit("transaction.begun");
        Ok(transaction)
    }

    /// The connection, for statements inside the transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        // It is taken only by commit, rollback and drop, which consume the transaction.
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("the connection leaves only with the transaction"),
        }
    }

    /// Runs a statement without parameters, such as SAVEPOINT.
    ///
    /// # Errors
    /// The server's.
    pub async fn run(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statement).execute(self.connection()).await?;
        Ok(())
    }

    /// Rolls back and begins again on the same connection, also where a statement has failed.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn restart(&mut self) -> Result<(), sqlx::Error> {
        self.run("ROLLBACK AND CHAIN").await
    }

    /// Commits. After an error it is unknown whether the commit took place.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        failpoints::hit("transaction.before_commit");
        let commit = self.run("COMMIT");
        failpoints::at_first_wait("transaction.commit_sent", commit).await?;
        failpoints::hit("transaction.committed");
        drop(self.connection.take());
        Ok(())
    }

    /// Rolls back. Dropping the transaction does the same, at the price of the connection.
    ///
    /// # Errors
    /// The server's, or the connection's; the transaction is rolled back all the same.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.run("ROLLBACK").await?;
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Detached and dropped, the socket closes; the server rolls back when it sees that.
            drop(connection.detach());
        }
    }
}
