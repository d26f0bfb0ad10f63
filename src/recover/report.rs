//! What a recovery has done.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::Finding;
use crate::salvage::Salvaged;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing that damages data was found; nothing was changed.
    Intact,
    /// Only indexes were wrong. They were made anew from the rows, which are all there.
    Reindexed {
        /// Their names.
        indexes: Vec<String>,
    },
    /// The rows were taken out of the damaged database into a new one.
    Salvaged(Salvaged),
    /// Nothing could be salvaged; a backup has taken the place of the database. What was written after it is lost, as far
    /// as it is not in what was kept.
    Restored {
        /// The backup, which is where it was.
        backup: PathBuf,
        /// Why nothing was salvaged.
        cause: String,
    },
}

/// What a recovery has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recovery {
    /// The database, links followed.
    pub path: PathBuf,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What the check had found.
    pub findings: Vec<Finding>,
    /// The damaged database as it was; its log and journal are beside it with `-wal` and `-journal` after this name. `None` if
    /// nothing was changed.
    pub kept: Option<PathBuf>,
    /// The same damage had been kept before, and was not kept once more.
    pub kept_before: bool,
    /// What else a user should know.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Recovery {
    /// Whether the database is another one than before.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.outcome != Outcome::Intact
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.outcome {
            Outcome::Intact => write!(f, "{path}: nothing that damages data was found; nothing was changed")?,
            Outcome::Reindexed { indexes } => {
                write!(f, "{path}: made {} anew from the rows, which are all there", indexes.join(", "))?;
            }
            Outcome::Salvaged(salvaged) => write!(f, "{path}: {salvaged}")?,
            Outcome::Restored { backup, cause } => {
                write!(f, "{path}: restored from {}, as nothing could be salvaged: {cause}", backup.display())?;
            }
        }
        if let Some(kept) = &self.kept {
            let before = if self.kept_before { " was kept before" } else { " is kept" };
            write!(f, "\nthe damaged one{before} as {}", kept.display())?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}
