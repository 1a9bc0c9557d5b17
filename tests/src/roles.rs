//! The logins of the test servers, one per role, so that every program runs with the rights that it has in production.
//!
//! Called by whatever has migrated a database or starts a program.

use anyhow::{Context, Result};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// runlog-ingest.
    Ingest,
    /// runlog-projectors.
    Projector,
    /// A person on call, with `runlog`.
    Operator,
    /// A person who asks in SQL.
    Analyst,
    /// pg_dump.
    Backup,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Ingest,
        Self::Projector,
        Self::Operator,
        Self::Analyst,
        Self::Backup,
    ];

    /// The role in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "runlog_ingest",
            Self::Projector => "runlog_projector",
            Self::Operator => "runlog_operator",
            Self::Analyst => "runlog_analyst",
            Self::Backup => "runlog_backup",
        }
    }

    /// The login that is a member of it and of nothing else.
    #[must_use]
    pub fn login(self) -> String {
        format!("test_{}", self.name())
    }

    /// Whose login a program has.
    #[must_use]
    pub fn of_program(program: &str) -> Self {
        match program {
            "runlog-ingest" => Self::Ingest,
            "runlog-projectors" => Self::Projector,
            _ => Self::Operator,
        }
    }

    /// A superuser's URL, as this role's login.
    #[must_use]
    pub fn url(self, url: &str) -> String {
        as_login(url, &self.login())
    }
}

/// The same URL with another login, whose password is its name.
#[must_use]
pub fn as_login(url: &str, login: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('@').map_or(start, |at| start + at + 1);
    format!("{}{login}:{login}@{}", &url[..start], &url[end..])
}

/// Makes the logins, where they are not there. The roles are: a migrated database has made them.
///
/// # Errors
/// Where PostgreSQL refuses.
pub async fn make_logins(url: &str) -> Result<()> {
    let mut admin = PgConnection::connect(url)
        .await
        .context("cannot make the logins of the tests")?;
    // Roles are the cluster's; tests that run at once make them one after the other.
    admin
        .execute("SELECT pg_advisory_lock(hashtextextended('test logins', 0))")
        .await?;
    for role in Role::ALL {
        make_login(&mut admin, &role.login(), role).await?;
    }
    admin.close().await?;
    Ok(())
}

/// Makes a login of a role, whose password is its name, where it is not there.
///
/// # Errors
/// Where PostgreSQL refuses.
pub async fn make_login(admin: &mut PgConnection, login: &str, role: Role) -> Result<()> {
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(login)
        .fetch_one(&mut *admin)
        .await?;
    if !there {
        let statement = format!(
            "CREATE ROLE {login} LOGIN PASSWORD '{login}' IN ROLE {}",
            role.name()
        );
        admin.execute(AssertSqlSafe(statement)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::as_login;

    #[test]
    fn only_the_login_changes() {
        let url = "postgres://postgres:secret@h:1,h:2/b?sslmode=disable";
        let expected = "postgres://x:x@h:1,h:2/b?sslmode=disable";
        assert_eq!(as_login(url, "x"), expected);
        assert_eq!(as_login("postgres://h/b", "x"), "postgres://x:x@h/b");
    }
}
