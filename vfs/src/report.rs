//! What was seen, what was chosen, what was overridden: for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fs::Verdict;

/// The verdict in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerdictReport {
    /// `local`, `fuse`, `vm-shared`, `cluster`, `network` or `unknown`.
    pub class: String,
    /// Whether WAL is safe there.
    pub wal: bool,
    /// The filesystem's name: `ext4`, `nfs4`, `fuse.sshfs`.
    pub filesystem: String,
    /// What is mounted.
    pub source: Option<String>,
    /// Where.
    pub mount_point: Option<String>,
    /// The mount options that matter.
    pub options: Vec<String>,
    /// Whom locks are seen by.
    pub locks: String,
    /// Why.
    pub reason: String,
    /// What else to know.
    pub warnings: Vec<String>,
    /// Where the facts came from: `statmount`, `mountinfo`, `statfs`, `override`, `base VFS`, `nothing`.
    pub from: String,
}

impl From<&Verdict> for VerdictReport {
    fn from(verdict: &Verdict) -> Self {
        VerdictReport {
            class: verdict.class.name().into(),
            wal: verdict.wal,
            filesystem: verdict.filesystem.clone(),
            source: verdict.source.clone(),
            mount_point: verdict.mount_point.as_ref().map(|point| point.display().to_string()),
            options: verdict.options.clone(),
            locks: verdict.locks.name().into(),
            reason: verdict.reason.clone(),
            warnings: verdict.warnings.clone(),
            from: verdict.from.name().into(),
        }
    }
}

/// What one connection does with one database, as `PRAGMA hardened_report` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The database, without links. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Where it is.
    pub verdict: VerdictReport,
    /// The rule in force: `WAL, synchronous NORMAL`, `DELETE, synchronous FULL`, `off`.
    pub policy: String,
    /// Why this rule.
    pub reason: String,
    /// What the user decided against the verdict.
    pub overridden: Vec<String>,
    /// `read-write`, `read-only`, `immutable` or `nolock`.
    pub access: String,
    /// Device and inode of the file that was opened; `None` where the path may mean something else than a file.
    #[serde(default)]
    pub identity: Option<(u64, u64)>,
    /// What page 1 says: `SQLite database, ...`, or what the file seems to be instead.
    pub file: String,
    /// The journal mode in force, if it could be read.
    pub journal_mode: Option<String>,
    /// The synchronous level in force: `OFF`, `NORMAL`, `FULL`, `EXTRA`.
    pub synchronous: Option<String>,
    /// The busy timeout in force, in milliseconds.
    pub busy_timeout: Option<u32>,
    /// How torn and lost writes are watched for: `off`, `on`, `strict`, or why not.
    #[serde(default)]
    pub guard: String,
    /// Whose locks are taken: those of the open file (OFD), of the base VFS, or none; and why.
    #[serde(default)]
    pub locks: String,
    /// Settings of the connection beside those above, if whoever asks has looked: the VFS does not know them.
    #[serde(default)]
    pub settings: String,
    /// Damage that was proven, and failed syncs that have stopped everything: what was seen and what to do.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// What happened at open and since, once each.
    pub notes: Vec<String>,
    /// The VFS that does the file I/O.
    pub base: String,
    /// The version of the SQLite library.
    pub sqlite: String,
    /// The version of this crate.
    pub hardened: String,
}

impl Report {
    /// Of a database in memory, or a temporary one, of which the VFS hears nothing. `sqlite` is the version of the library.
    pub fn in_memory(path: &str, sqlite: &str) -> Report {
        let words = |text: &str| text.to_owned();
        let mut verdict = VerdictReport::from(&Verdict::unknown("it is not in a file"));
        verdict.class = words("local");
        verdict.filesystem = words("memory");
        Report {
            path: words(path),
            verdict,
            policy: words("off"),
            reason: words("it is not in a file"),
            overridden: Vec::new(),
            access: words("read-write"),
            file: words("a database in memory"),
            journal_mode: Some(words("memory")),
            synchronous: None,
            busy_timeout: None,
            guard: words("off"),
            locks: words("none"),
            settings: String::new(),
            alarms: Vec::new(),
            notes: Vec::new(),
            identity: None,
            base: words("none"),
            sqlite: words(sqlite),
            hardened: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Reads the answer of `PRAGMA hardened_report`.
    ///
    /// # Errors
    /// If the text is not such an answer.
    pub fn from_json(text: &str) -> Result<Report, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The report as one line of JSON.
    pub fn to_json(&self) -> String {
        // Strings and numbers only: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        writeln!(f, "database     {} ({})", self.path, self.access)?;
        write!(f, "filesystem   {} ({})", verdict.filesystem, verdict.class)?;
        if let Some(point) = &verdict.mount_point {
            write!(f, " at {point}")?;
        }
        if let Some(source) = &verdict.source {
            write!(f, " from {source}")?;
        }
        if !verdict.options.is_empty() {
            write!(f, ", {}", verdict.options.join(","))?;
        }
        writeln!(f)?;
        writeln!(f, "file         {}", self.file)?;
        writeln!(f, "verdict      {}", verdict.reason)?;
        writeln!(f, "policy       {}: {}", self.policy, self.reason)?;
        let unknown = "unknown".to_owned();
        write!(
            f,
            "in force     journal_mode {}, synchronous {}",
            self.journal_mode.as_ref().unwrap_or(&unknown),
            self.synchronous.as_ref().unwrap_or(&unknown)
        )?;
        if let Some(timeout) = self.busy_timeout {
            write!(f, ", busy_timeout {timeout} ms")?;
        }
        if !self.guard.is_empty() {
            write!(f, "\nguard        {}", self.guard)?;
        }
        if !self.locks.is_empty() {
            write!(f, "\nlocks        {}", self.locks)?;
        }
        if !self.settings.is_empty() {
            write!(f, "\nsettings     {}", self.settings)?;
        }
        for (title, lines) in [
            ("ALARM", &self.alarms),
            ("overridden", &self.overridden),
            ("warning", &verdict.warnings),
            ("note", &self.notes),
        ] {
            for line in lines {
                write!(f, "\n{title:<12} {line}")?;
            }
        }
        Ok(())
    }
}
