//! File controls: pragmas, our own opcode, and the writes that the policy does not let through.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::base::BaseFile;
use super::below::Below;
use super::connection::Borrowed;
use super::file::{Kind, State, state};
use super::{generation, inherited, protect};
use crate::checksum::{self, pages::Pages};
use crate::format::database::Header;
use crate::generation::{Which, Work};
use crate::lock::FileLocks;
use crate::main_file::{self, MainFile};
use crate::policy::{self, Answer, Rule};
use crate::report::{Report, VerdictReport};

/// SQLITE_FCNTL_EXTERNAL_READER, SQLITE_FCNTL_LOCK_TIMEOUT and SQLITE_FCNTL_BLOCK_ON_CONNECT, which older bindings do not all
/// name.
const EXTERNAL_READER: c_int = 40;
const LOCK_TIMEOUT: c_int = 34;
const BLOCK_ON_CONNECT: c_int = 44;

/// Asks a file, through whatever lies above ours, which database of ours it is. Applications may define opcodes above
/// 100 (https://www.sqlite.org/c3ref/file_control.html).
pub(crate) const WHO: c_int = 0x4841_5244;

/// The argument of [`WHO`]. `copy` tells two copies of this crate in one process apart.
#[repr(C)]
pub(crate) struct Who {
    copy: *const c_void,
    /// The file as SQLite knows it, and its database; the answer.
    pub(crate) file: *mut ffi::sqlite3_file,
    main: Option<Arc<MainFile>>,
}

static COPY: u8 = 0;

impl Who {
    pub(crate) fn question() -> Who {
        Who { copy: (&raw const COPY).cast(), file: std::ptr::null_mut(), main: None }
    }

    pub(crate) fn answered(self) -> Option<(Arc<MainFile>, *mut ffi::sqlite3_file)> {
        let file = self.file;
        self.main.map(|main| (main, file))
    }
}

/// xFileControl.
///
/// # Safety
/// `file` must be open and ours, `argument` what `op` asks for.
pub(crate) unsafe fn file_control(file: *mut ffi::sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: see above.
    let state = unsafe { state(file) };
    if op == WHO {
        // SAFETY: only `Who` is sent with this opcode; a copy of the crate that is not ours is told nothing.
        unsafe {
            let who = argument.cast::<Who>();
            if who.is_null() || !std::ptr::eq((*who).copy, (&raw const COPY).cast()) {
                return ffi::SQLITE_NOTFOUND;
            }
            (*who).file = file;
            (*who).main = state.main().cloned();
        }
        return ffi::SQLITE_OK;
    }
    if state.is_inherited() {
        inherited::refuse(state, ffi::SQLITE_IOERR);
        if op == ffi::SQLITE_FCNTL_PRAGMA {
            // SAFETY: the array that SQLITE_FCNTL_PRAGMA comes with.
            return match unsafe { hand_over(state, argument.cast(), &format!("hardened: {}", inherited::TEXT)) } {
                ffi::SQLITE_OK => ffi::SQLITE_ERROR,
                code => code,
            };
        }
        return ffi::SQLITE_IOERR;
    }
    let Some(base) = &state.base else { return ffi::SQLITE_NOTFOUND };
    if let State { kind: Kind::Main(main), pages: Some(pages), .. } = state {
        // SAFETY: SQLite calls.
        let code = pages.control(&unsafe { Below::new(base, main) }, op);
        if code != ffi::SQLITE_OK {
            return code;
        }
    }
    if let Kind::Main(main) = &state.kind {
        match op {
            ffi::SQLITE_FCNTL_PRAGMA => {
                // SAFETY: https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntlpragma
                if let Some(code) = unsafe { pragma(state, main, argument.cast()) } {
                    return code;
                }
            }
            ffi::SQLITE_FCNTL_PDB => {
                // The address of the connection's handle, which lives as long as the file.
                // SAFETY: the argument is the address of a handle.
                let handle = unsafe { argument.cast::<usize>().read() };
                main.remember_connection(argument as usize, handle);
            }
            ffi::SQLITE_FCNTL_BEGIN_ATOMIC_WRITE => {
                // SAFETY: passed on as it came.
                let code = unsafe { base.file_control(op, argument) };
                main.set_atomic_batch(code == ffi::SQLITE_OK);
                return code;
            }
            ffi::SQLITE_FCNTL_COMMIT_PHASETWO => {
                if let Some(code) = state.lost() {
                    // It is in the log, but the index that says so may be seen by nobody, and the next writer takes its place.
                    return code;
                }
                // SAFETY: SQLite calls.
                unsafe { protect::committed(main) };
            }
            ffi::SQLITE_FCNTL_SYNC => {
                // Under any synchronous level the first phase of a commit ends with it: what fails must fail now. Where it
                // comes with the name of a super-journal, that one's deletion commits, and may not pass through us.
                // SAFETY: SQLite calls.
                let code = unsafe { protect::first_phase_ends(main, !argument.is_null()) };
                if code != ffi::SQLITE_OK {
                    return code;
                }
            }
            ffi::SQLITE_FCNTL_HAS_MOVED
                if main.combines && main.native && main.generation.is_in_place(&main.path, main.verdict.class) =>
            {
                main.generation.looked(Work::Transaction);
                // SAFETY: the argument is an integer.
                unsafe { argument.cast::<c_int>().write(0) };
                return ffi::SQLITE_OK;
            }
            ffi::SQLITE_FCNTL_HAS_MOVED => {
                // SAFETY: passed on as it came; the argument is an integer.
                let (code, moved) = unsafe {
                    let code = base.file_control(op, argument);
                    (code, argument.cast::<c_int>().read() != 0)
                };
                match (code, moved) {
                    (ffi::SQLITE_OK, true) if main.native => generation::has_moved(main),
                    // SQLite asks before it opens the journal of a transaction.
                    (ffi::SQLITE_OK, false) => main.generation.looked(Work::Transaction),
                    _ => {}
                }
                return code;
            }
            // The locks of the index do not wait; SQLite's busy handler does.
            LOCK_TIMEOUT | BLOCK_ON_CONNECT if state.index().is_some() => return ffi::SQLITE_NOTFOUND,
            EXTERNAL_READER => {
                if let Some(index) = state.index() {
                    // SAFETY: the argument is a pointer to an integer.
                    unsafe { *argument.cast::<c_int>() = c_int::from(index.has_readers()) };
                    return ffi::SQLITE_OK;
                }
            }
            ffi::SQLITE_FCNTL_CHUNK_SIZE => {
                if let Some(mut size) = main.known_size() {
                    size.give_up();
                }
            }
            ffi::SQLITE_FCNTL_LOCKSTATE => {
                if let Some(locks) = &state.locks {
                    // SAFETY: the argument is a pointer to an integer.
                    unsafe { *argument.cast::<c_int>() = locks.level() };
                    return ffi::SQLITE_OK;
                }
            }
            ffi::SQLITE_FCNTL_LAST_ERRNO => {
                if let Some(errno) = state.locks.as_ref().map(FileLocks::errno).filter(|errno| *errno != 0) {
                    // SAFETY: the argument is a pointer to an integer.
                    unsafe { *argument.cast::<c_int>() = errno };
                    return ffi::SQLITE_OK;
                }
            }
            ffi::SQLITE_FCNTL_COMMIT_ATOMIC_WRITE | ffi::SQLITE_FCNTL_ROLLBACK_ATOMIC_WRITE => {
                main.set_atomic_batch(false);
            }
            _ => {}
        }
    }
    // SAFETY: passed on as it came.
    unsafe { base.file_control(op, argument) }
}

/// Answers a pragma, or leaves it to SQLite and the base (`None`).
///
/// # Safety
/// `argument` must be the array of strings that SQLITE_FCNTL_PRAGMA comes with.
unsafe fn pragma(state: &State, main: &MainFile, argument: *mut *mut c_char) -> Option<c_int> {
    // SAFETY: element 1 is the pragma's name, element 2 its value or null.
    let (name, value) = unsafe {
        let name = CStr::from_ptr(*argument.add(1)).to_str().ok()?;
        let value = *argument.add(2);
        (name, if value.is_null() { None } else { Some(CStr::from_ptr(value)) })
    };
    if let (Some(pages), Some(base)) = (&state.pages, &state.base) {
        let text = value.and_then(|value| value.to_str().ok());
        // SAFETY: SQLite calls.
        let below = unsafe { Below::new(base, main) };
        if let Some(answer) = checksum::pragma::answer(pages, &below, name, text) {
            return Some(answer.map_or_else(
                |code| code,
                |text| {
                    // SAFETY: the array that SQLITE_FCNTL_PRAGMA comes with.
                    unsafe { hand_over(state, argument, &text) }
                },
            ));
        }
    }
    if name.eq_ignore_ascii_case("locking_mode") {
        if let Some(value) = value {
            // Without a schema it is meant for all databases of the connection and told to the main one.
            for told in main_file::of_connection(main.connection_handle()) {
                told.told_locking_mode(&value.to_string_lossy());
            }
        }
    }
    if !policy::is_ours(name) {
        return None;
    }
    let length = value.map_or(0, |value| value.count_bytes());
    // SQLite looks at the first bytes of a number and does not mind what follows.
    let value = value.map(CStr::to_string_lossy);
    let exclusive =
        main.forbids_wal() && value.is_some() && name.eq_ignore_ascii_case("journal_mode") && locked(state, main);
    let reply = policy::answer(&main.policy(), name, value.as_deref(), exclusive);
    if let Some((kind, remark)) = reply.remark {
        main.warn(kind, remark);
    }
    match reply.answer {
        Answer::Pass => None,
        Answer::Instead(text) => {
            debug_assert!(text.len() <= length, "a replacement must fit");
            if text.len() <= length {
                // SAFETY: the value is a heap string of SQLite's own that it hands out as `char*` and reads again after we
                // answer SQLITE_NOTFOUND; the replacement is not longer.
                unsafe {
                    let target = (*argument.add(2)).cast::<u8>();
                    std::ptr::copy_nonoverlapping(text.as_ptr(), target, text.len());
                    *target.add(text.len()) = 0;
                }
            }
            None
        }
        Answer::Swallow => Some(ffi::SQLITE_OK),
        Answer::Report => {
            let text = report(state, main).to_json();
            // SAFETY: the array that SQLITE_FCNTL_PRAGMA comes with.
            Some(unsafe { hand_over(state, argument, &text) })
        }
    }
}

/// Makes `text` the result of a pragma.
///
/// # Safety
/// `argument` must be the array of strings that SQLITE_FCNTL_PRAGMA comes with.
unsafe fn hand_over(state: &State, argument: *mut *mut c_char, text: &str) -> c_int {
    let copy = state.registration.api.copy_out(text);
    if copy.is_null() {
        return ffi::SQLITE_NOMEM;
    }
    // SAFETY: element 0 takes a string that SQLite frees.
    unsafe { *argument = copy };
    ffi::SQLITE_OK
}

/// What is in force now on the connection that asks.
fn report(state: &State, main: &MainFile) -> Report {
    let policy = main.policy();
    let mut report = Report {
        path: main.path.display().to_string(),
        verdict: VerdictReport::from(&*main.verdict),
        policy: policy.to_string(),
        reason: policy.reason,
        overridden: policy.overridden,
        access: main.access.name().into(),
        identity: main.generation.identity(Which::Database),
        file: state.base.as_ref().map_or_else(String::new, describe),
        journal_mode: None,
        synchronous: None,
        busy_timeout: None,
        guard: main.shared.as_ref().map_or_else(|| "off".to_owned(), |shared| shared.keeper().describe()),
        locks: main.locks.clone(),
        settings: String::new(),
        alarms: main.shared.as_ref().map_or_else(Vec::new, |shared| shared.alarms()),
        notes: main.notes(),
        base: main.base.clone(),
        sqlite: state.registration.api.version(),
        hardened: env!("CARGO_PKG_VERSION").into(),
    };
    let Some(ask) = asking(state, main) else { return report };
    report.journal_mode = ask("journal_mode");
    report.synchronous = ask("synchronous").map(|level| match level.as_str() {
        "0" => "OFF".to_owned(),
        "1" => "NORMAL".to_owned(),
        "2" => "FULL".to_owned(),
        "3" => "EXTRA".to_owned(),
        _ => level,
    });
    report.busy_timeout = ask("busy_timeout").and_then(|timeout| timeout.parse().ok());
    report
}

/// Whether the connection that asks is in EXCLUSIVE locking mode, or does not tell. It is asked, because the pragma that set
/// the mode goes to one database and is meant for all.
fn locked(state: &State, main: &MainFile) -> bool {
    let mode = asking(state, main).and_then(|ask| ask("locking_mode"));
    mode.is_none_or(|mode| mode != "normal")
}

/// Asks the connection whose pragma is being answered for the value of another one on the same database.
fn asking<'a>(state: &'a State, main: &MainFile) -> Option<impl Fn(&str) -> Option<String> + use<'a>> {
    let address = main.connection_address() as *const *mut ffi::sqlite3;
    if address.is_null() {
        return None;
    }
    // SAFETY: SQLITE_FCNTL_PDB came with the address of the handle in the b-tree that owns this open file.
    let db = unsafe { *address };
    // SAFETY: the connection that asks is the one whose pager sent SQLITE_FCNTL_PDB; its mutex is held and recursive, and
    // SQLite prepares statements inside a prepare itself (virtual tables do).
    let connection = unsafe { Borrowed::new(&state.registration.api, db) };
    let schema = schema_of(&connection, main)?;
    Some(move |pragma: &str| {
        let rows = connection.rows(&format!("PRAGMA \"{}\".{pragma}", schema.replace('"', "\"\""))).ok()?;
        rows.into_iter().next().and_then(|[first, _]| first)
    })
}

/// What page 1 says.
fn describe(base: &BaseFile) -> String {
    let (mut size, mut page) = (0, [0_u8; 512]);
    // SAFETY: a pointer to a 64-bit integer.
    if unsafe { base.file_size(&raw mut size) } != ffi::SQLITE_OK {
        return "its size cannot be read".into();
    }
    let Some(page) = usize::try_from(size).ok().map(|size| size.min(page.len())).and_then(|have| page.get_mut(..have))
    else {
        return "its size is not a size".into();
    };
    if page.is_empty() {
        return "empty: a database without tables".into();
    }
    if base.read_into(page, 0) != ffi::SQLITE_OK {
        return "page 1 cannot be read".into();
    }
    match Header::parse(page) {
        Ok(header) => {
            let page_size = i64::from(header.page_size);
            let pages = header.trusted_page_count().map_or(size / page_size, i64::from);
            let mark = if header.is_wal() { "marked for WAL" } else { "marked for a rollback journal" };
            let cut = if size < pages * page_size { format!(", cut off after {size} bytes") } else { String::new() };
            format!("SQLite database of {pages} pages of {page_size} bytes, {mark}{cut}")
        }
        Err(error) => error.to_string(),
    }
}

/// The name under which the asking connection knows this database.
fn schema_of(connection: &Borrowed<'_>, main: &MainFile) -> Option<String> {
    let schemas = connection.rows("SELECT name, file FROM pragma_database_list").ok()?;
    schemas.into_iter().find_map(|[name, _]| {
        let name = name?;
        connection.who(&name).filter(|found| std::ptr::eq(Arc::as_ptr(found), main)).map(|_| name)
    })
}

/// As much of page 1 as SQLite reads before it takes a lock.
pub(crate) const HEADER: usize = 100;

/// How every page 1 begins that is not encrypted above us. Of one that is the bytes mean nothing, and none may be changed.
pub(crate) const MAGIC: &[u8] = b"SQLite format 3\0";

/// Whether a page 1 says WAL (bytes 18 and 19, https://www.sqlite.org/fileformat2.html#file_format_version_numbers).
///
/// # Safety
/// `page` must hold 20 bytes.
pub(crate) unsafe fn is_stamped_wal(page: *const c_void) -> bool {
    // SAFETY: see above.
    let header = unsafe { std::slice::from_raw_parts(page.cast::<u8>(), 20) };
    header.starts_with(MAGIC) && header[18..].contains(&2)
}

/// Writes page 1 of a database that must not become WAL: a copy of a WAL database made by the backup API brings the stamp
/// with it. The change counter moves on, so that the pager reads the page again and sees what is on disk.
pub(crate) fn write_unstamped(below: &Below<'_>, main: &MainFile, page: &[u8], pages: Option<&Pages>) -> c_int {
    let mut copy = Vec::new();
    let Some(counter) = page.get(24..28) else { return ffi::SQLITE_IOERR_WRITE };
    let next = u32::from_be_bytes([counter[0], counter[1], counter[2], counter[3]]).wrapping_add(1).to_be_bytes();
    if copy.try_reserve_exact(page.len()).is_err() {
        return ffi::SQLITE_IOERR_NOMEM;
    }
    copy.extend_from_slice(page);
    copy[18] = 1;
    copy[19] = 1;
    copy[24..28].copy_from_slice(&next);
    copy[92..96].copy_from_slice(&next);
    main.warn(
        "stamp",
        format!("a page 1 that says WAL was written with the rollback mark instead: {}", main.policy().reason),
    );
    match pages {
        Some(pages) => pages.write(below, &copy, 0),
        None => below.write(&copy, 0),
    }
}

/// The last line against journal_mode OFF and MEMORY.
pub(crate) fn refuse_unjournalled_write(main: &MainFile) -> c_int {
    debug_assert!(main.policy().rule != Rule::Off);
    main.warn(
        "unjournalled",
        "a write was refused: the journal_mode is OFF or MEMORY, so a crash now would corrupt the database; set \
         journal_mode DELETE (or policy=off if it may be lost)"
            .into(),
    );
    ffi::SQLITE_IOERR_WRITE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_1_of_sqlite_s_own_says_wal() {
        let mut page = [0_u8; 512];
        page[..16].copy_from_slice(MAGIC);
        // SAFETY: more than 20 bytes.
        let says_wal = |page: &[u8; 512]| unsafe { is_stamped_wal(page.as_ptr().cast()) };
        assert!(!says_wal(&page));
        for byte in [18, 19] {
            page[byte] = 2;
            assert!(says_wal(&page));
            // Encrypted by a codec above: one page in 128 has a 2 there by chance.
            let mut encrypted = page;
            encrypted[0] ^= 0x80;
            assert!(!says_wal(&encrypted));
            page[byte] = 1;
        }
    }
}
