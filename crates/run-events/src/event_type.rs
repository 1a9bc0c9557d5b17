//! The event types of the contract. Used by the envelope, the state machines and the fold.

use std::fmt;

/// What kind of event this is.
///
/// The known types drive a run's state; an unknown one is stored and is opaque to state
/// (contract, "The event").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventType {
    /// An event of the run as a whole: carries no `stepId`.
    Run(RunEventType),
    /// An event of one attempt of one step: carries a `stepId`.
    Step(StepEventType),
    /// Any other name, 1 to 128 bytes. It advances every watermark and changes no state.
    Unknown(String),
}

/// The known run events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the contract's own.
pub enum RunEventType {
    RunQueued,
    RunStarted,
    RunPaused,
    RunResumed,
    RunCompleted,
    RunFailed,
    RunCancelled,
}

/// The known step events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the contract's own.
pub enum StepEventType {
    StepStarted,
    StepCompleted,
    StepFailed,
    StepSkipped,
}

impl EventType {
    /// The type with this name; a name that the contract does not know is [`EventType::Unknown`], and
    /// only such a name is kept.
    pub fn from_name(name: impl AsRef<str> + Into<String>) -> Self {
        use RunEventType::*;
        use StepEventType::*;
        match name.as_ref() {
            "RunQueued" => Self::Run(RunQueued),
            "RunStarted" => Self::Run(RunStarted),
            "RunPaused" => Self::Run(RunPaused),
            "RunResumed" => Self::Run(RunResumed),
            "RunCompleted" => Self::Run(RunCompleted),
            "RunFailed" => Self::Run(RunFailed),
            "RunCancelled" => Self::Run(RunCancelled),
            "StepStarted" => Self::Step(StepStarted),
            "StepCompleted" => Self::Step(StepCompleted),
            "StepFailed" => Self::Step(StepFailed),
            "StepSkipped" => Self::Step(StepSkipped),
            _ => Self::Unknown(name.into()),
        }
    }

    /// The name as it stands on the wire and in the log.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Run(RunEventType::RunQueued) => "RunQueued",
            Self::Run(RunEventType::RunStarted) => "RunStarted",
            Self::Run(RunEventType::RunPaused) => "RunPaused",
            Self::Run(RunEventType::RunResumed) => "RunResumed",
            Self::Run(RunEventType::RunCompleted) => "RunCompleted",
            Self::Run(RunEventType::RunFailed) => "RunFailed",
            Self::Run(RunEventType::RunCancelled) => "RunCancelled",
            Self::Step(StepEventType::StepStarted) => "StepStarted",
            Self::Step(StepEventType::StepCompleted) => "StepCompleted",
            Self::Step(StepEventType::StepFailed) => "StepFailed",
            Self::Step(StepEventType::StepSkipped) => "StepSkipped",
            Self::Unknown(name) => name,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_survives_a_round_trip_and_is_known() {
        for name in [
            "RunQueued",
            "RunStarted",
            "RunPaused",
            "RunResumed",
            "RunCompleted",
            "RunFailed",
            "RunCancelled",
            "StepStarted",
            "StepCompleted",
            "StepFailed",
            "StepSkipped",
        ] {
            let parsed = EventType::from_name(name);
            assert!(!matches!(parsed, EventType::Unknown(_)), "{name}");
            assert_eq!(parsed.as_str(), name);
        }
    }

    #[test]
    fn names_are_case_sensitive() {
        assert_eq!(
            EventType::from_name("runstarted"),
            EventType::Unknown("runstarted".into())
        );
    }
}
