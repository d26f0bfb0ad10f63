//! The WAL-reset bug of SQLite 3.7.0 to 3.51.2 (<https://www.sqlite.org/wal.html#walresetbug>), with the SQLite of the
//! system, which is that old.
//!
//! A checkpoint takes its lock and reads the header of the index; a log that is in the database as a whole is then begun anew
//! by a writer; the checkpoint goes on and counts as many frames as the old log had as copied. What is committed to their
//! places afterwards is never copied, and goes with the log. Between the two steps SQLite calls
//! xUnfetch on the database if the header has changed since it last looked. There the test lets the writer commit, in the same
//! thread: one order of events, and no waiting.

use std::path::Path;
use std::process::Command;

use support::require;

const SCRIPT: &str = r#"
import ctypes as C, os, sys
extension, directory = sys.argv[1:]
lib = C.CDLL("libsqlite3.so.0")
lib.sqlite3_libversion.restype = C.c_char_p
print(lib.sqlite3_libversion().decode())

names = ("Close Read Write Truncate Sync FileSize Lock Unlock CheckReservedLock FileControl SectorSize "
         "DeviceCharacteristics ShmMap ShmLock ShmBarrier ShmUnmap Fetch Unfetch").split()
class Methods(C.Structure):
    _fields_ = [("version", C.c_int)] + [(name, C.c_void_p) for name in names]
class File(C.Structure):
    _fields_ = [("methods", C.POINTER(Methods))]
UNFETCH = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_int64, C.c_void_p)
ROW = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_int, C.POINTER(C.c_char_p), C.POINTER(C.c_char_p))
FILE_POINTER = 7

class Connection:
    def __init__(self, name):
        self.db = C.c_void_p()
        code = lib.sqlite3_open_v2(name.encode(), C.byref(self.db), 0x46, None)
        assert code == 0, (name, code)
    def sql(self, sql):
        rows = []
        @ROW
        def row(_, n, values, __):
            rows.append(b"|".join(value or b"" for value in values[:n]).decode())
            return 0
        code = lib.sqlite3_exec(self.db, sql.encode(), row, None, None)
        assert code == 0, (sql, code)
        return rows
    def close(self):
        assert lib.sqlite3_close(self.db) == 0
    def on_unfetch(self, body):
        file = C.POINTER(File)()
        assert lib.sqlite3_file_control(self.db, b"main", FILE_POINTER, C.byref(file)) == 0
        methods = Methods.from_buffer_copy(file.contents.methods.contents)
        base = UNFETCH(methods.Unfetch)
        @UNFETCH
        def unfetch(f, at, page):
            body()
            return base(f, at, page)
        methods.Unfetch = C.cast(unfetch, C.c_void_p).value
        self.kept = (methods, unfetch)
        file.contents.methods = C.pointer(methods)

host = Connection(":memory:")
lib.sqlite3_enable_load_extension(host.db, 1)
assert lib.sqlite3_load_extension(host.db, extension.encode(), None, None) == 0

def scenario(writes, checkpoints):
    name = lambda vfs: "file:%s/%s-%s.db?vfs=%s" % (directory, writes, checkpoints, vfs)
    writer = Connection(name(writes))
    writer.sql("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x)")
    checkpointer = Connection(name(checkpoints))
    checkpointer.sql("PRAGMA wal_autocheckpoint=0; SELECT * FROM t")
    for i in range(20):
        writer.sql("INSERT INTO t VALUES (randomblob(1000))")
    writer.sql("PRAGMA wal_checkpoint")
    called = []
    def commit():
        if not called:
            called.append(writer.sql("INSERT INTO t VALUES ('committed'); SELECT count(*) FROM t")[0])
    checkpointer.on_unfetch(commit)
    checkpointer.sql("PRAGMA wal_checkpoint(PASSIVE)")
    assert called == ["21"], "the interleaving took place"
    writer.sql("INSERT INTO t VALUES ('committed')")
    checkpointer.close()
    writer.close()
    reader = Connection(name("unix"))
    rows = reader.sql("SELECT count(*) FROM t WHERE x='committed'")[0]
    intact = reader.sql("PRAGMA integrity_check")[0]
    reader.close()
    return "%s %s: %s %s" % (writes, checkpoints, rows, intact)

for writes in ("unix", "hardened"):
    for checkpoints in ("unix", "hardened"):
        print(scenario(writes, checkpoints))
"#;

#[test]
fn a_checkpoint_that_has_read_the_header_is_not_overtaken_by_a_log_begun_anew() {
    let system = Path::new("/usr/lib/x86_64-linux-gnu/libsqlite3.so.0");
    if !system.exists() || !Path::new("/usr/bin/python3").exists() {
        require::unavailable("Debian's libsqlite3 and python3");
        return;
    }
    let extension = support::extension::build(Path::new(env!("CARGO_MANIFEST_DIR")));
    let home = tempfile::tempdir().unwrap();
    let output =
        Command::new("/usr/bin/python3").args(["-c", SCRIPT]).arg(extension).arg(home.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let lines: Vec<&str> = out.lines().collect();
    println!("{lines:?}");
    if lines[0] != "3.40.1" {
        println!("the SQLite of this system is {}: it may have no such bug", lines[0]);
    } else {
        assert!(!lines[1].ends_with(": 2 ok"), "stock loses a commit: {out}");
    }
    assert_eq!(lines[2..], ["unix hardened: 2 ok", "hardened unix: 2 ok", "hardened hardened: 2 ok"]);
}
