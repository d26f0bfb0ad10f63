//! What becomes of which damage.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;

use hardened_sqlite::{Error, Outcome, Recover, recover};

use super::*;

#[test]
fn an_intact_database_is_left_alone() {
    let place = Place::new();
    let before = place.files();
    let recovery = recover(&place.path).unwrap();
    assert_eq!(recovery.outcome, Outcome::Intact);
    assert_eq!(place.files(), before);
}

#[test]
fn a_table_that_has_lost_a_page_is_salvaged_and_keeps_its_permissions() {
    let place = Place::damaged();
    std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let damaged = std::fs::read(&place.path).unwrap();
    let recovery = recover(&place.path).unwrap();
    let Outcome::Salvaged(salvaged) = &recovery.outcome else { panic!("{recovery}") };
    let kept = recovery.kept.clone().unwrap();
    assert_eq!(std::fs::read(&kept).unwrap(), damaged);
    let rows = count(&place.path);
    assert!(rows < ROWS && rows > ROWS - 20, "{rows}");
    assert_eq!((salvaged.tables[0].rows, salvaged.tables[0].gaps), (u64::from(rows), 1));
    assert_eq!(std::fs::metadata(&place.path).unwrap().permissions().mode() & 0o777, 0o640);
    let connection = stock(&place.path);
    assert_eq!(text(&connection, "PRAGMA user_version"), "7");
    assert_eq!(text(&connection, "SELECT count(*) FROM sqlite_schema WHERE name = 'i'"), "1");
    drop(connection);
    assert_eq!(place.files().len(), 2, "nothing else is left");
    let json = serde_json::to_string(&recovery).unwrap();
    assert_eq!(serde_json::from_str::<hardened_sqlite::Recovery>(&json).unwrap(), recovery);
    assert_eq!(recover(&place.path).unwrap().outcome, Outcome::Intact);
}

#[test]
fn a_wrong_index_is_made_anew_and_no_row_is_lost() {
    let place = Place::new();
    // Another key of the same length: the index is sound in itself and says what is not so.
    let leaf = pages(&place.path, 10, b"row 200")[0];
    let bytes = std::fs::read(&place.path).unwrap();
    let at = bytes[leaf as usize..][..1024].windows(7).position(|window| window == b"row 200").unwrap();
    write(&place.path, leaf + at as u64, b"row 20/");
    let recovery = recover(&place.path).unwrap();
    assert_eq!(recovery.outcome, Outcome::Reindexed { indexes: vec!["i".into()] });
    assert_eq!(count(&place.path), ROWS);
    assert!(recovery.kept.is_some());
}

/// A database whose log holds rows, as a process that was killed leaves it.
fn with_log(path: &Path) {
    let connection = stock(path);
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
    connection.execute_batch("INSERT INTO t VALUES(1001, 'in the log'), (1002, 'in the log')").unwrap();
}

#[test]
fn rows_of_the_log_are_saved_and_no_log_is_left_for_the_new_database() {
    let place = Place::new();
    with_log(&place.path);
    let log = std::fs::read(with_ending(&place.path, "-wal")).unwrap();
    damage(&place.path);
    let recovery = recover(&place.path).unwrap();
    assert!(matches!(recovery.outcome, Outcome::Salvaged(_)), "{recovery}");
    assert!(!with_ending(&place.path, "-wal").exists());
    assert_eq!(std::fs::read(with_ending(&recovery.kept.unwrap(), "-wal")).unwrap(), log);
    let connection = stock(&place.path);
    assert_eq!(text(&connection, "SELECT count(*) FROM t WHERE id > 1000"), "2");
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "wal", "as before");
}

#[test]
fn a_hot_journal_is_played_back_first() {
    let place = Place::new();
    {
        let connection = stock(&place.path);
        connection.execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE t SET x = 'half of it' || id").unwrap();
        for ending in ["", "-journal"] {
            let from = with_ending(&place.path, ending);
            std::fs::copy(&from, with_ending(&place.home.path().join("crashed.db"), ending)).unwrap();
        }
    }
    let path = place.home.path().join("crashed.db");
    assert!(!pages(&path, 13, b"half of it").is_empty(), "the cache was large enough");
    // A page that the transaction has not touched.
    write(&path, pages(&path, 13, b"never touched")[0], &[0xff; 1024]);
    let recovery = recover(&path).unwrap();
    assert!(recovery.has_changed(), "{recovery}");
    assert!(with_ending(recovery.kept.as_ref().unwrap(), "-journal").exists());
    assert!(!with_ending(&path, "-journal").exists());
    let connection = stock(&path);
    assert_eq!(text(&connection, "SELECT count(*) FROM t WHERE x LIKE 'row%'"), ROWS.to_string(), "{recovery}");
}

#[test]
fn the_newest_sound_backup_takes_the_place_of_what_cannot_be_salvaged() {
    for (backups, choice) in [(["app.db.bak", "app.db.bak.1"], None), (["a", "b"], Some(["a", "b"]))] {
        let place = Place::new();
        let [newest, older] = backups.map(|name| place.path.with_file_name(name));
        std::fs::copy(&place.path, &older).unwrap();
        std::fs::copy(&place.path, &newest).unwrap();
        damage(&newest);
        std::fs::write(&place.path, vec![0x5a; 50_000]).unwrap();
        let mut wanted = Recover::new();
        if let Some(names) = choice {
            wanted = wanted.backups(names.map(|name| place.path.with_file_name(name)));
        }
        let before = place.files();
        let recovery = wanted.run(&place.path).unwrap();
        let Outcome::Restored { backup, .. } = &recovery.outcome else { panic!("{recovery}") };
        assert_eq!(backup, &older);
        assert_eq!(count(&place.path), ROWS);
        assert_eq!(std::fs::read(recovery.kept.unwrap()).unwrap(), before["app.db"]);
        for name in backups {
            assert_eq!(place.files()[name], before[name], "backups are only read");
        }
    }
}

#[test]
fn without_anything_to_save_all_stays_as_it_was() {
    let place = Place::new();
    std::fs::write(&place.path, vec![0x5a; 50_000]).unwrap();
    let before = place.files();
    let error = recover(&place.path).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
    assert_eq!(place.files(), before);
}

#[test]
fn a_database_that_is_open_is_refused() {
    let place = Place::damaged();
    let before = place.files();
    let idle = stock(&place.path);
    let error = recover(&place.path).unwrap_err();
    assert!(matches!(error, Error::Busy(_)) && error.to_string().contains("this process has it open"), "{error}");
    idle.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = recover(&place.path).unwrap_err();
    assert!(matches!(error, Error::Busy(_)) && error.to_string().contains("lock"), "{error}");
    idle.execute_batch("ROLLBACK").unwrap();
    assert_eq!(place.files(), before);
    drop(idle);
    let mut other = std::process::Command::new("sleep")
        .arg("100")
        .stdin(std::fs::File::open(&place.path).unwrap())
        .spawn()
        .unwrap();
    let error = recover(&place.path).unwrap_err();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(error.to_string().contains(&format!("process {} has it open", other.id())), "{error}");
    assert_eq!(place.files(), before);
    assert!(recover(&place.path).unwrap().has_changed());
}

#[test]
fn a_database_that_is_missing_is_not_made() {
    let home = TempDir::new().unwrap();
    let error = recover(home.path().join("app.db")).unwrap_err();
    assert!(matches!(error, Error::CannotOpen(_)), "{error}");
    assert!(files(home.path()).is_empty());
}

#[test]
fn a_stop_at_any_stage_leaves_everything_as_it_was() {
    let place = Place::damaged();
    let before = place.files();
    let mut told = 0;
    loop {
        let mut left = told;
        let result = Recover::new().run_with(&place.path, &mut |_| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match result {
            Err(error) => assert!(matches!(error, Error::Cancelled(_)), "{error}"),
            Ok(recovery) => {
                assert!(recovery.has_changed());
                break;
            }
        }
        assert_eq!(place.files(), before, "stopped at the {told}th word");
        told += 1;
    }
    assert!(told > 3, "{told}");
}
