//! Key-value stores: two of them, one file, one connection.

#[path = "../../examples/key_value_stores.rs"]
mod key_value_stores;

use std::path::Path;

use key_value_stores::Store;
use tempfile::TempDir;

/// It lives in one connection only.
fn mark(store: &Store) {
    store.database().with_writer(|c| c.execute_batch("CREATE TEMP TABLE mark(x)")).unwrap();
}

fn has_mark(store: &Store) -> bool {
    store.database().with_writer(|c| c.execute("INSERT INTO mark VALUES (1)", [])).is_ok()
}

#[test]
fn two_stores_share_a_connection_and_the_last_to_close_closes_it() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("state.db");
    let (one, two) = (Store::open(&path, "one").unwrap(), Store::open(&path, "two").unwrap());
    mark(&one);
    assert!(has_mark(&two), "the same connection");
    one.set("name", "of one").unwrap();
    two.set("name", "of two").unwrap();
    assert_eq!(one.get("name").unwrap().as_deref(), Some("of one"));
    assert!(one.close().unwrap().still_open);
    two.set("name", "of two, later").unwrap();
    assert_eq!(two.get("name").unwrap().as_deref(), Some("of two, later"));
    assert!(!two.close().unwrap().still_open);
    assert!(!home.path().join("state.db-wal").exists(), "closed, and the log is empty");
    let again = Store::open(&path, "two").unwrap();
    assert!(!has_mark(&again), "a new connection");
    assert_eq!(again.get("name").unwrap().as_deref(), Some("of two, later"));
}

#[test]
fn stores_in_memory_are_their_own() {
    let memory = Path::new(":memory:");
    let (one, other) = (Store::open(memory, "t").unwrap(), Store::open(memory, "t").unwrap());
    one.set("name", "value").unwrap();
    assert_eq!(other.get("name").unwrap(), None);
    assert_eq!(one.get("name").unwrap().as_deref(), Some("value"));
}
