//! What stands beside a database: a -wal, a -journal, both or neither.

use super::*;

#[test]
fn a_live_wal_is_counted_beside_the_process_that_writes_it() {
    let (home, path) = home();
    let live = with_commits_in_the_wal(&path, 7);
    let seen = doctor(home.path(), &path);
    seen.assert_nothing_found();
    assert!(seen.file("database").ends_with(", WAL"), "{}", seen.json);
    assert!(seen.file("-wal").starts_with("7 commits in 7 frames"), "{}", seen.json);
    assert_eq!(seen.file("-shm"), "32768 bytes");
    live.execute("DELETE FROM t", []).unwrap();
    assert!(doctor(home.path(), &path).file("-wal").starts_with("8 commits in "));
    assert_eq!(live.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    drop(live);
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.json["files"].as_object().unwrap().len(), 2, "the -wal is gone: {}", seen.json);
}

#[test]
fn a_checkpointed_and_an_empty_wal_are_no_finding() {
    let (home, path) = home();
    let live = with_commits_in_the_wal(&path, 2);
    live.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let seen = doctor(home.path(), &path);
    seen.assert_nothing_found();
    assert_eq!(seen.file("-wal"), "empty");
}

#[test]
fn a_hot_journal_is_a_note_that_it_must_not_be_deleted() {
    let (_original, source) = home();
    let live = Connection::open(&source).unwrap();
    live.execute_batch("PRAGMA cache_size=1; BEGIN; UPDATE t SET filler = randomblob(500)").unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    copy(&source, &path, &["", "-journal"]);
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 0);
    seen.assert_found("note", "a transaction is under way, or was cut off", "never delete the -journal");
    assert!(seen.file("-journal").starts_with("the rollback journal holds "), "{}", seen.json);
    let stock = Connection::open(&path).unwrap();
    let sum = stock.query_row("SELECT sum(length(filler)), count(*) FROM t WHERE filler = zeroblob(500)", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    assert_eq!(sum.unwrap(), (50_000, 100), "it was hot: SQLite rolls back what had been spilled");
}

#[test]
fn a_journal_that_is_not_in_use_or_garbage_is_described() {
    let (home, path) = home();
    Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode=PERSIST; DELETE FROM t WHERE x = 1").unwrap();
    let seen = doctor(home.path(), &path);
    seen.assert_nothing_found();
    assert!(seen.file("-journal").contains("not in use"), "{}", seen.json);
    std::fs::write(home.path().join("app.db-journal"), "what is this\n".repeat(100)).unwrap();
    let seen = doctor(home.path(), &path);
    assert!(seen.file("-journal").contains("not usable"), "{}", seen.json);
    seen.assert_found("note", "a transaction is under way, or was cut off", "never delete the -journal");
}

#[test]
fn commits_behind_a_damaged_frame_are_a_problem() {
    let (_original, source) = home();
    let _live = with_commits_in_the_wal(&source, 9);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    copy(&source, &path, &["", "-wal"]);
    let wal = home.path().join("app.db-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    // The fourth frame of a 32-byte header and frames of 24 + 4096 bytes.
    bytes[32 + 3 * (24 + 4096) + 24 + 2000] ^= 1;
    std::fs::write(&wal, bytes).unwrap();
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 3);
    seen.assert_found("problem", "6 commits in the -wal stand behind a damaged frame", "copy the database, -wal and");
    assert!(seen.file("-wal").starts_with("3 commits in 3 frames"), "{}", seen.json);
    let stock = Connection::open(&path).unwrap();
    let highest: i64 = stock.query_row("SELECT max(x) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(highest, 99 + 3, "SQLite recovers three commits, as doctor said");
}

#[test]
fn a_wal_or_journal_without_its_database_is_not_to_be_deleted() {
    let (_original, source) = home();
    let _live = with_commits_in_the_wal(&source, 2);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    copy(&source, &path, &["-wal"]);
    let seen = doctor(home.path(), &path);
    assert_eq!((seen.code, seen.file("database")), (3, "does not exist yet"));
    seen.assert_found("problem", "commits in the -wal of a database that is missing", "do not delete the -wal");

    std::fs::remove_file(home.path().join("app.db-wal")).unwrap();
    let mut journal = vec![0; 512];
    journal[..12].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0, 0, 0, 1]);
    journal[20..28].copy_from_slice(&[0, 0, 2, 0, 0, 0, 16, 0]);
    std::fs::write(home.path().join("app.db-journal"), journal).unwrap();
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 1);
    seen.assert_found("warning", "there is a journal of a transaction, but no database", "do not delete it");
}

#[test]
fn a_wal_with_commits_beside_a_rollback_database_is_a_warning() {
    let (_original, source) = home();
    let _live = with_commits_in_the_wal(&source, 2);
    let (home, path) = home();
    copy(&source, &path, &["-wal"]);
    let seen = doctor(home.path(), &path);
    assert_eq!(seen.code, 1);
    seen.assert_found("warning", "says rollback journal, but there is a -wal with commits", "copy both aside");
}

#[test]
fn the_journals_of_a_link_are_those_beside_its_target() {
    let (home, path) = home();
    let _live = with_commits_in_the_wal(&path, 3);
    let links = home.path().join("links");
    std::fs::create_dir(&links).unwrap();
    let link = links.join("link.db");
    symlink("../app.db", &link).unwrap();
    let seen = doctor(home.path(), &link);
    seen.assert_nothing_found();
    assert!(seen.file("-wal").starts_with("3 commits"), "{}", seen.json);
    let dangling = links.join("dangling.db");
    symlink("nothing.db", &dangling).unwrap();
    let seen = doctor(home.path(), &dangling);
    assert_eq!(seen.code, 3);
    seen.assert_found("problem", "it is a symbolic link to nothing", "correct or remove the link");
}

#[test]
fn a_database_that_its_wal_makes_whole_is_fine() {
    // As a crash within a checkpoint leaves it: page 1 is copied back, and the last pages are still in the -wal alone.
    let (_original, source) = home();
    let live = Connection::open(&source).unwrap();
    live.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; UPDATE t SET filler = zeroblob(900)")
        .unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app.db");
    copy(&source, &path, &["-wal"]);
    live.execute_batch("PRAGMA wal_checkpoint").unwrap();
    copy(&source, &path, &[""]);
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 4096).unwrap();
    doctor(home.path(), &path).assert_nothing_found();
    let stock = Connection::open(&path).unwrap();
    assert_eq!(stock.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    assert_eq!(stock.query_row("SELECT sum(length(filler)) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 90_000);
}
