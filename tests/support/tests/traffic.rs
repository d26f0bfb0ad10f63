//! Counters are exact, latency is felt, holds hold, and faults bite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use setup::{SOON, Setup, mounted, plain};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use support::fuse::{Counters, Fault, FaultHandle, Hold, Op, What};

/// The requests of a piece of work.
fn during(fs: &Setup, work: impl FnOnce()) -> Counters {
    let before = fs.mount.counters();
    work();
    fs.mount.counters() - before
}

fn create(fs: &Setup, name: &str) -> File {
    File::options().create(true).truncate(false).read(true).write(true).open(fs.on(name)).unwrap()
}

fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap(),
    }
}

#[test]
fn each_call_on_an_open_file_is_one_request_of_its_kind() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else {
        return;
    };
    let file = create(&fs, "a");
    file.write_all_at(&[0; 8192], 0).unwrap();
    // Before the first truncation of all, the kernel asks for security attributes.
    file.set_len(8192).unwrap();
    for (op, work) in [
        (Op::Write, &(|| file.write_all_at(&[1; 4096], 4096).unwrap()) as &dyn Fn()),
        (Op::Read, &|| file.read_exact_at(&mut [0; 4096], 0).unwrap()),
        (Op::Fsync, &|| file.sync_all().unwrap()),
        (Op::Setattr, &|| file.set_len(100).unwrap()),
        (Op::Getattr, &|| assert!(file.metadata().unwrap().is_file())),
    ] {
        for n in 0..3 {
            let seen = during(&fs, work);
            assert_eq!((seen.get(op), seen.total()), (1, 1), "{op}, round {n}: {seen}");
        }
    }
}

#[test]
fn closing_is_one_flush_and_then_one_release() {
    let Some(fs) = plain() else { return };
    let file = create(&fs, "a");
    let flushes = during(&fs, || drop(file)).get(Op::Flush);
    assert_eq!(flushes, 1);
    assert!(fs.mount.wait_counted(Op::Release, 1, SOON));
    assert_eq!(fs.mount.counters().get(Op::Release), 1);
}

#[test]
fn directory_calls_are_counted_by_kind() {
    let Some(fs) = plain() else { return };
    let seen = during(&fs, || {
        fs::create_dir(fs.on("d")).unwrap();
        drop(create(&fs, "d/a"));
        fs::rename(fs.on("d/a"), fs.on("d/b")).unwrap();
        fs::remove_file(fs.on("d/b")).unwrap();
        File::open(fs.on("d")).unwrap().sync_all().unwrap();
        fs::remove_dir(fs.on("d")).unwrap();
    });
    for op in [Op::Mkdir, Op::Create, Op::Rename, Op::Unlink, Op::Opendir, Op::Fsyncdir, Op::Rmdir] {
        assert_eq!(seen.get(op), 1, "{op}: {seen}");
    }
}

#[test]
fn cached_attributes_spare_the_requests() {
    for (cache, requests) in [(Duration::ZERO, true), (Duration::from_secs(3600), false)] {
        let Some(fs) = mounted(|options| options.cache(cache)) else {
            return;
        };
        fs::write(fs.behind("a"), b"x").unwrap();
        fs::metadata(fs.on("a")).unwrap();
        let seen = during(&fs, || assert!(fs::metadata(fs.on("a")).unwrap().is_file()));
        assert_eq!(seen.total() > 0, requests, "{cache:?}: {seen}");
    }
}

#[test]
fn latency_delays_every_answer_and_can_be_changed() {
    let latency = Duration::from_millis(30);
    let Some(fs) = mounted(|options| options.direct_io(true).latency(latency)) else {
        return;
    };
    let file = create(&fs, "a");
    let timed = || {
        let start = Instant::now();
        file.read_at(&mut [0; 10], 0).unwrap();
        start.elapsed()
    };
    assert!(timed() >= latency);
    fs.mount.set_latency(Duration::ZERO);
    let quickest = (0..20).map(|_| timed()).min().unwrap();
    assert!(quickest < latency, "{quickest:?}");
}

#[test]
fn a_held_request_waits_while_others_are_served() {
    let Some(fs) = mounted(|options| options.direct_io(true).threads(1)) else {
        return;
    };
    let file = create(&fs, "a");
    fs::write(fs.on("b"), b"b").unwrap();
    let hold = fs.mount.hold(Op::Fsync);
    assert_eq!(fs.mount.held(), 0);
    std::thread::scope(|scope| {
        let syncs: Vec<_> = (0..3).map(|_| scope.spawn(|| create(&fs, "a").sync_all())).collect();
        let one = scope.spawn(|| file.sync_all());
        assert!(fs.mount.wait_held(1, SOON));
        assert!(!one.is_finished());
        assert_eq!(fs::read(fs.on("b")).unwrap(), b"b", "reads are not held");
        hold.release();
        one.join().unwrap().unwrap();
        for sync in syncs {
            sync.join().unwrap().unwrap();
        }
    });
    assert_eq!(fs.mount.held(), 0);
    file.sync_all().unwrap();
}

#[test]
fn a_hold_by_name_leaves_other_files_alone_and_a_hold_of_all_leaves_none() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else {
        return;
    };
    let (db, wal) = (create(&fs, "t.db"), create(&fs, "t.db-wal"));
    let hold = fs.mount.hold(Hold::Named(Op::Write, "-wal".into()));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| wal.write_all_at(b"x", 0));
        assert!(fs.mount.wait_held(1, SOON));
        db.write_all_at(b"x", 0).unwrap();
        let all = fs.mount.hold(Hold::All);
        let stat = scope.spawn(|| db.metadata().map(drop));
        assert!(fs.mount.wait_held(2, SOON));
        drop(hold);
        assert!(!stat.is_finished(), "the other hold still matches");
        drop(all);
        held.join().unwrap().unwrap();
        stat.join().unwrap().unwrap();
    });
}

#[test]
fn waiting_for_a_held_request_that_does_not_come_times_out() {
    let Some(fs) = plain() else { return };
    let _hold = fs.mount.hold(Hold::All);
    assert!(!fs.mount.wait_held(1, Duration::from_millis(10)));
}

#[test]
fn an_errno_fault_fails_its_kind_and_does_not_do_the_work() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else {
        return;
    };
    let file = create(&fs, "a");
    file.write_all_at(b"good", 0).unwrap();
    let fault = |op: Op, errno: i32| fs.mount.fault(Fault::on(op).errno(errno).times(1));
    let check = |code: i32, fault: FaultHandle, result: i32| {
        assert_eq!((result, fault.seen()), (code, 1));
    };
    let write = fault(Op::Write, libc::EIO);
    check(libc::EIO, write, errno(file.write_all_at(b"evil", 0)));
    let read = fault(Op::Read, libc::ESTALE);
    check(libc::ESTALE, read, errno(file.read_at(&mut [0; 4], 0)));
    let sync = fault(Op::Fsync, libc::EDQUOT);
    check(libc::EDQUOT, sync, errno(file.sync_all()));
    let size = fault(Op::Setattr, libc::EFBIG);
    check(libc::EFBIG, size, errno(file.set_len(0)));
    let stat = fault(Op::Getattr, libc::EACCES);
    check(libc::EACCES, stat, errno(file.metadata()));
    let unlink = fault(Op::Unlink, libc::EPERM);
    check(libc::EPERM, unlink, errno(fs::remove_file(fs.on("a"))));
    let rename = fault(Op::Rename, libc::ENOSPC);
    check(libc::ENOSPC, rename, errno(fs::rename(fs.on("a"), fs.on("b"))));
    let open = fault(Op::Open, libc::EMFILE);
    check(libc::EMFILE, open, errno(File::open(fs.on("a"))));
    let create = fault(Op::Create, libc::ENOSPC);
    check(libc::ENOSPC, create, errno(File::create_new(fs.on("new"))));
    // A name that the kernel has not seen yet; for another it would try again.
    fs::write(fs.behind("unknown"), b"").unwrap();
    let lookup = fault(Op::Lookup, libc::EIO);
    check(libc::EIO, lookup, errno(fs::metadata(fs.on("unknown"))));
    let mkdir = fault(Op::Mkdir, libc::EMLINK);
    check(libc::EMLINK, mkdir, errno(fs::create_dir(fs.on("d"))));
    assert_eq!(fs::read(fs.behind("a")).unwrap(), b"good");
    assert!(!fs.behind("b").exists() && !fs.behind("new").exists() && !fs.behind("d").exists());
}

#[test]
fn dropped_torn_and_short_writes_leave_what_they_say() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else {
        return;
    };
    let file = create(&fs, "a");
    for (what, reported, kept) in [
        (What::DropWrite, 4096, 0),
        (What::TearWrite { keep_sectors: 3 }, 4096, 1536),
        (What::TearWrite { keep_sectors: 100 }, 4096, 4096),
        (What::ShortWrite(1000), 1000, 1000),
    ] {
        file.set_len(0).unwrap();
        let fault = fs.mount.fault(Fault::on(Op::Write).times(1).what(what));
        assert_eq!(file.write_at(&[7; 4096], 0).unwrap(), reported, "{what:?}");
        assert_eq!(fs::read(fs.behind("a")).unwrap(), vec![7; kept], "{what:?}");
        assert_eq!(fault.seen(), 1);
    }
    let full = fs.mount.fault(Fault::on(Op::Write).what(What::Enospc));
    assert_eq!(errno(file.write_at(b"x", 0)), libc::ENOSPC);
    assert_eq!(full.seen(), 1);
}

#[test]
fn a_fault_by_name_follows_the_file_through_renames() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else {
        return;
    };
    let (db, wal) = (create(&fs, "t.db"), create(&fs, "t.db-wal"));
    let fault = fs.mount.fault(Fault::on(Op::Write).name("-wal").errno(libc::EIO));
    db.write_all_at(b"x", 0).unwrap();
    assert_eq!(errno(wal.write_all_at(b"x", 0)), libc::EIO);
    fs::rename(fs.on("t.db-wal"), fs.on("other")).unwrap();
    wal.write_all_at(b"x", 0).unwrap();
    fs::rename(fs.on("other"), fs.on("again-wal")).unwrap();
    assert_eq!(errno(wal.write_all_at(b"x", 0)), libc::EIO);
    assert_eq!((fault.seen(), fault.matched()), (2, 2));
}

#[test]
fn cleared_faults_bite_no_more() {
    let Some(fs) = mounted(|options| options.direct_io(true)) else {
        return;
    };
    let file = create(&fs, "a");
    let fault = fs.mount.fault(Fault::on(Op::Fsync).skip(1));
    file.sync_all().unwrap();
    assert_eq!(errno(file.sync_all()), libc::EIO);
    fs.mount.clear_faults();
    file.sync_all().unwrap();
    assert_eq!((fault.seen(), fault.matched()), (1, 2));
}
