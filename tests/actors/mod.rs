//! Connections, stock or hardened, in this process or in another: the same test drives them in every combination.
//!
//! Invariant: what an actor is told is done when [`Actor::sql`] answers, so a test is one order of events.
//! A test program that has actors says `mod actors;` at its root, where the other process looks for [`other_process`].
#![allow(dead_code, reason = "no test program needs all of it")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use hardened_sqlite::hardened_vfs;
use support::sqlite::{Connection, Failure};

const SERVE: &str = "HARDENED_TEST_SERVE";

/// Which VFS, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) hardened: bool,
    pub(crate) elsewhere: bool,
}

pub(crate) const STOCK: Kind = Kind { hardened: false, elsewhere: false };
pub(crate) const HARDENED: Kind = Kind { hardened: true, elsewhere: false };
pub(crate) const STOCK_ELSEWHERE: Kind = Kind { hardened: false, elsewhere: true };
pub(crate) const HARDENED_ELSEWHERE: Kind = Kind { hardened: true, elsewhere: true };
pub(crate) const ALL: [Kind; 4] = [STOCK, HARDENED, STOCK_ELSEWHERE, HARDENED_ELSEWHERE];

/// All pairs of which at least one is hardened.
pub(crate) fn pairs() -> impl Iterator<Item = (Kind, Kind)> {
    ALL.into_iter().flat_map(|a| ALL.map(|b| (a, b))).filter(|(a, b)| a.hardened || b.hardened)
}

pub(crate) enum Actor {
    Here(Connection),
    There(Other),
}

/// Another process with one connection.
pub(crate) struct Other {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

fn uri(path: &Path, hardened: bool, parameters: &str) -> String {
    let vfs = if hardened { "hardened&busy_timeout=0" } else { "unix" };
    format!("file:{}?vfs={vfs}&{parameters}", path.display())
}

fn open(uri: &str) -> Result<Connection, Failure> {
    hardened_vfs::register(Default::default()).unwrap();
    Connection::open(uri, None)
}

/// Not a test of its own: the other process.
#[test]
fn other_process() {
    serve();
}

impl Actor {
    pub(crate) fn open(path: &Path, kind: Kind) -> Actor {
        Actor::with(path, kind, "", false)
    }

    /// With more parameters in the URI; as nobody in particular, if asked for, where we are root.
    pub(crate) fn with(path: &Path, kind: Kind, parameters: &str, nobody: bool) -> Actor {
        let uri = uri(path, kind.hardened, parameters);
        match kind.elsewhere {
            false => Actor::Here(open(&uri).unwrap_or_else(|error| panic!("{uri}: {error:?}"))),
            true => Actor::There(Other::with(&uri, nobody)),
        }
    }

    /// Runs SQL; the first column of every row, or the extended result code.
    pub(crate) fn sql(&mut self, sql: &str) -> Result<Vec<String>, i32> {
        match self {
            Actor::Here(connection) => connection.rows(sql).map_err(|error| error.code),
            Actor::There(other) => other.sql(sql),
        }
    }

    #[track_caller]
    pub(crate) fn ok(&mut self, sql: &str) -> String {
        let rows = self.sql(sql).unwrap_or_else(|code| panic!("{sql}: {code}"));
        rows.last().cloned().unwrap_or_default()
    }

    /// SQL that ends the other process: the signal.
    pub(crate) fn dies_of(mut self, sql: &str) -> Option<i32> {
        let Actor::There(other) = &mut self else { panic!("only another process may die") };
        match other.asked(&format!("sql {sql}")) {
            None => other.child.wait().unwrap().signal(),
            Some(_) => None,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(self) {
        let Actor::There(other) = self else { panic!("only another process can be killed") };
        other.kill();
    }

    pub(crate) fn close(self) {
        match self {
            Actor::Here(connection) => drop(connection),
            Actor::There(other) => other.close(),
        }
    }
}

impl Other {
    /// Opens the database of a URI there.
    pub(crate) fn open(uri: &str) -> Other {
        Other::with(uri, false)
    }

    fn with(uri: &str, nobody: bool) -> Other {
        // Through a descriptor: another user may not be allowed into the directories that lead to it.
        let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let at = std::os::fd::AsRawFd::as_raw_fd(&program);
        let mut command = Command::new(format!("/proc/self/fd/{at}"));
        command.args(["--exact", "actors::other_process", "--nocapture"]).env(SERVE, "1").current_dir("/");
        if nobody && rustix_is_root() {
            command.uid(65534).gid(65534);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut other = Other { child, orders, answers };
        other.order(&format!("open {uri}")).unwrap_or_else(|code| panic!("{uri}: {code}"));
        other
    }

    /// What an order is answered; `None` if the process has ended.
    fn asked(&mut self, order: &str) -> Option<Result<Vec<String>, i32>> {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        self.answer()
    }

    fn order(&mut self, order: &str) -> Result<Vec<String>, i32> {
        self.asked(order).unwrap_or_else(|| panic!("{order}: the other process is gone"))
    }

    /// Runs SQL there; the first column of every row, or the extended result code.
    pub(crate) fn sql(&mut self, sql: &str) -> Result<Vec<String>, i32> {
        self.order(&format!("sql {sql}"))
    }

    /// The result code of statements there, 0 for success.
    pub(crate) fn run(&mut self, sql: &str) -> i32 {
        self.sql(sql).err().unwrap_or(0)
    }

    /// Closes the connection and ends the process.
    pub(crate) fn close(mut self) {
        self.order("close").unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `None` if the process has ended.
    fn answer(&mut self) -> Option<Result<Vec<String>, i32>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.answers.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let line = line.trim_end_matches('\n');
            if let Some(rows) = line.strip_prefix("=ok ") {
                return Some(Ok(rows.split('\u{1f}').filter(|row| !row.is_empty()).map(str::to_owned).collect()));
            }
            if let Some(code) = line.strip_prefix("=err ") {
                return Some(Err(code.parse().unwrap()));
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The other process: orders on stdin, an answer to each on stdout.
fn serve() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    let mut connection = None;
    // Past what the test harness has printed without an end of line.
    println!();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("open", uri) => open(uri).map(|opened| {
                connection = Some(opened);
                Vec::new()
            }),
            ("sql", sql) => connection.as_ref().unwrap().rows(sql),
            _ => {
                connection = None;
                Ok(Vec::new())
            }
        };
        match answer {
            Ok(rows) => println!("=ok {}", rows.join("\u{1f}")),
            Err(error) => println!("=err {}", error.code),
        }
    }
}
