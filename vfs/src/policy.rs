//! Verdict and options in, the rules for one database out. Pure.

use std::fmt;

use crate::fs::{Class, LockReach, Verdict};
use crate::options::{FsChoice, Options, PolicyChoice, RollbackJournal};

/// What the VFS does with one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing: a pure shim.
    Off,
    /// WAL is set at open; other rollback journals stay the application's choice.
    Wal,
    /// No shared memory is offered; the rollback journal is fixed.
    Rollback(RollbackJournal),
}

/// The levels of `PRAGMA synchronous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Synchronous {
    Normal = 1,
    Full = 2,
}

impl Synchronous {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        }
    }

    /// One digit, so that it fits wherever a value was written.
    fn digit(self) -> &'static str {
        match self {
            Synchronous::Normal => "1",
            Synchronous::Full => "2",
        }
    }
}

/// The rules for one database, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) rule: Rule,
    /// Set at open, and the least that `PRAGMA synchronous` may set.
    pub(crate) floor: Synchronous,
    pub(crate) reason: String,
    /// What the user decided against the verdict.
    pub(crate) overridden: Vec<String>,
}

impl Policy {
    /// The policy for a database on `verdict`. `shared_memory`: whether the base VFS offers any.
    pub(crate) fn settle(options: &Options, verdict: &Verdict, shared_memory: bool) -> Policy {
        let mut overridden = Vec::new();
        let (wal, mut reason) = match (options.policy, options.fs) {
            (PolicyChoice::Off, _) => {
                let reason = "policy=off: a pure shim, nothing is chosen or refused".to_owned();
                return Policy { rule: Rule::Off, floor: Synchronous::Normal, reason, overridden };
            }
            (PolicyChoice::Delete, _) => (false, "policy=delete".to_owned()),
            (PolicyChoice::Wal, _) => (true, "policy=wal".to_owned()),
            (PolicyChoice::Auto, FsChoice::Local) => (true, "fs=local".to_owned()),
            (PolicyChoice::Auto, FsChoice::Network) => (false, "fs=network".to_owned()),
            (PolicyChoice::Auto, FsChoice::Auto) => (verdict.wal, verdict.reason.clone()),
        };
        if wal != verdict.wal {
            overridden.push(format!("{reason} stands against the verdict: {}", verdict.reason));
        }
        let mut rule = if wal { Rule::Wal } else { Rule::Rollback(options.journal) };
        if wal && !shared_memory {
            rule = Rule::Rollback(options.journal);
            reason = "the base VFS offers no shared memory, which WAL needs".into();
        }
        let local = verdict.wal || options.fs == FsChoice::Local;
        let floor = if rule == Rule::Wal && local { Synchronous::Normal } else { Synchronous::Full };
        Policy { rule, floor, reason, overridden }
    }

    /// The policy after the filesystem has refused WAL at run time.
    pub(crate) fn fall_back(&self, journal: RollbackJournal, cause: &str) -> Policy {
        Policy {
            rule: Rule::Rollback(journal),
            floor: Synchronous::Full,
            reason: format!("WAL was tried and refused: {cause}"),
            overridden: self.overridden.clone(),
        }
    }

    pub(crate) fn hides_shared_memory(&self) -> bool {
        matches!(self.rule, Rule::Rollback(_))
    }
}

/// Whether a WAL database found at `verdict` may be converted after taking its exclusive lock: only if that lock would
/// have met everybody else.
pub(crate) fn exclusive_lock_is_proof(verdict: &Verdict) -> bool {
    // On FUSE the mount is all there is to ask; elsewhere other hosts are known to be there and not to be heard.
    verdict.locks != LockReach::ThisMount || verdict.class == Class::Fuse
}

/// What happens to a pragma.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// SQLite goes on as if we were not there.
    Pass,
    /// SQLite goes on with this value in place of the one written; it is never longer.
    Instead(String),
    /// Nothing happens.
    Swallow,
    /// The value is the report.
    Report,
}

/// A pragma's answer and what to tell the user about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// A kind (said once per database) and a sentence.
    pub(crate) remark: Option<(&'static str, String)>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Reply { answer, remark: None }
    }
}

/// A journal mode that SQLite does not know makes the pragma a query, which answers with the mode in force, in SQLite's
/// own row shape (<https://www.sqlite.org/pragma.html#pragma_journal_mode>).
fn as_query(value: &str) -> Answer {
    if value.is_empty() {
        // There is no room for an unknown one, and '' means DELETE.
        return Answer::Swallow;
    }
    let mut unknown = value.to_owned();
    // Every known mode begins with a letter.
    unknown.replace_range(..1, "?");
    Answer::Instead(unknown)
}

/// Whether a pragma of this name can have an answer of ours.
pub(crate) fn is_ours(name: &str) -> bool {
    ["hardened_report", "journal_mode", "synchronous"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Decides about one pragma. `value` is what stands behind `=`; `exclusive` the locking mode in force.
pub(crate) fn answer(policy: &Policy, name: &str, value: Option<&str>, exclusive: bool) -> Reply {
    if name.eq_ignore_ascii_case("hardened_report") {
        return Answer::Report.into();
    }
    let (Some(value), false) = (value, policy.rule == Rule::Off) else { return Answer::Pass.into() };
    if name.eq_ignore_ascii_case("journal_mode") {
        return journal_mode(policy, value, exclusive);
    }
    if name.eq_ignore_ascii_case("synchronous") {
        return synchronous(policy, value);
    }
    Answer::Pass.into()
}

fn journal_mode(policy: &Policy, value: &str, exclusive: bool) -> Reply {
    let Some(mode) = JournalMode::parse(value) else { return Answer::Pass.into() };
    let refused = |remark: String| Reply { answer: as_query(value), remark: Some(("journal_mode", remark)) };
    match (policy.rule, mode) {
        (_, JournalMode::Off | JournalMode::Memory) => refused(format!(
            "PRAGMA journal_mode={value} was not obeyed: without a journal on disk a crash in a transaction corrupts the \
             database"
        )),
        (Rule::Rollback(_), JournalMode::Wal) => {
            let remark = format!("PRAGMA journal_mode={value} was not obeyed: {}", policy.reason);
            // SQLite keeps the mode by itself where no shared memory is offered, and still sets it on the other
            // databases of the connection. In EXCLUSIVE locking mode it would need none.
            let answer = if exclusive { as_query(value) } else { Answer::Pass };
            Reply { answer, remark: Some(("journal_mode", remark)) }
        }
        (Rule::Rollback(fixed), mode) if mode != JournalMode::from(fixed) => refused(format!(
            "PRAGMA journal_mode={value} was not obeyed: the rollback journal is {fixed} here (option journal=)"
        )),
        _ => Answer::Pass.into(),
    }
}

fn synchronous(policy: &Policy, value: &str) -> Reply {
    let level = synchronous_level(value);
    if level >= policy.floor as u8 {
        return Answer::Pass.into();
    }
    let answer = if value.is_empty() { Answer::Swallow } else { Answer::Instead(policy.floor.digit().to_owned()) };
    let remark = format!(
        "PRAGMA synchronous={value} was raised to {}: {}",
        policy.floor.word(),
        match policy.floor {
            Synchronous::Full => policy.reason.as_str(),
            Synchronous::Normal => "below it a power cut can corrupt the database",
        }
    );
    Reply { answer, remark: Some(("synchronous", remark)) }
}

/// The level that SQLite reads from a value, 0 (OFF) to 3 (EXTRA).
fn synchronous_level(value: &str) -> u8 {
    if value.starts_with(|first: char| first.is_ascii_digit()) {
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        // SQLite reads what does not fit in 31 bits as 0, keeps three bits of the number plus one, and never lets that be
        // zero.
        let number = digits.parse::<i32>().map_or(0, i32::unsigned_abs);
        let kept = (number.wrapping_add(1) & 7).max(1) as u8;
        return (kept - 1).min(3);
    }
    match value.to_ascii_lowercase().as_str() {
        "off" | "no" | "false" => 0,
        "full" => 2,
        "extra" => 3,
        // ON, YES, TRUE, NORMAL and every word SQLite does not know.
        _ => 1,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalMode {
    Delete,
    Persist,
    Off,
    Truncate,
    Memory,
    Wal,
}

impl JournalMode {
    /// As SQLite does: the first mode, in its own order, that begins with the value.
    fn parse(value: &str) -> Option<JournalMode> {
        let modes = [
            ("delete", JournalMode::Delete),
            ("persist", JournalMode::Persist),
            ("off", JournalMode::Off),
            ("truncate", JournalMode::Truncate),
            ("memory", JournalMode::Memory),
            ("wal", JournalMode::Wal),
        ];
        let value = value.to_ascii_lowercase();
        modes.into_iter().find(|(name, _)| name.starts_with(&value)).map(|(_, mode)| mode)
    }
}

impl From<RollbackJournal> for JournalMode {
    fn from(journal: RollbackJournal) -> Self {
        match journal {
            RollbackJournal::Delete => JournalMode::Delete,
            RollbackJournal::Truncate => JournalMode::Truncate,
            RollbackJournal::Persist => JournalMode::Persist,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Rule::Off => write!(f, "off"),
            Rule::Wal => write!(f, "WAL, synchronous {}", self.floor.word()),
            Rule::Rollback(journal) => {
                write!(f, "{}, synchronous {}", journal.to_string().to_uppercase(), self.floor.word())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(wal: bool) -> Verdict {
        let mut verdict = Verdict::unknown("because");
        verdict.wal = wal;
        verdict
    }

    fn policy(options: &str, wal: bool) -> Policy {
        let options: Options = options.parse().unwrap_or_default();
        Policy::settle(&options, &verdict(wal), true)
    }

    #[test]
    fn the_rule_follows_the_options_then_the_verdict() {
        let wal = Rule::Wal;
        let delete = Rule::Rollback(RollbackJournal::Delete);
        for (options, local, rule, floor, overridden) in [
            ("", true, wal, Synchronous::Normal, false),
            ("", false, delete, Synchronous::Full, false),
            ("fs=local", false, wal, Synchronous::Normal, true),
            ("fs=network", true, delete, Synchronous::Full, true),
            ("policy=delete", true, delete, Synchronous::Full, true),
            ("policy=wal", false, wal, Synchronous::Full, true),
            ("policy=off", false, Rule::Off, Synchronous::Normal, false),
            ("journal=persist", false, Rule::Rollback(RollbackJournal::Persist), Synchronous::Full, false),
        ] {
            let policy = policy(options, local);
            assert_eq!((policy.rule, policy.floor), (rule, floor), "{options} on local={local}");
            assert_eq!(!policy.overridden.is_empty(), overridden, "{options} on local={local}");
        }
        let bare = Policy::settle(&Options::default(), &verdict(true), false);
        assert_eq!((bare.rule, bare.floor), (delete, Synchronous::Full));
    }

    #[test]
    fn journal_mode_is_answered_by_the_rule() {
        let query = |text: &str| Answer::Instead(text.to_owned());
        for (options, local, exclusive, value, answer) in [
            ("", true, false, "wal", Answer::Pass),
            ("", true, false, "DELETE", Answer::Pass),
            ("", true, false, "off", query("?ff")),
            ("", true, false, "m", query("?")),
            ("", false, false, "WAL", Answer::Pass),
            ("", false, true, "WAL", query("?AL")),
            ("", false, true, "w", query("?")),
            ("", false, false, "truncate", query("?runcate")),
            ("", false, false, "delete", Answer::Pass),
            ("", false, false, "", Answer::Pass),
            ("", false, false, "nonsense", Answer::Pass),
            ("journal=truncate", false, false, "truncate", Answer::Pass),
            ("journal=truncate", false, false, "delete", query("?elete")),
            ("journal=truncate", false, false, "", Answer::Swallow),
            ("policy=off", false, false, "memory", Answer::Pass),
        ] {
            let reply = super::answer(&policy(options, local), "Journal_Mode", Some(value), exclusive);
            assert_eq!(reply.answer, answer, "{options} local={local} {value}");
        }
    }

    #[test]
    fn synchronous_is_read_as_sqlite_reads_it_and_raised_to_the_floor() {
        for (value, level) in [
            ("OFF", 0),
            ("no", 0),
            ("0", 0),
            ("NORMAL", 1),
            ("on", 1),
            ("what", 1),
            ("-1", 1),
            ("1", 1),
            ("FULL", 2),
            ("2", 2),
            ("extra", 3),
            ("3", 3),
            ("7", 0),
            ("8", 0),
            ("9", 1),
            ("10", 2),
            ("2147483649", 0),
            ("2147483650", 0),
            ("4294967298", 0),
            ("18446744073709551618", 0),
            ("00000000000000000002", 2),
        ] {
            assert_eq!(synchronous_level(value), level, "{value}");
            let network = super::answer(&policy("", false), "synchronous", Some(value), false).answer;
            let local = super::answer(&policy("", true), "synchronous", Some(value), false).answer;
            assert_eq!(network, if level < 2 { Answer::Instead("2".into()) } else { Answer::Pass }, "{value}");
            assert_eq!(local, if level < 1 { Answer::Instead("1".into()) } else { Answer::Pass }, "{value}");
        }
        assert_eq!(super::answer(&policy("", false), "synchronous", Some(""), false).answer, Answer::Swallow);
    }
}
