//! Which tenants' rows the logins of analysts see. Called by the CLI, for operators; each change is an audited function of the
//! database's owner (migrations/0010_roles_and_row_security.sql).

use chrono::{DateTime, Utc};
use sqlx::postgres::PgDatabaseError;
use sqlx::{FromRow, PgPool};

use crate::fault::sqlstate;
use crate::generation::Operator;

/// The function's own refusals: an unknown login, and one that is no analyst's.
const REFUSALS: [&str; 2] = ["42704", "55000"];

/// That a login sees a tenant's rows.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Member {
    /// The database login.
    pub login: String,
    /// The tenant.
    pub tenant_id: String,
    /// Since when.
    pub granted_at: DateTime<Utc>,
    /// The login that granted it.
    pub granted_by: String,
    /// Whether the login can log in and is a member of `runlog_analyst` now: else the row has no effect, until somebody makes
    /// such a login again.
    pub is_analyst: bool,
}

/// Why a membership was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// The login cannot be given a tenant.
    #[error("{message}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
    Refused {
        /// Why.
        message: String,
        /// What to do first.
        hint: Option<String>,
    },
    /// The database's.
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for TenantError {
    fn from(error: sqlx::Error) -> Self {
        let is_refusal = sqlstate(&error).is_some_and(|code| REFUSALS.contains(&code.as_str()));
        match error.as_database_error() {
            Some(refusal) if is_refusal => Self::Refused {
                message: refusal.message().to_owned(),
                hint: refusal
                    .try_downcast_ref::<PgDatabaseError>()
                    .and_then(|refusal| refusal.hint())
                    .map(|hint| hint.trim_end_matches('.').to_owned()),
            },
            _ => Self::Database(error),
        }
    }
}

/// Lets a login see a tenant's rows; false = it does already, and nothing was changed.
///
/// # Errors
/// [`TenantError`].
pub async fn grant(
    pool: &PgPool,
    login: &str,
    tenant_id: &str,
    by: Operator<'_>,
) -> Result<bool, TenantError> {
    change(
        pool,
        "SELECT event_log.grant_tenant($1, $2, $3, $4)",
        [login, tenant_id],
        by,
    )
    .await
}

/// No longer lets a login see a tenant's rows, from its next statement on; false = it does not, and nothing was
/// changed.
///
/// # Errors
/// [`TenantError`].
pub async fn revoke(
    pool: &PgPool,
    login: &str,
    tenant_id: &str,
    by: Operator<'_>,
) -> Result<bool, TenantError> {
    change(
        pool,
        "SELECT event_log.revoke_tenant($1, $2, $3, $4)",
        [login, tenant_id],
        by,
    )
    .await
}

async fn change(
    pool: &PgPool,
    statement: &'static str,
    [login, tenant_id]: [&str; 2],
    by: Operator<'_>,
) -> Result<bool, TenantError> {
    let changed = sqlx::query_scalar(statement)
        .bind(login)
        .bind(tenant_id)
        .bind(by.name)
        .bind(by.reason)
        .fetch_one(pool)
        .await?;
    Ok(changed)
}

/// Who sees which tenants' rows, in (login, tenant) order; `None` = any.
///
/// # Errors
/// The database's.
pub async fn members(
    pool: &PgPool,
    login: Option<&str>,
    tenant_id: Option<&str>,
) -> Result<Vec<Member>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/tenant_members.sql"))
        .bind(login)
        .bind(tenant_id)
        .fetch_all(pool)
        .await
}
