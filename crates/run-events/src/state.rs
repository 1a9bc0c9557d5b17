//! The two state machines, each one exhaustive match (contract, "State").

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{RunEventType, StepEventType};

/// The status of a run. COMPLETED, FAILED and CANCELLED are terminal and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // The names are the contract's own.
pub enum RunStatus {
    Pending,
    Running,
    Paused,
    Completed,
    Failed,
    Cancelled,
}

/// The status of one attempt of a step. SUCCESS, FAILED and SKIPPED are terminal and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // The names are the contract's own.
pub enum StepStatus {
    Pending,
    Running,
    Success,
    Failed,
    Skipped,
}

impl RunStatus {
    /// The status after `event`, or `None` where the transition is invalid.
    pub fn after(self, event: RunEventType) -> Option<Self> {
        use RunEventType::*;
        use RunStatus::*;
        match (self, event) {
            (Pending, RunQueued) => Some(Pending),
            (Pending, RunStarted) => Some(Running),
            (Running, RunPaused) => Some(Paused),
            (Paused, RunResumed) => Some(Running),
            (Running, RunCompleted) => Some(Completed),
            (Running, RunFailed) => Some(Failed),
            (Running | Paused, RunCancelled) => Some(Cancelled),
            (Pending, RunPaused | RunResumed | RunCompleted | RunFailed | RunCancelled)
            | (Running, RunQueued | RunStarted | RunResumed)
            | (Paused, RunQueued | RunStarted | RunPaused | RunCompleted | RunFailed)
            | (Completed | Failed | Cancelled, _) => None,
        }
    }

    /// The status that `event` asks for, valid or not.
    pub fn attempted_by(event: RunEventType) -> Self {
        match event {
            RunEventType::RunQueued => Self::Pending,
            RunEventType::RunStarted | RunEventType::RunResumed => Self::Running,
            RunEventType::RunPaused => Self::Paused,
            RunEventType::RunCompleted => Self::Completed,
            RunEventType::RunFailed => Self::Failed,
            RunEventType::RunCancelled => Self::Cancelled,
        }
    }

    /// Whether nothing can change this status.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name in the read models and in snapshots.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The status with this name.
    pub fn parse(name: &str) -> Option<Self> {
        use RunStatus::*;
        [Pending, Running, Paused, Completed, Failed, Cancelled]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

impl StepStatus {
    /// The status after `event`, or `None` where the transition is invalid.
    pub fn after(self, event: StepEventType) -> Option<Self> {
        use StepEventType::*;
        use StepStatus::*;
        match (self, event) {
            (Pending, StepStarted) => Some(Running),
            (Pending, StepSkipped) => Some(Skipped),
            (Running, StepCompleted) => Some(Success),
            (Running, StepFailed) => Some(Failed),
            (Pending, StepCompleted | StepFailed)
            | (Running, StepStarted | StepSkipped)
            | (Success | Failed | Skipped, _) => None,
        }
    }

    /// The status that `event` asks for, valid or not.
    pub fn attempted_by(event: StepEventType) -> Self {
        match event {
            StepEventType::StepStarted => Self::Running,
            StepEventType::StepCompleted => Self::Success,
            StepEventType::StepFailed => Self::Failed,
            StepEventType::StepSkipped => Self::Skipped,
        }
    }

    /// The name in the read models and in snapshots.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Success => "SUCCESS",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
        }
    }

    /// The status with this name.
    pub fn parse(name: &str) -> Option<Self> {
        use StepStatus::*;
        [Pending, Running, Success, Failed, Skipped]
            .into_iter()
            .find(|status| status.as_str() == name)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
