//! What somebody has left in the guard's record, judged before the first read.
//!
//! With the first SHARED lock nobody can be writing pages in rollback mode, and nothing has been read yet. Whoever is alone
//! judges; who comes meanwhile is told to wait. Damage that is proven stops writing, for this process and by the record for
//! others, until the user has decided; where SQLite would roll back or replay the wrong thing, reading as well.

use std::ffi::c_int;
use std::sync::atomic::Ordering;

use libsqlite3_sys as ffi;

use super::control::MAGIC;
use super::link::Files;
use super::{observe, resume, witness};
use crate::format::wal;
use crate::fs::Class;
use crate::guard;
use crate::guard::beside::{self, Circumstances};
use crate::guard::classify::{self, Finding, Journal, Observation, PageNow, Wal};
use crate::guard::images::Folded;
use crate::guard::keeper::{Keeper, Left};
use crate::guard::log::{HeaderError, Time};
use crate::guard::store::Company;
use crate::guard::sums::Sums;
use crate::shared::Shared;

/// Values of [`Shared::judged`].
const CLEAN: u8 = 1;
const BLOCKED: u8 = 2;
const REFUSED: u8 = 3;

/// Whether it was judged, and nothing speaks against reading and writing.
#[inline]
pub(crate) fn is_clean(shared: &Shared) -> bool {
    shared.judged.load(Ordering::Acquire) == CLEAN
}

/// Judges the record if nobody in this process has. A code if nothing may be read.
pub(crate) fn before_the_first_read(files: &Files<'_>) -> Option<c_int> {
    let shared = files.main.shared.as_ref()?;
    let mut judged = shared.judged.load(Ordering::Acquire);
    if judged == 0 {
        let mut keeper = shared.keeper();
        judged = shared.judged.load(Ordering::Acquire);
        if judged == 0 {
            judged = match judge(files, shared, &mut keeper) {
                Ok(judged) => judged,
                Err(code) => return Some(code),
            };
            shared.judged.store(judged, Ordering::Release);
        }
    }
    if judged != CLEAN {
        files.main.blocked.store(true, Ordering::Relaxed);
    }
    (judged == REFUSED).then_some(ffi::SQLITE_IOERR_DATA)
}

fn judge(files: &Files<'_>, shared: &Shared, keeper: &mut Keeper) -> Result<u8, c_int> {
    if files.database.device_characteristics() & ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE == 0 {
        // A write may change what stands beside it, so pages that nobody wrote prove nothing.
        shared.records.store(false, Ordering::Relaxed);
        files.main.note("a power cut may change bytes beside those written here: writes are not watched for".into());
    }
    if is_encrypted(files) {
        // Its change counter cannot be read.
        shared.records.store(false, Ordering::Relaxed);
        files
            .main
            .note("page 1 is not SQLite's own, perhaps encrypted: torn and lost writes are not watched for".into());
    }
    let left = match keeper.left() {
        Ok(None) => return Ok(CLEAN),
        Ok(Some(left)) => left,
        Err(ffi::SQLITE_BUSY) => return Err(ffi::SQLITE_BUSY),
        Err(code) => {
            files.main.warn(
                "guard",
                format!("the guard's record cannot be used (code {code}): nothing is concluded from it"),
            );
            return Ok(CLEAN);
        }
    };
    if left.company == Company::Others {
        // They have judged it.
        keeper.judged(left.company, None);
        return Ok(match keeper.alarmed() {
            Some(text) => {
                shared.alarm(text.to_owned());
                files.main.warn("alarm", text.to_owned());
                BLOCKED
            }
            None => CLEAN,
        });
    }
    let (judged, there) = match Folded::read(&left.bytes) {
        Ok(folded) => match compare(files, &folded, &left) {
            Some((finding, seen)) => {
                let there = match &seen.wal {
                    Wal::Log(wal) => Some(wal.generation),
                    _ => None,
                };
                (conclude(files, shared, keeper, &folded, &seen, &finding), there)
            }
            None => {
                let note = "what the guard's record says could not be compared: the files could not be read";
                files.main.note(note.into());
                (CLEAN, None)
            }
        },
        // Nothing was left of it.
        Err(HeaderError::Truncated { have: 0 }) => (CLEAN, None),
        Err(error) => {
            files.main.note(format!("the guard's record says nothing: {error}"));
            (CLEAN, None)
        }
    };
    keeper.judged(left.company, there);
    Ok(judged)
}

/// Compares the record with the files. In WAL mode a neighbour without the guard may write to them meanwhile, so an alarm
/// stands only if they are the same afterwards.
fn compare(files: &Files<'_>, log: &Folded, left: &Left) -> Option<(Finding, Observation)> {
    const TRIES: usize = 8;
    let mut last = None;
    for _ in 0..TRIES {
        let before = Moment::of(files)?;
        let seen = observe(files, log, left, &before);
        let finding = classify::classify(log, &seen, &mut |number: u32| page(files, number, log.header.page_size));
        if finding.alarms.is_empty() || Moment::of(files)? == before {
            return Some((finding, seen));
        }
        last = Some((finding, seen));
    }
    last.map(|(mut finding, seen)| {
        for alarm in finding.alarms.drain(..) {
            finding
                .notes
                .push(format!("While others were writing to the files, so that it proves nothing: {}", alarm.text));
        }
        (finding, seen)
    })
}

fn conclude(
    files: &Files<'_>,
    shared: &Shared,
    keeper: &mut Keeper,
    log: &Folded,
    seen: &Observation,
    finding: &Finding,
) -> u8 {
    for note in &finding.notes {
        files.main.note(note.clone());
    }
    let path = files.main.path.display();
    let mut blocking = Vec::new();
    let mut kept = String::new();
    let log_kept = if finding.keep_wal { resume::keep(files, "-wal") } else { String::new() };
    if !log_kept.is_empty() {
        files.main.note(format!("The -wal holds commits that SQLite cannot reach. {log_kept}"));
    }
    if finding.blocks_writes() {
        // SQLite deletes what it can make nothing of.
        if matches!(seen.journal, Journal::Garbage) {
            kept = resume::keep(files, "-journal") + " ";
        }
        if matches!(seen.wal, Wal::BadHeader) {
            kept += &(log_kept.clone() + " ");
        }
    }
    for alarm in &finding.alarms {
        let text = match alarm.kind {
            classify::AlarmKind::WalDamaged => format!("{} {log_kept}", alarm.text),
            _ => format!(
                "{} {kept}Then, or to go on with the file as it is: hardened doctor --accept {path}",
                alarm.text
            ),
        };
        files.main.warn("alarm", text.clone());
        shared.alarm(text.clone());
        if alarm.blocks_writes() {
            blocking.push(text);
        }
    }
    if finding.refuses_reads() || !blocking.is_empty() {
        keeper.alarm(&blocking.join("; "));
        return if finding.refuses_reads() { REFUSED } else { BLOCKED };
    }
    match &log.alarm {
        Some(_) if protector_is_back(log, seen) => {
            files.main.note("what the guard had missed is back in its place".into());
            keeper.resumed();
        }
        Some(text) => {
            files.main.warn("alarm", text.clone());
            shared.alarm(text.clone());
            return BLOCKED;
        }
        None => {}
    }
    if !log.halts.is_empty() {
        resume::after_halt(files, shared, keeper);
    }
    CLEAN
}

/// Whether the journal or the log is there that an alarm may have been about.
fn protector_is_back(log: &Folded, seen: &Observation) -> bool {
    match (&seen.journal, &seen.wal) {
        (Journal::Hot(hot), _) => log.transaction.as_ref().is_some_and(|last| last.nonce == hot.nonce),
        (_, Wal::Log(wal)) => log.pending.as_ref().is_some_and(|pending| pending.generation == wal.generation),
        _ => false,
    }
}

fn is_encrypted(files: &Files<'_>) -> bool {
    if files.main.plain.load(Ordering::Relaxed) {
        return false;
    }
    let mut first = [0; 16];
    files.database.read_into(&mut first, 0) == ffi::SQLITE_OK && !first.starts_with(MAGIC)
}

fn page(files: &Files<'_>, number: u32, page_size: u32) -> PageNow {
    let size = page_size as usize;
    let mut page = Vec::new();
    if page.try_reserve_exact(size).is_err() || number == 0 {
        return PageNow::Unread;
    }
    page.resize(size, 0);
    match files.database.read_into(&mut page, i64::from(number - 1) * i64::from(page_size)) {
        ffi::SQLITE_OK => PageNow::Image(Sums::of(&page)),
        ffi::SQLITE_IOERR_SHORT_READ => PageNow::Beyond,
        _ => PageNow::Unread,
    }
}

/// What tells that the files were written to: page 1 has the change counter, and the first frame of a generation follows its
/// header.
#[derive(PartialEq, Eq)]
struct Moment {
    first: Option<[u8; 100]>,
    changed: Option<Time>,
    log: Option<(u64, [u8; wal::HEADER_SIZE])>,
}

impl Moment {
    /// `None` if the database cannot be read.
    fn of(files: &Files<'_>) -> Option<Moment> {
        let mut first = [0; 100];
        let whole = files.database.size().ok()? >= first.len() as u64;
        if whole && files.database.read_into(&mut first, 0) != ffi::SQLITE_OK {
            return None;
        }
        // SAFETY: the base of an open file is registered.
        let log = unsafe { observe::log_start(files.vfs(), &files.main.path) };
        Some(Moment { first: whole.then_some(first), changed: witness::changed(files), log })
    }
}

fn observe(files: &Files<'_>, log: &Folded, left: &Left, moment: &Moment) -> Observation {
    let circumstances = Circumstances {
        boot: guard::boot_id(),
        shared: files.main.verdict.class != Class::Local,
        changed: moment.changed,
        log_changed: left.changed,
    };
    let local = files.main.native && files.main.verdict.class == Class::Local;
    beside::observation(log, moment.first.as_ref().map(|first| &first[..]), circumstances, |page_size| {
        // SAFETY: the base of an open file is registered.
        unsafe {
            (
                observe::journal(files.vfs(), &files.main.path, page_size),
                observe::wal(files.vfs(), &files.main.path, local),
            )
        }
    })
}
