//! In WAL mode whoever closes last deletes the log and its index. Who is last, the locks say: a shared one on the database
//! and one on byte 128 of the -shm, which every connection holds as long as it is open.

use std::fs::File;
use std::path::Path;

use support::names::beside;
use tempfile::TempDir;

use super::closer::close_once;
use super::{Mode, ROWS, VFSES, Vfs, code, elsewhere, found, fresh, open};

const OURS: i64 = -1;

/// What is left when another process has closed after a close here.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// The -wal and the -shm have names.
    log: bool,
    /// The code of a commit here, after that.
    commit: i32,
    /// Whether others find a whole database, and how many of the two rows that were committed here.
    found: Result<(String, i64), i32>,
}

/// One connection here with a commit in the log; other code here closes files; another process commits and closes.
fn after_the_close_of_another(ours: Vfs, theirs: Vfs, close: fn(&Path)) -> Left {
    let home = TempDir::new().unwrap();
    let path = fresh(home.path(), Mode::Wal);
    let (db, mut other) = (open(&path, Mode::Wal, ours), elsewhere(&path, Mode::Wal, theirs));
    let insert = format!("INSERT INTO t VALUES ({OURS}, 'ours')");
    assert_eq!(code(&db, &insert), 0);
    close(&path);
    assert_eq!(other.run("INSERT INTO t VALUES (-2, 'theirs')"), 0);
    other.close();
    let log = beside(&path, "-wal").exists() && beside(&path, "-shm").exists();
    let commit = code(&db, &insert);
    // While the connection here is open: what another process has then.
    let left = Left { log, commit, found: found(&path, Mode::Wal, OURS) };
    assert_eq!(found(&path, Mode::Wal, -2).unwrap().1, 1, "theirs is there in any case");
    assert_eq!(found(&path, Mode::Wal, 1).unwrap().1, 1, "of {ROWS}");
    left
}

fn whole(rows: i64) -> Result<(String, i64), i32> {
    Ok(("ok".to_owned(), rows))
}

#[test]
fn after_a_close_the_last_close_of_another_process_deletes_the_log_of_stock_and_strands_its_commit() {
    for theirs in VFSES {
        let stock = after_the_close_of_another(Vfs::Stock, theirs, close_once);
        println!("stock here, {theirs:?} elsewhere: {stock:?}");
        assert_eq!(
            stock,
            Left { log: false, commit: 0, found: whole(1) },
            "{theirs:?}: the second one is acknowledged"
        );
        let hardened = after_the_close_of_another(Vfs::Hardened, theirs, close_once);
        assert_eq!(hardened, Left { log: true, commit: 0, found: whole(2) }, "{theirs:?}");
    }
}

/// Other code rarely touches the -shm. SQLite before 3.51 deletes the log here too.
#[test]
fn a_hardened_process_is_not_the_last_while_a_stock_one_has_lost_the_lock_on_the_database_alone() {
    let close = |path: &Path| drop(File::open(path).unwrap());
    let left = after_the_close_of_another(Vfs::Stock, Vfs::Hardened, close);
    assert_eq!(left, Left { log: true, commit: 0, found: whole(2) });
}
