//! Whose data a command may read: one tenant's, or everybody's when that is said out loud.
//! Called by every command that reads events, runs or dead letters.

use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::Cli;

const VARIABLE: &str = "RUNLOG_TENANT";

/// The flags of the scope.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ScopeArgs {
    /// Read this tenant's data. Default: the environment variable RUNLOG_TENANT
    #[arg(long, value_name = "TENANT", conflicts_with = "all_tenants")]
    tenant: Option<String>,

    /// Read every tenant's data
    #[arg(long)]
    all_tenants: bool,
}

/// Whose data is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One tenant's.
    Tenant(String),
    /// Everybody's.
    All,
}

impl ScopeArgs {
    /// The scope that was asked for, by flag or by the environment.
    ///
    /// # Errors
    /// A usage error where none was: nothing is never everything.
    pub(crate) fn resolve(&self) -> anyhow::Result<Scope> {
        self.resolve_with(std::env::var(VARIABLE).ok())
    }

    fn resolve_with(&self, variable: Option<String>) -> anyhow::Result<Scope> {
        if self.all_tenants {
            return Ok(Scope::All);
        }
        let named = self.tenant.clone().or(variable);
        if let Some(tenant) = named.filter(|tenant| !tenant.is_empty()) {
            return Ok(Scope::Tenant(tenant));
        }
        let message = format!(
            "this command reads one tenant's data: name it with --tenant TENANT (or in {VARIABLE}), \
             or say --all-tenants"
        );
        Err(Cli::command()
            .error(ErrorKind::MissingRequiredArgument, message)
            .into())
    }
}

impl Scope {
    /// The tenant as a query parameter; `None` = no restriction.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::All => None,
        }
    }

    /// For messages: "of tenant acme", or "of any tenant".
    pub(crate) fn phrase(&self) -> String {
        match self {
            Self::Tenant(tenant) => format!("of tenant {tenant}"),
            Self::All => "of any tenant".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Scope, ScopeArgs};

    fn scope(tenant: Option<&str>, all: bool, variable: Option<&str>) -> anyhow::Result<Scope> {
        let args = ScopeArgs {
            tenant: tenant.map(str::to_owned),
            all_tenants: all,
        };
        args.resolve_with(variable.map(str::to_owned))
    }

    #[test]
    fn a_flag_counts_more_than_the_variable() {
        let acme = Scope::Tenant("acme".into());
        assert_eq!(scope(Some("acme"), false, Some("other")).unwrap(), acme);
        assert_eq!(scope(None, true, Some("other")).unwrap(), Scope::All);
        assert_eq!(scope(None, false, Some("acme")).unwrap(), acme);
    }

    #[test]
    fn no_scope_is_a_usage_error_that_says_so() {
        for variable in [None, Some("")] {
            let error = scope(None, false, variable).unwrap_err();
            let usage = error.downcast_ref::<clap::Error>().unwrap();
            assert_eq!(usage.exit_code(), 2);
            assert!(error.to_string().contains("--all-tenants"), "{error}");
        }
    }
}
