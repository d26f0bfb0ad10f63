//! Stacked over a VFS made by others: an in-memory one, written with the sqlite-vfs crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hardened_sqlite::Report;
use hardened_sqlite::hardened_vfs;
use rusqlite::{Connection, OpenFlags};
use sqlite_vfs::{DatabaseHandle, LockKind, OpenAccess, OpenKind, OpenOptions, Vfs, WalDisabled};

/// One file in memory: its bytes, and the locks that its handles hold.
#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// By handle.
    locks: HashMap<u64, LockKind>,
}

type Shared = Arc<Mutex<File>>;

#[derive(Clone, Default)]
struct Memory {
    files: Arc<Mutex<HashMap<String, Shared>>>,
    handles: Arc<Mutex<u64>>,
}

struct Handle {
    file: Shared,
    id: u64,
    lock: LockKind,
}

impl Vfs for Memory {
    type Handle = Handle;

    fn open(&self, name: &str, options: OpenOptions) -> Result<Handle, Error> {
        let mut files = self.files.lock().unwrap();
        let file = match (files.get(name), options.access) {
            (Some(_), OpenAccess::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Arc::clone(file),
            (None, OpenAccess::Create | OpenAccess::CreateNew) => {
                let file = Shared::default();
                if options.kind != OpenKind::TransientDb {
                    files.insert(name.to_owned(), Arc::clone(&file));
                }
                file
            }
            (None, _) => return Err(ErrorKind::NotFound.into()),
        };
        let mut handles = self.handles.lock().unwrap();
        *handles += 1;
        Ok(Handle { file, id: *handles, lock: LockKind::None })
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        self.files.lock().unwrap().remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn exists(&self, name: &str) -> Result<bool, Error> {
        Ok(self.files.lock().unwrap().contains_key(name))
    }

    fn temporary_name(&self) -> String {
        let mut handles = self.handles.lock().unwrap();
        *handles += 1;
        format!("temporary-{handles}")
    }

    fn random(&self, buffer: &mut [i8]) {
        for (index, byte) in buffer.iter_mut().enumerate() {
            *byte = (index * 37 % 128) as i8;
        }
    }

    fn sleep(&self, duration: Duration) -> Duration {
        std::thread::sleep(duration);
        duration
    }
}

impl DatabaseHandle for Handle {
    type WalIndex = WalDisabled;

    fn size(&self) -> Result<u64, Error> {
        Ok(self.file.lock().unwrap().bytes.len() as u64)
    }

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let file = self.file.lock().unwrap();
        let start = (offset as usize).min(file.bytes.len());
        let found = &file.bytes[start..(start + buffer.len()).min(file.bytes.len())];
        buffer[..found.len()].copy_from_slice(found);
        if found.len() < buffer.len() {
            buffer[found.len()..].fill(0);
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn write_all_at(&mut self, buffer: &[u8], offset: u64) -> Result<(), Error> {
        let mut file = self.file.lock().unwrap();
        let end = offset as usize + buffer.len();
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        file.bytes[offset as usize..end].copy_from_slice(buffer);
        Ok(())
    }

    fn sync(&mut self, _: bool) -> Result<(), Error> {
        Ok(())
    }

    fn set_len(&mut self, size: u64) -> Result<(), Error> {
        self.file.lock().unwrap().bytes.resize(size as usize, 0);
        Ok(())
    }

    fn lock(&mut self, lock: LockKind) -> Result<bool, Error> {
        let mut file = self.file.lock().unwrap();
        let others: Vec<LockKind> =
            file.locks.iter().filter(|(id, _)| **id != self.id).map(|(_, lock)| *lock).collect();
        let writer =
            others.iter().any(|lock| matches!(lock, LockKind::Reserved | LockKind::Pending | LockKind::Exclusive));
        let free = match lock {
            LockKind::None => true,
            LockKind::Shared => !others.iter().any(|lock| matches!(lock, LockKind::Pending | LockKind::Exclusive)),
            LockKind::Reserved | LockKind::Pending => !writer,
            LockKind::Exclusive => others.iter().all(|lock| *lock == LockKind::None),
        };
        if free {
            file.locks.insert(self.id, lock);
            self.lock = lock;
        }
        Ok(free)
    }

    fn reserved(&mut self) -> Result<bool, Error> {
        let file = self.file.lock().unwrap();
        Ok(file.locks.values().any(|lock| matches!(lock, LockKind::Reserved | LockKind::Pending | LockKind::Exclusive)))
    }

    fn current_lock(&self) -> Result<LockKind, Error> {
        Ok(self.lock)
    }

    fn wal_index(&self, _: bool) -> Result<WalDisabled, Error> {
        Ok(WalDisabled)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.file.lock().unwrap().locks.remove(&self.id);
    }
}

fn value(connection: &Connection, sql: &str) -> String {
    connection.query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0)).map(|v| format!("{v:?}")).unwrap()
}

#[test]
fn a_database_in_an_in_memory_vfs_works_like_any_other_and_is_not_wal() {
    let memory = Memory::default();
    sqlite_vfs::register("memory-of-others", memory.clone(), false).unwrap();
    hardened_vfs::register_as("hardened-memory", "base=memory-of-others".parse().unwrap()).unwrap();
    let open = || Connection::open_with_flags_and_vfs("app.db", OpenFlags::default(), "hardened-memory").unwrap();
    let (first, second) = (open(), open());
    first.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    second.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").unwrap();
    first.busy_timeout(Duration::ZERO).unwrap();
    let busy = first.execute_batch("INSERT INTO t VALUES (3)").unwrap_err();
    assert_eq!(busy.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "its locks are in force");
    second.execute_batch("COMMIT").unwrap();
    first.execute_batch("BEGIN; DELETE FROM t; ROLLBACK; VACUUM").unwrap();
    assert_eq!(value(&first, "SELECT count(*) FROM t"), "Integer(2)");
    assert_eq!(value(&first, "PRAGMA integrity_check"), "Text(\"ok\")");
    assert_eq!(value(&first, "PRAGMA journal_mode=WAL"), "Text(\"delete\")");
    assert_eq!(value(&first, "PRAGMA synchronous"), "Integer(2)");

    let json: String = first.query_row("PRAGMA hardened_report", [], |row| row.get(0)).unwrap();
    let report = Report::from_json(&json).unwrap();
    assert_eq!((report.base.as_str(), report.verdict.class.as_str()), ("memory-of-others", "unknown"), "{report}");
    assert!(report.reason.contains("memory-of-others"), "{report}");

    assert!(memory.files.lock().unwrap().contains_key("app.db"));
    assert!(!std::path::Path::new("app.db").exists(), "nothing went to the real filesystem");
    let stock = Connection::open_with_flags_and_vfs("app.db", OpenFlags::default(), "memory-of-others").unwrap();
    assert_eq!(value(&stock, "SELECT count(*) FROM t"), "Integer(2)", "the same bytes without us");
}

#[test]
fn one_open_may_name_it_in_its_uri() {
    let memory = Memory::default();
    sqlite_vfs::register("memory-by-uri", memory.clone(), false).unwrap();
    hardened_vfs::register(Default::default()).unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    let uri = format!("file:{}?vfs=hardened&base=memory-by-uri", path.display());
    let connection = Connection::open_with_flags(&uri, OpenFlags::default()).unwrap();
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1); BEGIN; DELETE FROM t; ROLLBACK").unwrap();
    assert_eq!(value(&connection, "SELECT count(*) FROM t"), "Integer(1)");
    assert!(!path.exists());
    drop(connection);
    let names: Vec<String> = memory.files.lock().unwrap().keys().cloned().collect();
    assert_eq!(names, [path.to_str().unwrap()], "and its journal and the guard's record came and went there");
}
