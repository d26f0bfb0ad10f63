//! What is concluded, and how it is told.

use std::fmt;

/// What repairs a page at the next open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protector {
    /// The rollback journal.
    Journal,
    /// The WAL.
    Wal,
}

/// What a page is, beside the images the log knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The latest image.
    IntactNew,
    /// The image before a transaction that was not finished, or was rolled back.
    IntactOld,
    /// Sectors of several known images.
    Torn {
        /// For each sector whether it is that of the latest image.
        newest: Vec<bool>,
    },
    /// An earlier image as a whole, or not in the file at all.
    Lost,
    /// Something that the log does not know.
    Foreign,
    /// Not judged: the next open writes it again from here.
    ToBeRepaired(Protector),
    /// Not judged: it could not be read, or nothing is expected of it.
    NotJudged,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlarmKind {
    /// A transaction is half in the database and its journal is gone.
    ProtectorMissing,
    /// A transaction is half in the database and the journal beside it is that of another.
    ProtectorMispaired,
    /// The journal or WAL beside the database belongs to another database.
    DatabaseReplaced,
    /// Pages hold sectors of several images.
    Torn,
    /// Pages hold an earlier image than the one that was written last.
    Lost,
    /// The WAL with the latest commits is gone.
    WalMissing,
    /// The WAL is another than the one with the latest commits.
    WalMispaired,
    /// The WAL is an older one than that with the latest commits.
    WalOlder,
    /// The WAL is damaged before its end: commits behind the damage cannot be read.
    WalDamaged,
}

/// Something is wrong, and there is proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What.
    pub kind: AlarmKind,
    /// The pages that prove it.
    pub pages: Vec<u32>,
    /// What was seen, why it matters and what to do, for a person.
    pub text: String,
}

impl AlarmKind {
    /// Whether the database must not be written until a person has looked. Writing would overwrite what can be saved.
    #[must_use]
    pub fn blocks_writes(self) -> bool {
        self != AlarmKind::WalDamaged
    }

    /// Whether the database must not even be read: SQLite would roll back or replay the wrong thing first.
    #[must_use]
    pub fn refuses_reads(self) -> bool {
        use AlarmKind::{DatabaseReplaced, ProtectorMispaired, WalMispaired, WalOlder};
        matches!(self, DatabaseReplaced | ProtectorMispaired | WalMispaired | WalOlder)
    }
}

impl Alarm {
    /// As [`AlarmKind::blocks_writes`].
    #[must_use]
    pub fn blocks_writes(&self) -> bool {
        self.kind.blocks_writes()
    }

    /// As [`AlarmKind::refuses_reads`].
    #[must_use]
    pub fn refuses_reads(&self) -> bool {
        self.kind.refuses_reads()
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How many pages are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the states say it")]
pub struct Counts {
    pub intact_new: usize,
    pub intact_old: usize,
    pub torn: usize,
    pub lost: usize,
    pub foreign: usize,
    pub to_be_repaired: usize,
    pub not_judged: usize,
}

/// What was concluded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The pages that were looked at, in their order.
    pub pages: Vec<(u32, State)>,
    /// What is proven to be wrong.
    pub alarms: Vec<Alarm>,
    /// What is remarkable and proves nothing.
    pub notes: Vec<String>,
    /// The WAL holds commits that SQLite cannot reach and will write over: it is to be kept.
    pub keep_wal: bool,
}

impl Finding {
    /// How many pages are in which state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, state) in &self.pages {
            *match state {
                State::IntactNew => &mut counts.intact_new,
                State::IntactOld => &mut counts.intact_old,
                State::Torn { .. } => &mut counts.torn,
                State::Lost => &mut counts.lost,
                State::Foreign => &mut counts.foreign,
                State::ToBeRepaired(_) => &mut counts.to_be_repaired,
                State::NotJudged => &mut counts.not_judged,
            } += 1;
        }
        counts
    }

    /// Whether the database must not be written.
    #[must_use]
    pub fn blocks_writes(&self) -> bool {
        self.alarms.iter().any(Alarm::blocks_writes)
    }

    /// Whether the database must not be read.
    #[must_use]
    pub fn refuses_reads(&self) -> bool {
        self.alarms.iter().any(Alarm::refuses_reads)
    }

    pub(super) fn alarm(&mut self, kind: AlarmKind, pages: Vec<u32>, text: String) {
        self.alarms.push(Alarm { kind, pages, text });
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// Page numbers for a sentence: all of a few, the first of many.
pub(super) fn list(pages: &[u32]) -> String {
    let mut text = if pages.len() == 1 { "page ".to_owned() } else { format!("{} pages (", pages.len()) };
    let first: Vec<String> = pages.iter().take(8).map(u32::to_string).collect();
    text.push_str(&first.join(", "));
    if pages.len() > 8 {
        text.push_str(", ...");
    }
    if pages.len() != 1 {
        text.push(')');
    }
    text
}
