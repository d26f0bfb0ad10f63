//! Another process that runs statements on one database, one line at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rusqlite::Connection;

use super::open;

/// The result code of statements, 0 for success. Rows are read and thrown away.
pub(crate) fn code(db: &Connection, sql: &str) -> i32 {
    match db.execute_batch(sql) {
        Ok(()) => 0,
        Err(rusqlite::Error::SqliteFailure(error, _)) => error.extended_code,
        Err(error) => panic!("{sql}: {error}"),
    }
}

const PEER: &str = "HARDENED_LOCKS_PEER";

/// The process.
pub(crate) struct Peer {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Peer {
    /// Opens `path` there, with this VFS and options.
    pub(crate) fn open(path: &Path, vfs: &str) -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peer::another_process", "--nocapture", "--test-threads=1"])
            .env(PEER, format!("{vfs} {}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, hear) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Peer { child, say, hear }
    }

    /// The result code of statements there.
    pub(crate) fn run(&mut self, sql: &str) -> i32 {
        writeln!(self.say, "{sql}").unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.hear.read_line(&mut line).unwrap(), 0, "the other process has ended");
            if let Some((_, code)) = line.split_once("PEER ") {
                return code.trim().parse().unwrap();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: what [`Peer`] starts.
#[test]
fn another_process() {
    let Ok(task) = std::env::var(PEER) else { return };
    let (vfs, path) = task.split_once(' ').unwrap();
    let db = open(Path::new(path), vfs);
    for sql in std::io::stdin().lines() {
        println!("PEER {}", code(&db, &sql.unwrap()));
    }
    // The one who asked has gone.
    support::process::die();
}
