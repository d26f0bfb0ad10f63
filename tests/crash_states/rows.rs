//! The rows of the table: kinds of disks, and what runs on each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::crash::workloads::{self, Group};
use support::crash::{
    Capacity, DirectoryFault, Disk, Event, Faults, Journal, Judge, Lies, Loss, Opener, SyncFault, Tally, Times,
    Workload, record, record_recovery, unfinished,
};

/// The seed of everything.
pub(crate) const SEED: u64 = 20_260_101;

/// A kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Row {
    /// Syncs do what they say.
    Honest(Group),
    /// The power goes again while SQLite recovers.
    Interrupted,
    /// Some syncs did nothing, or half.
    Lying(Group),
    /// A sync fails once, the application goes on.
    FailedSync(Loss),
    /// A sync of the directory fails and nobody is told.
    Directory,
    /// The disk gets full.
    Full,
}

impl Row {
    /// As the table calls it.
    pub(crate) fn words(self) -> String {
        let group = |group| match group {
            Group::Full => "synchronous FULL, EXTRA",
            Group::NormalWal => "WAL, synchronous NORMAL",
            Group::NormalRollback => "rollback journal, synchronous NORMAL",
            Group::Off => "synchronous OFF",
            Group::FullUnordered => "synchronous FULL, EXTRA; sizes overtake names",
        };
        match self {
            Row::Honest(of) => format!("honest; {}", group(of)),
            Row::Interrupted => "honest; power lost again during recovery".into(),
            Row::Lying(of) => format!("lying syncs; {}", group(of)),
            Row::FailedSync(Loss::Drop) => "a failed sync, pages dropped".into(),
            Row::FailedSync(Loss::KeepClean) => "a failed sync, pages kept as clean".into(),
            Row::FailedSync(Loss::Revert) => "a failed sync, file reverted".into(),
            Row::Directory => "a failed sync of the directory".into(),
            Row::Full => "full".into(),
        }
    }
}

/// One run of one workload.
struct Job {
    row: Row,
    workload: Workload,
    faults: Faults,
}

/// What came out: per row, and per row and workload.
#[derive(Debug, Default)]
pub(crate) struct Column {
    pub(crate) rows: BTreeMap<Row, Tally>,
    pub(crate) details: BTreeMap<(Row, String), Tally>,
}

impl Column {
    /// All rows together.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.rows.values().for_each(|tally| total += tally.clone());
        total
    }

    /// A row.
    pub(crate) fn row(&self, row: Row) -> &Tally {
        &self.rows[&row]
    }

    fn add(&mut self, row: Row, workload: &str, tally: Tally) {
        *self.details.entry((row, workload.to_owned())).or_default() += tally.clone();
        *self.rows.entry(row).or_default() += tally;
    }
}

/// The faults that a workload meets. There are too many for every workload to meet all, so they take turns.
fn faults(workload: &Workload, turn: usize) -> Vec<(Row, Faults)> {
    let mut faults = Vec::new();
    let wal = workload.setting.journal == Journal::Wal;
    let places = if wal {
        [("-wal", 1), ("-wal", 3), ("-wal", 6), ("x.db", 1), ("x.db", 2)]
    } else {
        [("-journal", 1), ("-journal", 4), ("-journal", 6), ("x.db", 1), ("x.db", 3)]
    };
    for loss in [Loss::Drop, Loss::KeepClean, Loss::Revert] {
        for (number, (suffix, nth)) in places.iter().enumerate() {
            if number % 2 == turn % 2 {
                let spared = (turn / 2 % 2 == 1).then_some(SEED);
                let fault = SyncFault { spared, ..SyncFault::once(suffix, *nth, loss) };
                faults.push((Row::FailedSync(loss), fault.into()));
            }
        }
    }
    for (number, nth) in [1, 2, 3, 5].into_iter().enumerate() {
        if number % 2 == turn % 2 {
            let directory = Some(DirectoryFault { nth, times: Times::N(1), reported: false });
            faults.push((Row::Directory, Faults { directory, ..Faults::default() }));
        }
    }
    let sizes = [(45_000, false), (45_000, true), (70_000, true), (100_000, true)];
    for (number, (bytes, partial)) in sizes.into_iter().enumerate() {
        if number % 2 == turn % 2 {
            let bytes = bytes * workload.setting.page_size.div_ceil(4096);
            let capacity = Some(Capacity { bytes, partial });
            faults.push((Row::Full, Faults { capacity, ..Faults::default() }));
        }
    }
    faults
}

fn jobs() -> Vec<Job> {
    let mut jobs = Vec::new();
    for (turn, workload) in workloads::all().into_iter().enumerate() {
        let group = Group::of(&workload.setting);
        let mut job = |row, faults| jobs.push(Job { row, workload: workload.clone(), faults });
        job(Row::Honest(group), Faults::default());
        if matches!(group, Group::Full | Group::NormalWal | Group::NormalRollback) {
            job(Row::Lying(group), Faults::default());
        }
        if matches!(group, Group::Full | Group::NormalWal) {
            job(Row::Interrupted, Faults::default());
            // A database whose making fails is no workload.
            if !workload.setting.from_nothing {
                faults(&workload, turn).into_iter().for_each(|(row, faults)| job(row, faults));
            }
        }
    }
    jobs
}

fn run(job: &Job, opener: &dyn Opener, disk: &Disk) -> Tally {
    let recording = record(&job.workload, opener, disk, job.faults.clone(), SEED);
    let mut tally = Tally::default();
    match job.row {
        Row::Interrupted => {
            for (number, (_, image)) in unfinished(&recording, 5, SEED).into_iter().enumerate() {
                let again = record_recovery(&recording, &image, opener, disk, Faults::default());
                let Some(again) = again else { continue };
                let mut judge = Judge::new(&again, opener, disk);
                judge.all(Lies::None, 4, SEED + number as u64);
                tally += judge.tally;
            }
        }
        Row::FailedSync(_) if !recording.log.events.iter().any(|event| matches!(event, Event::FailedSync { .. })) => {}
        row => {
            let (lies, choices) = match row {
                Row::Honest(_) => (Lies::None, 6),
                Row::Lying(_) => (Lies::Some, 4),
                _ => (Lies::None, 1),
            };
            let mut judge = Judge::new(&recording, opener, disk);
            judge.all(lies, choices, SEED);
            tally += judge.tally;
        }
    }
    tally
}

/// Runs everything with one opener, on as many threads as there are processors.
pub(crate) fn column(opener: &dyn Opener) -> Column {
    let (jobs, next, column) = (jobs(), AtomicUsize::new(0), Mutex::new(Column::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let disk = Disk::lease();
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tally = run(job, opener, &disk);
                    column.lock().unwrap().add(job.row, &job.workload.name, tally);
                }
            });
        }
    });
    column.into_inner().unwrap()
}
