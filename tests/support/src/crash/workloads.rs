//! The workloads that CI runs.

use super::cut::Device;
use super::rng::Rng;
use super::workload::{Journal, Setting, Step, Synchronous, Workload};

/// A mix of transactions by one connection: small and large, updates of everything, deletions that free pages, and
/// savepoints that are rolled back.
pub fn mixed(name: &str, setting: Setting, transactions: usize) -> Workload {
    let mut sql = Sql::new(name, &setting);
    let before = sql.before();
    let steps = (0..transactions).map(|number| sql.commit(number % setting.connections)).collect();
    Workload { name: name.to_owned(), setting, before, steps }
}

/// Makes statements from a seed.
pub(super) struct Sql {
    rng: Rng,
    body: usize,
    schemas: &'static [&'static str],
    kind: usize,
}

impl Sql {
    pub(super) fn new(name: &str, setting: &Setting) -> Self {
        let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let body = (setting.page_size / 3).clamp(200, 6000);
        Self { rng: Rng::new(seed), body, schemas: setting.schemas(), kind: 0 }
    }

    /// Half of the body is zeros, as in many real records: a torn page must not look like a whole one because all is noise.
    fn blob(&mut self) -> String {
        let mut bytes = vec![0; self.body / 2 + self.rng.below(self.body)];
        let noise = bytes.len() / 2;
        self.rng.fill(&mut bytes[..noise]);
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("x'{digits}'")
    }

    pub(super) fn before(&mut self) -> Vec<String> {
        let mut sql = vec!["CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER, body BLOB)".to_owned()];
        sql.push("CREATE INDEX t_k ON t(k)".to_owned());
        for id in 1..=30 {
            let k = self.rng.below(1000);
            sql.push(format!("INSERT INTO t VALUES({id},{k},{})", self.blob()));
        }
        sql
    }

    fn insert(&mut self, schema: &str, rows: usize) -> Vec<String> {
        (0..rows)
            .map(|_| {
                let k = self.rng.below(1000);
                format!("INSERT INTO {schema}.t(k,body) VALUES({k},{})", self.blob())
            })
            .collect()
    }

    fn update(&mut self, schema: &str) -> String {
        let (id, k) = (1 + self.rng.below(30), self.rng.below(1000));
        format!("UPDATE {schema}.t SET k={k}, body={} WHERE id>={id} AND id<={id}+1", self.blob())
    }

    /// One transaction; the kinds take turns so that few of them cover all.
    pub(super) fn commit(&mut self, by: usize) -> Step {
        let mut sql = Vec::new();
        for schema in self.schemas {
            match self.kind % 7 {
                0 => sql.push(self.update(schema)),
                1 => sql.push(format!("UPDATE {schema}.t SET k=k+1")),
                2 => sql.extend(self.insert(schema, 1)),
                3 => {
                    sql.extend(self.insert(schema, 10));
                    sql.push(self.update(schema));
                }
                4 => {
                    let id = 1 + self.rng.below(20);
                    sql.push(format!("DELETE FROM {schema}.t WHERE id>={id} AND id<{id}+12"));
                }
                5 => {
                    sql.push(self.update(schema));
                    sql.push("SAVEPOINT s".to_owned());
                    sql.push(format!("UPDATE {schema}.t SET k=k*2"));
                    sql.extend(self.insert(schema, 5));
                    sql.push("ROLLBACK TO s".to_owned());
                    sql.extend(self.insert(schema, 2));
                    sql.push("RELEASE s".to_owned());
                }
                _ => {
                    sql.push(format!("DELETE FROM {schema}.t WHERE k%3=0"));
                    sql.extend(self.insert(schema, 3));
                }
            }
            // Every transaction must be told from every other.
            sql.push(format!("UPDATE {schema}.t SET k=k+100000 WHERE id=(SELECT max(id) FROM {schema}.t)"));
        }
        self.kind += 1;
        Step::Commit { by, sql }
    }
}

/// Those settings whose states are told apart in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// FULL and EXTRA.
    Full,
    /// NORMAL in WAL mode.
    NormalWal,
    /// NORMAL with a rollback journal.
    NormalRollback,
    /// OFF.
    Off,
    /// FULL and EXTRA where a file's new size may be durable before a name that changed earlier.
    FullUnordered,
}

impl Group {
    /// The group of a setting.
    pub fn of(setting: &Setting) -> Group {
        match (setting.synchronous, setting.journal) {
            _ if setting.device.sizes_overtake_names => Group::FullUnordered,
            (Synchronous::Off, _) => Group::Off,
            (Synchronous::Normal, Journal::Wal) => Group::NormalWal,
            (Synchronous::Normal, _) => Group::NormalRollback,
            _ => Group::Full,
        }
    }
}

const ROLLBACK: [Journal; 3] = [Journal::Delete, Journal::Truncate, Journal::Persist];

/// All of them.
pub fn all() -> Vec<Workload> {
    let mut all = modes();
    all.extend(sizes());
    all.extend(space());
    all.extend(checkpoints());
    all.extend(several());
    all.extend(devices());
    all.extend(unordered());
    all.extend(beginnings());
    all
}

/// Every journal mode with every synchronous level.
fn modes() -> Vec<Workload> {
    let mut all = Vec::new();
    for journal in [Journal::Delete, Journal::Truncate, Journal::Persist, Journal::Wal] {
        for synchronous in [Synchronous::Off, Synchronous::Normal, Synchronous::Full, Synchronous::Extra] {
            let mut setting = Setting::new(journal, synchronous);
            setting.autocheckpoint = 12;
            all.push(mixed(&format!("{} {}", journal.word(), synchronous.word()), setting, 8));
        }
    }
    all
}

/// Page sizes, and caches so small that pages are written before the commit.
fn sizes() -> Vec<Workload> {
    let mut all = Vec::new();
    let modes = [
        (Journal::Delete, Synchronous::Full),
        (Journal::Persist, Synchronous::Full),
        (Journal::Wal, Synchronous::Normal),
        (Journal::Wal, Synchronous::Full),
    ];
    for (journal, synchronous) in modes {
        for page_size in [512, 4096, 65536] {
            let setting = Setting { page_size, autocheckpoint: 12, ..Setting::new(journal, synchronous) };
            let name = format!("{} {}, pages of {page_size}", journal.word(), synchronous.word());
            all.push(mixed(&name, setting, if page_size == 65536 { 5 } else { 7 }));
        }
        let setting = Setting { cache: Some(5), autocheckpoint: 20, ..Setting::new(journal, synchronous) };
        all.push(mixed(&format!("{} {}, a small cache", journal.word(), synchronous.word()), setting, 7));
    }
    let setting = Setting { cache: Some(5), ..Setting::new(Journal::Truncate, Synchronous::Full) };
    all.push(mixed("truncate full, a small cache", setting, 7));
    all
}

/// A workload whose every second transaction is followed by a statement that leaves the content alone.
fn between(name: &str, setting: Setting, transactions: usize, statements: &[&str]) -> Workload {
    let mut workload = mixed(name, setting, transactions);
    let mut next = statements.iter().cycle();
    let mut steps = Vec::new();
    for (number, step) in workload.steps.into_iter().enumerate() {
        steps.push(step);
        if number % 2 == 1 {
            let by = setting.connections - 1;
            steps.push(Step::Neutral { by, sql: next.next().map_or("", |sql| sql).to_owned() });
        }
    }
    workload.steps = steps;
    workload
}

/// What gives pages back: VACUUM, incremental and automatic.
fn space() -> Vec<Workload> {
    let modes = [
        (Journal::Delete, Synchronous::Full),
        (Journal::Truncate, Synchronous::Full),
        (Journal::Wal, Synchronous::Normal),
        (Journal::Wal, Synchronous::Full),
    ];
    let mut all = Vec::new();
    for (journal, synchronous) in modes {
        let setting = Setting { autocheckpoint: 20, ..Setting::new(journal, synchronous) };
        let name = |what: &str| format!("{} {}, {what}", journal.word(), synchronous.word());
        all.push(between(&name("VACUUM"), setting, 6, &["VACUUM"]));
        let incremental = Setting { auto_vacuum: 2, ..setting };
        let statements = ["PRAGMA incremental_vacuum(3)", "PRAGMA incremental_vacuum"];
        all.push(between(&name("incremental vacuum"), incremental, 7, &statements));
        all.push(mixed(&name("auto vacuum"), Setting { auto_vacuum: 1, ..setting }, 7));
    }
    let statement = "BEGIN; DELETE FROM t WHERE id>5; UPDATE t SET k=0; ROLLBACK";
    let setting = Setting { cache: Some(5), ..Setting::new(Journal::Delete, Synchronous::Full) };
    all.push(between("delete full, rolled back after pages were written", setting, 6, &[statement]));
    let setting = Setting { cache: Some(5), autocheckpoint: 20, ..Setting::new(Journal::Wal, Synchronous::Full) };
    all.push(between("wal full, rolled back after frames were written", setting, 6, &[statement]));
    all
}

/// Checkpoints of all kinds, alone and while a second connection reads an old snapshot.
fn checkpoints() -> Vec<Workload> {
    let mut all = Vec::new();
    for synchronous in [Synchronous::Normal, Synchronous::Full] {
        for kind in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
            let setting = Setting { autocheckpoint: 0, ..Setting::new(Journal::Wal, synchronous) };
            let checkpoint = format!("PRAGMA wal_checkpoint({kind})");
            let name = format!("wal {}, {kind} checkpoints", synchronous.word());
            all.push(between(&name, setting, 7, &[&checkpoint]));

            let setting = Setting { connections: 2, ..setting };
            let mut sql = Sql::new(&name, &setting);
            let before = sql.before();
            let neutral = |by: usize, sql: &str| Step::Neutral { by, sql: sql.to_owned() };
            let steps = vec![
                sql.commit(0),
                neutral(1, "BEGIN; SELECT * FROM t"),
                sql.commit(0),
                neutral(0, &checkpoint),
                sql.commit(0),
                neutral(0, &checkpoint),
                neutral(1, "COMMIT"),
                neutral(0, &checkpoint),
                sql.commit(1),
                neutral(0, "BEGIN; SELECT * FROM t"),
                sql.commit(1),
                neutral(1, &checkpoint),
                neutral(0, "COMMIT"),
                sql.commit(0),
                neutral(1, &checkpoint),
            ];
            all.push(Workload { name: format!("{name} under a reader"), setting, before, steps });
        }
    }
    all
}

/// Several databases in one transaction, several connections to one database, and connections that come and go.
fn several() -> Vec<Workload> {
    let mut all = Vec::new();
    for journal in ROLLBACK {
        for synchronous in [Synchronous::Full, Synchronous::Extra] {
            let setting = Setting { databases: 2, ..Setting::new(journal, synchronous) };
            all.push(mixed(&format!("{} {}, two databases", journal.word(), synchronous.word()), setting, 6));
        }
    }
    for (journal, synchronous) in [
        (Journal::Delete, Synchronous::Full),
        (Journal::Persist, Synchronous::Full),
        (Journal::Truncate, Synchronous::Full),
        (Journal::Wal, Synchronous::Normal),
        (Journal::Wal, Synchronous::Full),
    ] {
        let setting = Setting { connections: 2, autocheckpoint: 12, ..Setting::new(journal, synchronous) };
        let name = format!("{} {}, two connections", journal.word(), synchronous.word());
        all.push(mixed(&name, setting, 8));

        let mut workload = mixed(&format!("{name} that come and go"), setting, 6);
        workload.steps.insert(5, Step::Reopen { by: 0 });
        workload.steps.insert(4, Step::Reopen { by: 1 });
        // Nobody is left for a moment: the WAL is copied and deleted.
        workload.steps.insert(3, Step::Reopen { by: 0 });
        workload.steps.insert(3, Step::Reopen { by: 1 });
        workload.steps.extend([Step::Close { by: 1 }, Step::Close { by: 0 }]);
        all.push(workload);

        let setting = Setting { connections: 1, ..setting };
        let mut workload = mixed(&format!("{} {}, closed and opened", journal.word(), synchronous.word()), setting, 6);
        workload.steps.insert(4, Step::Reopen { by: 0 });
        workload.steps.insert(2, Step::Reopen { by: 0 });
        workload.steps.push(Step::Close { by: 0 });
        all.push(workload);
    }
    all
}

/// Disks that damage what is beside a write in flight, and file systems that show old blocks in grown files.
fn devices() -> Vec<Workload> {
    let mut all = Vec::new();
    let modes = [
        (Journal::Delete, Synchronous::Full),
        (Journal::Persist, Synchronous::Full),
        (Journal::Wal, Synchronous::Full),
        (Journal::Wal, Synchronous::Normal),
    ];
    for (journal, synchronous) in modes {
        let setting = Setting { autocheckpoint: 12, ..Setting::new(journal, synchronous) };
        for sector_size in [512, 4096] {
            let device = Device { powersafe_overwrite: false, sector_size, ..Device::default() };
            let name = format!("{} {}, fragile sectors of {sector_size}", journal.word(), synchronous.word());
            all.push(mixed(&name, Setting { device, ..setting }, 6));
        }
        let device = Device { stale_growth: true, ..Device::default() };
        let name = format!("{} {}, old blocks in grown files", journal.word(), synchronous.word());
        all.push(mixed(&name, Setting { device, ..setting }, 6));
    }
    all
}

/// File systems without an order between names and sizes, with databases that shrink.
fn unordered() -> Vec<Workload> {
    let device = Device { sizes_overtake_names: true, ..Device::default() };
    let mut all = Vec::new();
    for journal in ROLLBACK {
        for synchronous in [Synchronous::Full, Synchronous::Extra] {
            let setting = Setting { device, ..Setting::new(journal, synchronous) };
            let name = |what: &str| format!("{} {}, {what}, without order", journal.word(), synchronous.word());
            all.push(between(&name("VACUUM"), setting, 8, &["VACUUM"]));
            all.push(mixed(&name("auto vacuum"), Setting { auto_vacuum: 1, ..setting }, 8));
        }
    }
    all
}

/// Databases that come into being, and one that changes its journal mode.
fn beginnings() -> Vec<Workload> {
    let mut all = Vec::new();
    for (journal, synchronous) in [
        (Journal::Delete, Synchronous::Full),
        (Journal::Delete, Synchronous::Extra),
        (Journal::Truncate, Synchronous::Full),
        (Journal::Persist, Synchronous::Full),
        (Journal::Wal, Synchronous::Normal),
        (Journal::Wal, Synchronous::Full),
    ] {
        let setting = Setting { from_nothing: true, autocheckpoint: 12, ..Setting::new(journal, synchronous) };
        let mut workload = mixed(&format!("{} {}, a new database", journal.word(), synchronous.word()), setting, 4);
        let sql = std::mem::take(&mut workload.before);
        workload.steps.insert(0, Step::Commit { by: 0, sql });
        all.push(workload);
    }
    let setting = Setting::new(Journal::Wal, Synchronous::Full);
    let modes = ["PRAGMA journal_mode=truncate", "PRAGMA journal_mode=wal", "PRAGMA journal_mode=persist"];
    all.push(between("wal full, to other journals and back", setting, 7, &modes));
    all
}
