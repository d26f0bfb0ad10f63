//! Databases of every kind that a salvager meets.

use std::path::Path;

use rusqlite::Connection;

/// A kind of database.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Before the first table is made.
    pragmas: &'static str,
    fill: fn(&Connection),
}

pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "plain", pragmas: "PRAGMA page_size = 4096", fill: plain },
    Kind { name: "keys and indexes", pragmas: "PRAGMA page_size = 1024", fill: keys },
    Kind { name: "without rowid", pragmas: "PRAGMA page_size = 512", fill: without_rowid },
    Kind { name: "UTF-16le", pragmas: "PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 1024", fill: texts },
    Kind { name: "UTF-16be", pragmas: "PRAGMA encoding = 'UTF-16be'; PRAGMA page_size = 1024", fill: texts },
    Kind { name: "autoincrement, views, triggers", pragmas: "PRAGMA page_size = 1024", fill: schema },
    Kind { name: "virtual tables", pragmas: "PRAGMA page_size = 4096", fill: virtual_tables },
    Kind { name: "auto_vacuum", pragmas: "PRAGMA page_size = 512; PRAGMA auto_vacuum = FULL", fill: holes },
    Kind { name: "free pages", pragmas: "PRAGMA page_size = 1024", fill: holes },
    Kind { name: "odd columns", pragmas: "PRAGMA page_size = 2048", fill: columns },
    Kind { name: "many tables", pragmas: "PRAGMA page_size = 512", fill: many_tables },
    Kind { name: "large pages", pragmas: "PRAGMA page_size = 65536", fill: keys },
    Kind { name: "log", pragmas: "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL", fill: keys },
];

impl Kind {
    /// Makes one. Its log, if it has one, holds a part of it.
    pub(crate) fn make(&self, path: &Path) {
        let connection = Connection::open(path).unwrap();
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection.execute_batch(self.pragmas).unwrap();
        connection.execute_batch("PRAGMA wal_autocheckpoint = 40; BEGIN").unwrap();
        (self.fill)(&connection);
        connection.execute_batch("COMMIT; CREATE TABLE last(x INTEGER PRIMARY KEY, y)").unwrap();
        for x in 0..40 {
            connection.execute("INSERT INTO last VALUES(?1, ?2)", (x, format!("last {x}"))).unwrap();
        }
    }
}

fn rows(connection: &Connection, count: u32, insert: &str) {
    connection
        .execute(
            &format!("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {count}) {insert}"),
            [],
        )
        .unwrap();
}

fn plain(connection: &Connection) {
    connection.execute_batch("CREATE TABLE a(i, r REAL, t TEXT, b BLOB, n); CREATE TABLE b(t, u)").unwrap();
    rows(
        connection,
        900,
        "INSERT INTO a SELECT i * 7919 % 100003 - 50000, i / 4.0, 'row ' || i || hex(zeroblob(i % 50)), \
         CASE WHEN i % 37 = 0 THEN CAST(printf('%.*c', i * 13, 'x') AS BLOB) ELSE x'00ff' END, \
         CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN i ELSE '' END FROM n",
    );
    rows(connection, 500, "INSERT INTO b SELECT 'other ' || i, i % 2 FROM n");
}

fn keys(connection: &Connection) {
    connection
        .execute_batch(
            "CREATE TABLE a(id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INT, CHECK(size >= 0));
             CREATE INDEX a_size ON a(size, name);
             CREATE UNIQUE INDEX a_both ON a(name, size) WHERE size > 10;
             CREATE TABLE c(x INT, y INT, z TEXT NOT NULL, PRIMARY KEY(y, x))",
        )
        .unwrap();
    rows(connection, 1500, "INSERT INTO a SELECT i * 3, 'name ' || (i * 7919 % 10007), i % 100 FROM n");
    rows(connection, 800, "INSERT INTO c SELECT i, i % 7, 'z' || hex(zeroblob(i % 30)) FROM n");
}

fn without_rowid(connection: &Connection) {
    connection
        .execute_batch(
            "CREATE TABLE a(v TEXT, k TEXT PRIMARY KEY, w REAL) WITHOUT ROWID;
             CREATE TABLE b(p, q INT, r, s INT, PRIMARY KEY(s DESC, q)) WITHOUT ROWID;
             CREATE INDEX b_r ON b(r);
             CREATE TABLE r(x, y, z, u)",
        )
        .unwrap();
    rows(connection, 700, "INSERT INTO a SELECT 'value ' || i, 'key ' || (i * 7919 % 10007), i FROM n");
    rows(
        connection,
        400,
        "INSERT INTO b SELECT CASE WHEN i % 41 = 0 THEN hex(zeroblob(i * 3)) ELSE i END, i, 'r' || i, i % 20 FROM n",
    );
    rows(connection, 300, "INSERT INTO r SELECT i, 'a', 'b' || i, i * 1.5 FROM n");
}

fn texts(connection: &Connection) {
    connection.execute_batch("CREATE TABLE a(id INTEGER PRIMARY KEY, t TEXT, u); CREATE TABLE b(t)").unwrap();
    rows(
        connection,
        600,
        "INSERT INTO a SELECT i, 'Grüße ' || i || ' ' || char(127757, 1234), CASE WHEN i % 29 = 0 \
         THEN CAST(x'd8d80041dddd' AS TEXT) ELSE 'x' || char(0) || i END FROM n",
    );
    rows(connection, 400, "INSERT INTO b SELECT i || printf('%.*c', i * 3, 'ß') || i FROM n");
}

fn schema(connection: &Connection) {
    connection
        .execute_batch(
            "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, t);
             CREATE TABLE log(id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, at INT DEFAULT 5);
             CREATE VIEW v AS SELECT a.id, log.what FROM a JOIN log USING(id);
             CREATE TRIGGER a_insert AFTER INSERT ON a BEGIN INSERT INTO log(what) VALUES('insert ' || new.id); END;
             CREATE TRIGGER v_insert INSTEAD OF INSERT ON v BEGIN INSERT INTO a(t) VALUES(new.what); END;
             CREATE INDEX a_t ON a(t COLLATE NOCASE)",
        )
        .unwrap();
    rows(connection, 700, "INSERT INTO a(t) SELECT 'text ' || i FROM n");
    connection.execute_batch("DELETE FROM a WHERE id > 690; ANALYZE").unwrap();
}

fn virtual_tables(connection: &Connection) {
    connection
        .execute_batch(
            "CREATE VIRTUAL TABLE words USING fts5(title, body);
             CREATE VIRTUAL TABLE older USING fts4(body);
             CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1)",
        )
        .unwrap();
    rows(connection, 400, "INSERT INTO words SELECT 'title ' || i, 'some words and number ' || i FROM n");
    rows(connection, 300, "INSERT INTO older SELECT 'older words and number ' || i FROM n");
    rows(connection, 300, "INSERT INTO boxes SELECT i, i, i + 1, -i, i FROM n");
}

fn holes(connection: &Connection) {
    connection
        .execute_batch("CREATE TABLE a(id INTEGER PRIMARY KEY, t); CREATE TABLE gone(x, y); CREATE TABLE b(t, u)")
        .unwrap();
    rows(connection, 900, "INSERT INTO a SELECT i, 'row ' || i || hex(zeroblob(i % 40)) FROM n");
    rows(connection, 200, "INSERT INTO gone SELECT i, 'gone' FROM n");
    rows(connection, 500, "INSERT INTO b SELECT 'b ' || i, i FROM n");
    connection.execute_batch("COMMIT; BEGIN; DROP TABLE gone; DELETE FROM a WHERE id BETWEEN 300 AND 450").unwrap();
}

fn columns(connection: &Connection) {
    connection
        .execute_batch(
            "CREATE TABLE a(x REAL, g AS (x * 2), s AS (x + 1) STORED, y NUMERIC, \"odd \"\" name\" TEXT);
             CREATE TABLE b(_rowid_, rowid, oid, v);
             CREATE TABLE c(i INTEGER NOT NULL, t TEXT, a ANY) STRICT",
        )
        .unwrap();
    rows(connection, 500, "INSERT INTO a(x, y, \"odd \"\" name\") SELECT i, i || '.5', 'n' || i FROM n");
    rows(connection, 300, "INSERT INTO b SELECT i, 'r' || i, -i, x'aabb' FROM n");
    rows(connection, 300, "INSERT INTO c SELECT i, 'strict ' || i, CASE i % 2 WHEN 0 THEN i ELSE 'any' END FROM n");
    connection
        .execute_batch("ALTER TABLE a ADD COLUMN late TEXT NOT NULL DEFAULT 'then'; ALTER TABLE b ADD COLUMN n INT")
        .unwrap();
    rows(connection, 300, "INSERT INTO a(x, y, late) SELECT i / 8.0, i, 'now ' || i FROM n");
}

fn many_tables(connection: &Connection) {
    for table in 0..40 {
        connection
            .execute_batch(&format!("CREATE TABLE t{table}(a INT, b TEXT); CREATE INDEX i{table} ON t{table}(b)"))
            .unwrap();
        rows(connection, 30 + table, &format!("INSERT INTO t{table} SELECT i, 'table {table} row ' || i FROM n"));
    }
}
