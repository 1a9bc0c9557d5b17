//! One way over the fence, and how it is judged: what a login tried, how that must end, and that it was worth trying,
//! because who may do it gets something from the same statements.
//!
//! Called by the suites of this binary; the lists of attempts call [`Attempt`]'s constructors.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

use crate::session::{Outcome, Session};
use crate::world::{KINDS, Who, World};

/// What may not be done, whoever asks (insufficient_privilege).
pub(crate) const DENIED: &str = "42501";

/// How an attempt must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// With this SQLSTATE.
    Refused(&'static str),
    /// Well, with rows of the login's own tenants at most.
    OwnAtMost,
    /// As own at most, or with an error that shows nothing foreign either.
    OwnOrError,
    /// With the same answer for another tenant's id and for one that does not exist. Placeholders: some_...
    AsAbsent,
}

/// What shows that an attempt is not nonsense.
#[derive(Debug, Clone)]
enum Control {
    /// A superuser gets something else from the same statements.
    Superuser,
    /// A superuser gets something else from these.
    Instead(Vec<String>),
    /// Nothing, for this reason: nobody may do it, or it would harm.
    Absent,
}

/// A way over the fence.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// What is tried.
    pub(crate) what: String,
    statements: Vec<String>,
    ends: Ends,
    control: Control,
    in_transaction: bool,
}

impl Attempt {
    fn new(what: &str, statements: &[&str], ends: Ends) -> Self {
        Self {
            what: what.to_owned(),
            statements: statements.iter().map(|s| (*s).to_owned()).collect(),
            ends,
            control: Control::Superuser,
            in_transaction: true,
        }
    }

    /// Must be refused for want of a right.
    pub(crate) fn denied(what: &str, statements: &[&str]) -> Self {
        Self::new(what, statements, Ends::Refused(DENIED))
    }

    /// Must be refused with this SQLSTATE.
    pub(crate) fn refused(what: &str, sqlstate: &'static str, statements: &[&str]) -> Self {
        Self::new(what, statements, Ends::Refused(sqlstate))
    }

    /// May show the login's own rows.
    pub(crate) fn own(what: &str, statements: &[&str]) -> Self {
        Self::new(what, statements, Ends::OwnAtMost)
    }

    /// May show the login's own rows, also in an error.
    pub(crate) fn own_or_error(what: &str, statements: &[&str]) -> Self {
        Self::new(what, statements, Ends::OwnOrError)
    }

    /// Must answer as for what does not exist.
    pub(crate) fn as_absent(what: &str, statements: &[&str]) -> Self {
        Self::new(what, statements, Ends::AsAbsent)
    }

    /// Another control than the same statements.
    pub(crate) fn control(mut self, statements: &[&str]) -> Self {
        self.control = Control::Instead(statements.iter().map(|s| (*s).to_owned()).collect());
        self
    }

    /// No control: a superuser is refused, too, or would do harm.
    pub(crate) fn for_nobody(mut self) -> Self {
        self.control = Control::Absent;
        self
    }

    /// Not in a transaction, where the statement may not be in one.
    pub(crate) fn outside(mut self) -> Self {
        self.in_transaction = false;
        self
    }

    /// Tries it. `sessions`: the attacker's and a superuser's.
    ///
    /// # Errors
    /// What got over the fence, or why this is no attempt.
    pub(crate) async fn carry_out(
        &self,
        world: &World,
        who: Who,
        attacker: &mut Session,
        admin: &mut Session,
    ) -> Result<()> {
        let secrets = world.secrets(who);
        let foreign = filled(&self.statements, &world.values, "foreign");
        let outcome = self.by(attacker, &foreign).await;
        let shown = masked(&outcome.said, &self.statements, &world.values, "foreign");
        if !matches!(who, Who::Of(_)) {
            // An error may repeat what was asked for, and so may a plan, which is compared below; rows may not be there.
            let repeats = outcome.failed.is_some() || self.ends == Ends::AsAbsent;
            let read = if repeats { &shown } else { &outcome.said };
            let leak = secrets.iter().find(|secret| read.contains(*secret));
            ensure!(leak.is_none(), "shows {leak:?}:\n{read}");
        }
        match (self.ends, outcome.failed.as_deref()) {
            (Ends::Refused(expected), Some(code)) if code == expected => {}
            (Ends::Refused(expected), _) => {
                bail!("was to be refused with {expected}:\n{}", outcome.said)
            }
            (Ends::OwnAtMost, Some(_)) => bail!("was to be answered:\n{}", outcome.said),
            (Ends::OwnAtMost | Ends::OwnOrError, _) => {}
            (Ends::AsAbsent, _) => {
                let outcome = self
                    .by(attacker, &filled(&self.statements, &world.values, "absent"))
                    .await;
                let absent = masked(&outcome.said, &self.statements, &world.values, "absent");
                ensure!(
                    shown == absent,
                    "answers differ:\n{shown}\n--- absent:\n{absent}"
                );
            }
        }
        self.is_worth_it(world, &shown, admin).await
    }

    async fn by(&self, session: &mut Session, statements: &[String]) -> Outcome {
        if self.in_transaction {
            return session.run(statements).await;
        }
        let outcome = session.run_for_good(statements).await;
        session.forget("ROLLBACK").await;
        outcome
    }

    /// The control: a superuser, with the triggers out of the way, gets something from it.
    async fn is_worth_it(&self, world: &World, shown: &str, admin: &mut Session) -> Result<()> {
        let statements = match &self.control {
            Control::Absent => return Ok(()),
            Control::Superuser => &self.statements,
            Control::Instead(statements) => statements,
        };
        let control = async |admin: &mut Session, whose: &str| {
            let filled = filled(statements, &world.values, whose);
            let outcome = if self.in_transaction {
                let triggers_off = WITHOUT_TRIGGERS.iter().map(|s| (*s).to_owned());
                admin
                    .run(&triggers_off.chain(filled).collect::<Vec<_>>())
                    .await
            } else {
                self.by(admin, &filled).await
            };
            (
                masked(&outcome.said, statements, &world.values, whose),
                outcome,
            )
        };
        let (said, outcome) = control(admin, "foreign").await;
        match self.ends {
            Ends::Refused(_) => {
                ensure!(
                    outcome.failed.is_none(),
                    "is nonsense, also for a superuser:\n{said}"
                );
                ensure!(
                    !said.ends_with("[0 rows]\n") || !is_change(statements),
                    "would change nothing:\n{said}"
                );
            }
            Ends::OwnAtMost | Ends::OwnOrError => {
                let prefix = "[0 rows]\n".repeat(WITHOUT_TRIGGERS.len() + 1);
                let said = said.strip_prefix(&prefix).unwrap_or(&said);
                let shown = shown.strip_prefix("[0 rows]\n").unwrap_or(shown);
                ensure!(said != shown, "a superuser gets the same:\n{said}");
            }
            Ends::AsAbsent => {
                let (absent, _) = control(admin, "absent").await;
                ensure!(
                    said != absent,
                    "a superuser gets the same for both:\n{said}"
                );
            }
        }
        Ok(())
    }
}

/// So that a superuser's control shows what the triggers and grants keep from others.
const WITHOUT_TRIGGERS: [&str; 4] = [
    "ALTER TABLE event_log.event DISABLE TRIGGER USER",
    "ALTER TABLE event_log.run DISABLE TRIGGER USER",
    "ALTER TABLE event_log.stream DISABLE TRIGGER USER",
    "ALTER TABLE event_log.audit DISABLE TRIGGER USER",
];

fn is_change(statements: &[String]) -> bool {
    statements.last().is_some_and(|s| {
        ["UPDATE", "DELETE", "INSERT", "MERGE"]
            .iter()
            .any(|verb| s.starts_with(verb))
    })
}

/// The statements with the placeholders' values; some_x = that of foreign_x or absent_x.
fn filled(statements: &[String], values: &BTreeMap<String, String>, some: &str) -> Vec<String> {
    let fill = |statement: &String| {
        let mut text = statement.clone();
        for kind in KINDS {
            text = text.replace(&format!("{{some_{kind}}}"), &format!("{{{some}_{kind}}}"));
        }
        values.iter().fold(text, |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    };
    statements.iter().map(fill).collect()
}

/// A text without what the attacker put into the statements.
fn masked(
    text: &str,
    statements: &[String],
    values: &BTreeMap<String, String>,
    some: &str,
) -> String {
    let mut text = text.to_owned();
    // A run's id holds its tenant's: longer ones first.
    let mut used: Vec<&String> = values
        .iter()
        .filter(|(name, value)| {
            let as_some = name.replace(&format!("{some}_"), "some_");
            // A number is too little to be told from others.
            value.parse::<i64>().is_err()
                && statements.iter().any(|s| {
                    s.contains(&format!("{{{name}}}")) || s.contains(&format!("{{{as_some}}}"))
                })
        })
        .map(|(_, value)| value)
        .collect();
    used.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in used {
        text = text.replace(value.as_str(), "?");
    }
    text
}
