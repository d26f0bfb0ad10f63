//! The shared database on tokio.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hardened_sqlite::{AsyncDatabase, Options};
use tempfile::TempDir;
use tokio::sync::oneshot;

async fn made() -> (TempDir, AsyncDatabase) {
    let home = TempDir::new().unwrap();
    let db = AsyncDatabase::open(home.path().join("app.db")).await.unwrap();
    db.write(|tx| tx.execute_batch("CREATE TABLE t(x INTEGER PRIMARY KEY)")).await.unwrap();
    (home, db)
}

async fn count(db: &AsyncDatabase) -> i64 {
    db.read(|c| c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_write_and_read_one_database() {
    let (home, db) = made().await;
    let tasks: Vec<_> = (0..50_i64)
        .map(|x| {
            let db = db.clone();
            tokio::spawn(async move {
                db.write(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [x])).await.unwrap();
                assert!(count(&db).await > 0);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(count(&db).await, 50);
    assert_eq!(db.report().await.unwrap().journal_mode.as_deref(), Some("wal"));
    let other = db.clone();
    assert!(other.close().await.unwrap().still_open);
    assert!(!db.close().await.unwrap().still_open);
    assert!(!home.path().join("app.db-wal").exists());
}

#[tokio::test]
async fn a_panic_goes_on_where_it_is_awaited_and_leaves_the_database_working() {
    let (_home, db) = made().await;
    let panics = db.clone();
    let task = tokio::spawn(async move {
        panics
            .write::<()>(|tx| {
                tx.execute("INSERT INTO t VALUES (1)", [])?;
                panic!("on purpose")
            })
            .await
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(count(&db).await, 0);
}

/// The runtime has one thread, so whatever blocked it would keep the message from being sent.
#[tokio::test]
async fn a_closure_that_waits_does_not_hold_up_the_runtime_and_a_dropped_future_does_not_stop_it() {
    let (_home, db) = made().await;
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let (ended, end) = oneshot::channel();
    let begun = Arc::new(AtomicBool::new(false));
    let writes = {
        let (db, begun) = (db.clone(), Arc::clone(&begun));
        tokio::spawn(async move {
            db.write(move |tx| {
                begun.store(true, Ordering::SeqCst);
                waits.recv().unwrap();
                tx.execute("INSERT INTO t VALUES (1)", [])?;
                ended.send(()).unwrap();
                Ok(())
            })
            .await
        })
    };
    while !begun.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    writes.abort();
    assert!(writes.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    end.await.unwrap();
    // Waits for its turn behind it.
    db.with_writer(|_| Ok(())).await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn errors_are_those_of_the_blocking_database() {
    let error = Options::new().create(false).open_async("/nowhere/app.db").await.unwrap_err();
    assert!(error.to_string().contains("the directory /nowhere does not exist"), "{error}");
}
