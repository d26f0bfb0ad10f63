#![allow(missing_docs, clippy::unwrap_used)]
use hardened_sqlite::*;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
fn show(name: &str, path: &Path) {
    println!("== {name}");
    match open_connection(path) {
        Ok(c) => {
            println!("opened; report: {:?}", report(&c).map(|r| (r.file, r.journal_mode, r.notes)));
            println!("  schema: {:?}", c.query_row("select count(*) from sqlite_schema", [], |r| r.get::<_, i64>(0)));
            println!("  write: {:?}", c.execute_batch("create table zz(a); insert into zz values (1)"));
        }
        Err(e) => println!("code {:?}\n  {}", e.code(), e.user_message("P")),
    }
    match Connection::open_with_flags(format!("file:{}?vfs=hardened", path.display()), OpenFlags::default()) {
        Ok(c) => println!(
            "plain opened; {:?}",
            c.query_row("select count(*) from sqlite_schema", [], |r| r.get::<_, i64>(0))
        ),
        Err(e) => println!("plain {e:?}"),
    }
    match Connection::open(path) {
        Ok(c) => println!(
            "stock opened; {:?}",
            c.query_row("select count(*) from sqlite_schema", [], |r| r.get::<_, i64>(0))
        ),
        Err(e) => println!("stock {e:?}"),
    }
}
#[test]
fn scratch() {
    let d = tempfile::tempdir().unwrap();
    let d = d.path();
    let db = d.join("real.db");
    {
        let c = Connection::open(&db).unwrap();
        c.execute_batch("create table t(x); with recursive g(i) as (select 1 union all select i+1 from g where i<100) insert into t select randomblob(500) from g").unwrap();
    }
    let real = std::fs::read(&db).unwrap();
    println!("real {}", real.len());
    for n in [0usize, 1, 15, 16, 50, 99, 100, 511, 512, 4096, 6000] {
        let p = d.join(format!("cut{n}"));
        std::fs::write(&p, &real[..n]).unwrap();
        show(&format!("cut {n}"), &p);
    }
    for (n, b) in [
        ("text", b"hello world, this is text\n".to_vec()),
        ("gzip", vec![0x1f, 0x8b, 8, 0, 0, 0]),
        ("zeros", vec![0; 4096]),
        ("short zeros", vec![0; 20]),
    ] {
        let p = d.join(n);
        std::fs::write(&p, b).unwrap();
        show(n, &p);
    }
    show("missing dir", &d.join("a/b/c.db"));
    show("component is file", &d.join("real.db/c.db"));
    show("directory", d);
    std::process::Command::new("mkfifo").arg(d.join("fifo")).status().unwrap();
    std::os::unix::fs::symlink("nothing/here", d.join("dangling")).unwrap();
    std::os::unix::fs::symlink("loop", d.join("loop")).unwrap();
    show("fifo", &d.join("fifo"));
    show("dangling", &d.join("dangling"));
    show("loop", &d.join("loop"));
    show("loop dir", &d.join("loop/a.db"));
    show("long", &d.join("x".repeat(300)));
    show("long path", &d.join("x/".repeat(2000)).join("a.db"));
    show("nul", Path::new("a\0b"));
    show("empty", Path::new(""));
    show("memory", Path::new(":memory:"));
    show("dev null", Path::new("/dev/null"));
    show("slash", &d.join("real.db/"));
}
