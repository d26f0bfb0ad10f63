//! What a user may choose, in one grammar for Rust, URI parameters and the environment.
//!
//! The grammar is that of a URI query: `key=value` pairs joined by `&`, percent-encoded. A key or a value that is not
//! known is refused, never ignored: an option that silently does nothing is worse than an error.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Which journal mode the VFS chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyChoice {
    /// WAL on a local filesystem, a rollback journal with synchronous FULL everywhere else.
    #[default]
    Auto,
    /// WAL wherever the file is. For a mount known to have one route and one host only.
    Wal,
    /// A rollback journal with synchronous FULL wherever the file is.
    Delete,
    /// A pure shim: no automatic pragma, nothing hidden, nothing refused.
    Off,
}

/// What kind of filesystem the file is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FsChoice {
    /// Ask the kernel.
    #[default]
    Auto,
    /// Believe that it is local. The report says that the kernel was not believed.
    Local,
    /// Treat it as shared with other hosts.
    Network,
}

/// The rollback journal used where WAL is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RollbackJournal {
    /// The journal is deleted at the end of each transaction.
    #[default]
    Delete,
    /// The journal is truncated to nothing.
    Truncate,
    /// The header of the journal is overwritten with zeros.
    Persist,
}

/// How torn and lost writes are watched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GuardChoice {
    /// As measured to be best for the filesystem: `on`; where it is not local, without a word about transactions that have
    /// committed, which would be round trips.
    #[default]
    Auto,
    /// No record is kept. A failed sync is still healed or stops everything.
    Off,
    /// A record beside the database, written before the pages and not synced by itself: what the disk has of it after a
    /// power cut is used.
    On,
    /// The record is synced before the pages are written, so that it is always there after a power cut; and where it cannot
    /// be kept nothing is written.
    Strict,
}

/// Whether pages have checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChecksumChoice {
    /// Where the database has them they are kept and verified; others get none.
    #[default]
    Auto,
    /// A new database gets them too, and one without them when VACUUM rewrites it.
    On,
    /// Where the database has them they are kept, and wrong ones are no error.
    Off,
}

/// Whose locks SQLite's lock bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocksChoice {
    /// Those of an open file where they work, otherwise those of the process; the report says which and why.
    #[default]
    Auto,
    /// Those of an open file, which no other close() in the process drops. An open where they cannot be had is refused.
    Ofd,
    /// Those that the base VFS takes: of the process, with `unix`.
    Posix,
}

/// Whether writes that follow each other are sent as one: those to a rollback journal between two syncs, and pages of the
/// database that stand side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CombineChoice {
    /// Where each write is a round trip, that is wherever the filesystem is not local.
    #[default]
    Auto,
    /// Everywhere.
    On,
    /// Nowhere.
    Off,
}

/// A key or value that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The key as written.
    pub key: String,
    /// The value as written.
    pub value: String,
    /// What would have been accepted.
    pub expected: String,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option `{}={}` is not valid: {}", self.key, self.value, self.expected)
    }
}

impl std::error::Error for OptionError {}

macro_rules! choice {
    ($type:ty, $key:literal, $($word:literal => $variant:path),+) => {
        impl FromStr for $type {
            type Err = OptionError;

            fn from_str(value: &str) -> Result<Self, OptionError> {
                $(if value.eq_ignore_ascii_case($word) { return Ok($variant); })+
                Err(OptionError {
                    key: $key.into(),
                    value: value.into(),
                    expected: format!("expected one of {}", [$($word),+].join(", ")),
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($variant => $word),+ })
            }
        }
    };
}

choice!(PolicyChoice, "policy", "auto" => PolicyChoice::Auto, "wal" => PolicyChoice::Wal,
    "delete" => PolicyChoice::Delete, "off" => PolicyChoice::Off);
choice!(FsChoice, "fs", "auto" => FsChoice::Auto, "local" => FsChoice::Local, "network" => FsChoice::Network);
choice!(RollbackJournal, "journal", "delete" => RollbackJournal::Delete,
    "truncate" => RollbackJournal::Truncate, "persist" => RollbackJournal::Persist);
choice!(GuardChoice, "guard", "auto" => GuardChoice::Auto, "off" => GuardChoice::Off,
    "on" => GuardChoice::On, "strict" => GuardChoice::Strict);

choice!(ChecksumChoice, "checksum", "auto" => ChecksumChoice::Auto, "on" => ChecksumChoice::On,
    "off" => ChecksumChoice::Off);

choice!(CombineChoice, "combine", "auto" => CombineChoice::Auto, "on" => CombineChoice::On, "off" => CombineChoice::Off);

choice!(LocksChoice, "locks", "auto" => LocksChoice::Auto, "ofd" => LocksChoice::Ofd, "posix" => LocksChoice::Posix);

/// The keys that a URI or `HARDENED_OPTIONS` may name.
pub const KEYS: [&str; 10] =
    ["policy", "fs", "journal", "guard", "busy_timeout", "fs_timeout", "checksum", "locks", "combine", "base"];

/// How the VFS treats the databases it opens.
///
/// ```
/// use hardened_vfs::{Options, PolicyChoice};
///
/// let options: Options = "policy=delete&busy_timeout=5000".parse()?;
/// assert_eq!(options.policy, PolicyChoice::Delete);
/// assert_eq!(options.busy_timeout.as_millis(), 5000);
/// assert!("policy=sometimes".parse::<Options>().is_err());
/// # Ok::<(), hardened_vfs::OptionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Which journal mode is chosen (`policy=`).
    pub policy: PolicyChoice,
    /// What kind of filesystem is assumed (`fs=`).
    pub fs: FsChoice,
    /// The rollback journal where WAL is not allowed (`journal=`).
    pub journal: RollbackJournal,
    /// How torn and lost writes are watched for (`guard=`). The first connection of a process to a database decides.
    pub guard: GuardChoice,
    /// How long a connection waits for a lock (`busy_timeout=`, milliseconds). Zero: not at all.
    pub busy_timeout: Duration,
    /// How long the filesystem may take to answer before the open is refused (`fs_timeout=`, milliseconds).
    pub fs_timeout: Duration,
    /// Whether pages have checksums (`checksum=`).
    pub checksum: ChecksumChoice,
    /// Whose locks are taken (`locks=`).
    pub locks: LocksChoice,
    /// Whether writes that follow each other are sent as one (`combine=`). By default those of a rollback transaction are, and
    /// where each call is a round trip questions are spared, too.
    pub combine: CombineChoice,
    /// The VFS that does the file I/O (`base=`); the process's default one when `None`.
    pub base: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            policy: PolicyChoice::default(),
            fs: FsChoice::default(),
            journal: RollbackJournal::default(),
            guard: GuardChoice::default(),
            busy_timeout: Duration::from_millis(2000),
            fs_timeout: Duration::from_secs(10),
            checksum: ChecksumChoice::default(),
            locks: LocksChoice::default(),
            combine: CombineChoice::default(),
            base: None,
        }
    }
}

impl Options {
    /// The defaults: everything automatic, a busy timeout of 2 s, ten seconds for the filesystem to answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one option by its name in the grammar.
    ///
    /// # Errors
    /// [`OptionError`] if the key is not known or the value is not one it takes.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        match key {
            "policy" => self.policy = value.parse()?,
            "fs" => self.fs = value.parse()?,
            "journal" => self.journal = value.parse()?,
            "guard" => self.guard = value.parse()?,
            "busy_timeout" => self.busy_timeout = milliseconds(key, value, 0)?,
            "fs_timeout" => self.fs_timeout = milliseconds(key, value, 1)?,
            "checksum" => self.checksum = value.parse()?,
            "locks" => self.locks = value.parse()?,
            "combine" => self.combine = value.parse()?,
            "base" if value.is_empty() || value.contains('\0') => {
                return Err(refuse(key, value, "expected the name of a registered VFS"));
            }
            "base" => self.base = Some(value.to_owned()),
            _ => return Err(refuse(key, value, &format!("the options are {}", KEYS.join(", ")))),
        }
        Ok(())
    }
}

impl FromStr for Options {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut options = Options::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| refuse(pair, "", "expected key=value pairs joined by `&`"))?;
            let expected = "expected UTF-8 behind the percent signs";
            let name = decode(key).ok_or_else(|| refuse(key, value, expected))?;
            let value = decode(value).ok_or_else(|| refuse(&name, value, expected))?;
            options.set(&name, &value)?;
        }
        Ok(options)
    }
}

/// The same grammar back: what is not a default, in the order of [`KEYS`].
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Options::default().pairs();
        let pairs: Vec<String> = self.pairs().into_iter().filter(|pair| !default.contains(pair)).collect();
        f.write_str(&pairs.join("&"))
    }
}

impl Options {
    /// Every option in the grammar, also those that are as by default.
    ///
    /// ```
    /// let full = hardened_vfs::Options::default().in_full();
    /// assert!(full.starts_with("policy=auto&fs=auto&journal=delete&guard=auto&busy_timeout=2000&fs_timeout=10000&"));
    /// assert!(full.ends_with("checksum=auto&locks=auto&combine=auto"));
    /// ```
    pub fn in_full(&self) -> String {
        self.pairs().join("&")
    }

    fn pairs(&self) -> Vec<String> {
        let mut pairs = vec![
            format!("policy={}", self.policy),
            format!("fs={}", self.fs),
            format!("journal={}", self.journal),
            format!("guard={}", self.guard),
            format!("busy_timeout={}", self.busy_timeout.as_millis()),
            format!("fs_timeout={}", self.fs_timeout.as_millis()),
            format!("checksum={}", self.checksum),
            format!("locks={}", self.locks),
            format!("combine={}", self.combine),
        ];
        if let Some(base) = &self.base {
            let base = percent_encoding::utf8_percent_encode(base, percent_encoding::NON_ALPHANUMERIC);
            pairs.push(format!("base={base}"));
        }
        pairs
    }
}

fn refuse(key: &str, value: &str, expected: &str) -> OptionError {
    OptionError { key: key.into(), value: value.into(), expected: expected.into() }
}

fn decode(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// sqlite3_busy_timeout takes a C int, so a longer wait could not be honoured.
fn milliseconds(key: &str, value: &str, least: u64) -> Result<Duration, OptionError> {
    match value.parse::<u64>() {
        Ok(ms) if ms >= least && ms <= i32::MAX as u64 && !value.starts_with('+') => Ok(Duration::from_millis(ms)),
        _ => Err(refuse(key, value, &format!("expected milliseconds from {least} to {}", i32::MAX))),
    }
}
