//! A database session whose every word is kept: rows, notices and errors as one text, which is what an attacker reads.
//!
//! Called by the suites of this binary.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Result;
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow};
use sqlx::{AssertSqlSafe, Connection, Either, Executor, Row};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// What a list of statements led to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Rows, notices and errors.
    pub(crate) said: String,
    /// SQLSTATE of the statement that failed; the ones after it were not run.
    pub(crate) failed: Option<String>,
}

/// A session of one login.
pub(crate) struct Session {
    url: String,
    connection: PgConnection,
    /// sqlx does not know where it stands after a COPY that was refused.
    is_lost: bool,
}

impl Session {
    /// Logs in.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        notices();
        Ok(Self {
            url: url.to_owned(),
            connection: PgConnection::connect(url).await?,
            is_lost: false,
        })
    }

    /// Runs statements in one transaction that is then rolled back.
    pub(crate) async fn run(&mut self, statements: &[String]) -> Outcome {
        let mut begun = vec!["BEGIN".to_owned()];
        begun.extend_from_slice(statements);
        let outcome = self.run_for_good(&begun).await;
        self.forget("ROLLBACK").await;
        outcome
    }

    /// Runs statements, each in a transaction of its own unless they say otherwise.
    pub(crate) async fn run_for_good(&mut self, statements: &[String]) -> Outcome {
        let mut outcome = Outcome::default();
        take_notices();
        for statement in statements {
            let result = self.one(statement, &mut outcome.said).await;
            outcome.said.push_str(&take_notices());
            if let Err(error) = result {
                outcome.failed = Some(describe(&error, &mut outcome.said));
                break;
            }
        }
        outcome
    }

    /// Gives back what the session holds.
    pub(crate) async fn forget(&mut self, how: &str) {
        if std::mem::take(&mut self.is_lost) {
            let again = PgConnection::connect(&self.url).await;
            assert!(again.is_ok(), "{again:?}");
            self.connection = again.unwrap();
            return;
        }
        for statement in [how, "DISCARD ALL"] {
            let done = self
                .connection
                .execute(AssertSqlSafe(statement.to_owned()))
                .await;
            // Without a transaction ROLLBACK only warns.
            assert!(done.is_ok(), "{statement}: {done:?}");
        }
    }

    async fn one(&mut self, statement: &str, said: &mut String) -> Result<(), sqlx::Error> {
        if statement.starts_with("COPY ") && statement.contains(" STD") {
            self.is_lost = true;
            return self.copy(statement, said).await;
        }
        let mut results =
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).fetch_many(&mut self.connection);
        while let Some(result) = results.try_next().await? {
            match result {
                Either::Left(done) => {
                    let _ = writeln!(said, "[{} rows]", done.rows_affected());
                }
                Either::Right(row) => said.push_str(&line(&row)),
            }
        }
        Ok(())
    }

    async fn copy(&mut self, statement: &str, said: &mut String) -> Result<(), sqlx::Error> {
        if statement.contains("FROM STDIN") {
            let copy = self.connection.copy_in_raw(statement).await?;
            return copy.finish().await.map(|_| ());
        }
        let mut stream = self.connection.copy_out_raw(statement).await?;
        while let Some(bytes) = stream.try_next().await? {
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }
}

fn line(row: &PgRow) -> String {
    let mut line = String::new();
    for place in 0..row.len() {
        let text = row
            .try_get_raw(place)
            .map(|v| v.as_str().map(str::to_owned));
        let _ = write!(
            line,
            "{} | ",
            text.map_or_else(|e| e.to_string(), |t| t.unwrap_or_default())
        );
    }
    line + "\n"
}

/// Adds all that an error says, and returns its SQLSTATE; a client's own error has none, and is named.
fn describe(error: &sqlx::Error, said: &mut String) -> String {
    let Some(error) = error.as_database_error() else {
        let _ = writeln!(said, "ERROR {error}");
        return format!("not the database's: {error}");
    };
    let error: &PgDatabaseError = error.downcast_ref();
    let fields = [
        error.detail(),
        error.hint(),
        error.r#where(),
        error.schema(),
        error.table(),
        error.column(),
        error.data_type(),
        error.constraint(),
    ];
    let _ = writeln!(said, "ERROR {}: {}", error.code(), error.message());
    for field in fields.into_iter().flatten() {
        let _ = writeln!(said, "  {field}");
    }
    error.code().to_owned()
}

// sqlx gives notices to tracing, and to nobody else.

struct Notices(Arc<Mutex<String>>);

struct Words<'a>(&'a mut String);

impl Visit for Words<'_> {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        let _ = writeln!(self.0, "NOTICE {value:?}");
    }
}

impl<S: tracing::Subscriber> Layer<S> for Notices {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::postgres::notice"
            && let Ok(mut text) = self.0.lock()
        {
            event.record(&mut Words(&mut text));
        }
    }
}

fn notices() -> &'static Arc<Mutex<String>> {
    static NOTICES: OnceLock<Arc<Mutex<String>>> = OnceLock::new();
    NOTICES.get_or_init(|| {
        let text = Arc::new(Mutex::new(String::new()));
        let subscriber = tracing_subscriber::registry().with(Notices(Arc::clone(&text)));
        let set = tracing::subscriber::set_global_default(subscriber);
        assert!(set.is_ok(), "somebody else listens");
        text
    })
}

fn take_notices() -> String {
    notices()
        .lock()
        .map(|mut text| std::mem::take(&mut *text))
        .unwrap_or_default()
}
