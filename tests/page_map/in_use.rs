//! A map of a database that somebody is using: what a reader would see, without harm to anybody.

use super::*;

#[test]
fn the_commits_in_the_log_are_part_of_the_map() {
    let (home, path) = home();
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
    writer.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(100000)); PRAGMA wal_checkpoint").unwrap();
    assert_as_sqlite_says(&path, "checkpointed");
    writer.execute_batch("DELETE FROM t; CREATE TABLE u(x); INSERT INTO u VALUES (1)").unwrap();
    let free = number(&writer, "PRAGMA freelist_count");
    assert!(free > 20);
    assert_as_sqlite_says(&path, "in the log");
    // What is not committed is not.
    writer
        .execute_batch("BEGIN; PRAGMA cache_size = 1; INSERT INTO u VALUES (zeroblob(90000)); PRAGMA cache_spill = 1")
        .unwrap();
    let seen = map(&path);
    assert_eq!(seen.count(PageKind::FreeTrunk) + seen.count(PageKind::FreeLeaf), free);
    writer.execute_batch("ROLLBACK").unwrap();
    // All of it may be in the log, and the database without a page.
    let copy = home.path().join("copy.db");
    std::fs::write(&copy, "").unwrap();
    let other = Connection::open(home.path().join("other.db")).unwrap();
    other.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(x)").unwrap();
    std::fs::copy(home.path().join("other.db-wal"), home.path().join("copy.db-wal")).unwrap();
    assert_eq!(map(&copy).kinds(), [PageKind::TableLeaf; 2]);
}

/// Somebody writes all the time: whatever is seen is settled and sound, or said to be neither.
fn beside_a_writer(pragmas: &str, reads: u32) -> (u32, u32) {
    let (_home, path) = home();
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch(&format!("PRAGMA page_size = 512; {pragmas}; PRAGMA synchronous = OFF")).unwrap();
    writer.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)").unwrap();
    let over = AtomicBool::new(false);
    let seen: Vec<_> = std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            let mut random = Random::new(7);
            while !over.load(Ordering::Relaxed) {
                let (key, size) = (random.below(300) as i64, random.below(3000) as i64);
                writer.execute("INSERT OR REPLACE INTO t VALUES (?1, randomblob(?2))", (key, size)).unwrap();
                if random.below(50) == 0 {
                    writer.execute("DELETE FROM t WHERE a > ?1", [random.below(300) as i64]).unwrap();
                }
            }
        });
        let seen = (0..reads).map(|_| PageMap::read(&path)).collect();
        over.store(true, Ordering::Relaxed);
        seen
    });
    let (mut settled, mut unsettled) = (0, 0);
    for seen in seen {
        let seen = seen.unwrap();
        match seen.unsettled() {
            Some(_) => unsettled += 1,
            None => {
                settled += 1;
                let wrong = seen.count(PageKind::Damaged) + seen.count(PageKind::Orphan);
                assert_eq!(wrong, 0, "{pragmas}: {seen:?}");
            }
        }
    }
    assert_as_sqlite_says(&path, pragmas);
    (settled, unsettled)
}

#[test]
fn beside_a_writer_nothing_sound_is_called_damaged() {
    // In rollback mode each is begun anew a few times, with pauses.
    for (pragmas, reads) in [
        ("PRAGMA journal_mode = DELETE", 5),
        ("PRAGMA journal_mode = PERSIST", 5),
        ("PRAGMA journal_mode = WAL", 100),
        ("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 20", 100),
    ] {
        let (settled, unsettled) = beside_a_writer(pragmas, reads);
        println!("{pragmas}: {settled} settled, {unsettled} not");
    }
}

#[test]
fn the_locks_of_this_process_stay() {
    let (_home, path) = home();
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(map(&path).kinds().len(), 2);
    let arguments = ["sql", "--busy-timeout", "0"];
    let mut other = Command::new(env!("CARGO_BIN_EXE_hardened"));
    let other = other.args(arguments).arg(&path).arg("BEGIN IMMEDIATE").output().unwrap();
    assert!(!other.status.success(), "the lock of the transaction is gone: {other:?}");
    stock.execute_batch("COMMIT").unwrap();
}

#[test]
fn a_transaction_that_was_cut_off_leaves_nothing_settled() {
    let (home, path) = home();
    let stock = Connection::open(&path).unwrap();
    stock.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(20000))").unwrap();
    stock.execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE t SET x = randomblob(30000)").unwrap();
    let copy = home.path().join("copy.db");
    for ending in ["", "-journal"] {
        std::fs::copy(format!("{}{ending}", path.display()), format!("{}{ending}", copy.display())).unwrap();
    }
    let seen = map(&copy);
    assert!(seen.unsettled().unwrap().contains("cut off"), "{seen:?}");
}
