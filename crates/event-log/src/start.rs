//! What a process finds out about its database before it works there: that it has this build's schema, and that the login
//! may do what the process is for and no more. Called by ingest and the projectors when they start.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use crate::fault::{FaultClass, classify};
use crate::schema::{self, SchemaError};

/// The role that a process' login is to be a member of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `runlog_ingest`: appends events, keeps offsets.
    Ingest,
    /// `runlog_projector`: reads the log, writes read models.
    Projector,
}

impl Role {
    /// The role's name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "runlog_ingest",
            Self::Projector => "runlog_projector",
        }
    }
}

/// Why a process does not start on its database.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Migrations are missing, or the database could not be asked.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The database could not be asked what the login may do.
    #[error("cannot read what the login of database.url may do")]
    Database(#[from] sqlx::Error),
    /// The login is of another role, or of none.
    #[error(
        "the login {login} of database.url is not a member of {}: run GRANT {} TO {login}, or make a login for this \
         process: CREATE ROLE name LOGIN PASSWORD '...' IN ROLE {}",
        role.name(), role.name(), role.name()
    )]
    NoMember {
        /// The login.
        login: String,
        /// The role.
        role: Role,
    },
    /// The login may do more than the process is for, so a flaw in the process could do more, too.
    #[error(
        "the login {login} of database.url may do more than this process should: it {}. Give the process a login of its \
         own: CREATE ROLE name LOGIN PASSWORD '...' IN ROLE {}. For development: database.allow_powerful_login = true",
        excess.join("; it "), role.name()
    )]
    Excess {
        /// The login.
        login: String,
        /// The role that it should be a member of, and of no other.
        role: Role,
        /// What it may do beyond that: ends of a sentence that begins with the login.
        excess: Vec<String>,
    },
}

impl StartError {
    /// Whether the database could not be asked, and may be asked again.
    fn may_pass(&self) -> bool {
        match self {
            Self::Schema(error) => error.may_pass(),
            Self::Database(error) => classify(error) == FaultClass::Environment,
            _ => false,
        }
    }
}

/// Checks schema and login, and waits for as long as `within` while the database cannot be asked: it may have answered
/// a moment ago and be starting again now. With `allow_powerful` a login that may do more is only warned of.
///
/// # Errors
/// [`StartError`]; what no waiting mends at once.
pub async fn check(
    pool: &PgPool,
    role: Role,
    allow_powerful: bool,
    within: Duration,
) -> Result<(), StartError> {
    let deadline = Instant::now() + within;
    loop {
        match check_once(pool, role, allow_powerful).await {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                schema::pause(&error).await;
            }
            answer => return answer,
        }
    }
}

async fn check_once(pool: &PgPool, role: Role, allow_powerful: bool) -> Result<(), StartError> {
    schema::check(pool).await?;
    match check_login(pool, role).await {
        Err(error @ (StartError::Excess { .. } | StartError::NoMember { .. }))
            if allow_powerful =>
        {
            tracing::warn!("database.allow_powerful_login is on: {error}");
            Ok(())
        }
        answer => answer,
    }
}

/// Whether the login may do what the role is for, and no more.
async fn check_login(pool: &PgPool, role: Role) -> Result<(), StartError> {
    let mut connection = pool.acquire().await?;
    let (login, is_member): (String, bool) =
        sqlx::query_as("SELECT session_user::text, pg_has_role(session_user, $1, 'USAGE')")
            .bind(role.name())
            .fetch_one(&mut *connection)
            .await?;
    if !is_member {
        return Err(StartError::NoMember { login, role });
    }
    let excess: Vec<String> = sqlx::query_scalar(include_str!("sql/excess.sql"))
        .bind(role.name())
        .fetch_all(&mut *connection)
        .await?;
    if excess.is_empty() {
        return Ok(());
    }
    Err(StartError::Excess {
        login,
        role,
        excess,
    })
}
