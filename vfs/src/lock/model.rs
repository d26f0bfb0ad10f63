//! The state machine on a kernel's byte-range locks, against SQLite's rules for the levels.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const NONE: i32 = ffi::SQLITE_LOCK_NONE;
const SHARED_LEVEL: i32 = ffi::SQLITE_LOCK_SHARED;
const RESERVED_LEVEL: i32 = ffi::SQLITE_LOCK_RESERVED;
const PENDING_LEVEL: i32 = ffi::SQLITE_LOCK_PENDING;
const EXCLUSIVE: i32 = ffi::SQLITE_LOCK_EXCLUSIVE;

/// For each of PENDING, RESERVED and SHARED who holds it, and whether exclusively. A handle's own lock is replaced.
#[derive(Clone, Default)]
struct Kernel(Rc<RefCell<Held>>, Rc<RefCell<Vec<String>>>);

type Held = [Vec<(usize, bool)>; 3];

struct Handle(Kernel, usize);

fn zones(range: Range) -> std::ops::Range<usize> {
    match range {
        PENDING => 0..1,
        RESERVED => 1..2,
        SHARED => 2..3,
        BOTH => 0..2,
        ALL => 0..3,
        other => panic!("{other:?} is no lock of SQLite's"),
    }
}

impl Bytes for Handle {
    fn take(&self, range: Range, exclusive: bool) -> io::Result<bool> {
        self.0.1.borrow_mut().push(format!("take {range:?} {exclusive}"));
        let mut zones_held = self.0.0.borrow_mut();
        for zone in zones(range) {
            if zones_held[zone].iter().any(|(owner, theirs)| *owner != self.1 && (*theirs || exclusive)) {
                return Ok(false);
            }
        }
        for zone in zones(range) {
            zones_held[zone].retain(|(owner, _)| *owner != self.1);
            zones_held[zone].push((self.1, exclusive));
        }
        Ok(true)
    }

    fn release(&self, range: Range) -> io::Result<()> {
        self.0.1.borrow_mut().push(format!("release {range:?}"));
        for zone in zones(range) {
            self.0.0.borrow_mut()[zone].retain(|(owner, _)| *owner != self.1);
        }
        Ok(())
    }

    fn taken(&self, range: Range) -> io::Result<bool> {
        let held = self.0.0.borrow();
        Ok(zones(range).any(|zone| held[zone].iter().any(|(owner, _)| *owner != self.1)))
    }
}

/// What SQLite's rules say: the new level of `who`, and whether the call succeeds.
fn expected(levels: &[i32], who: usize, wanted: i32) -> (i32, bool) {
    let mine = levels[who];
    let others = || levels.iter().enumerate().filter(|(index, _)| *index != who).map(|(_, level)| *level);
    if mine >= wanted {
        return (mine, true);
    }
    let free = match wanted {
        SHARED_LEVEL => others().all(|level| level < PENDING_LEVEL),
        RESERVED_LEVEL => others().all(|level| level < RESERVED_LEVEL),
        _ => others().all(|level| level == NONE),
    };
    match (free, mine) {
        (true, _) => (wanted, true),
        (false, RESERVED_LEVEL) if wanted == EXCLUSIVE => (PENDING_LEVEL, false),
        (false, _) => (mine, false),
    }
}

fn seeded() -> ProptestConfig {
    let seed = 0x0000_0be5_10c4_ed01;
    println!("seed {seed:#x}");
    ProptestConfig {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        cases: 4096,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn every_sequence_of_calls_leads_where_the_rules_of_the_levels_say(
        steps in prop::collection::vec((0..4_usize, 0..5_usize), 1..60),
    ) {
        let kernel = Kernel::default();
        let files: [Locks<Handle>; 4] =
            std::array::from_fn(|number| Locks::new(Handle(kernel.clone(), number), Upgrade::Atomic));
        let mut levels = [NONE; 4];
        for (who, what) in steps {
            let (file, mine) = (&files[who], levels[who]);
            let wanted = [SHARED_LEVEL, RESERVED_LEVEL, EXCLUSIVE, SHARED_LEVEL, NONE][what];
            if what < 3 {
                // SQLite's own order.
                let legal = match wanted {
                    SHARED_LEVEL => true,
                    RESERVED_LEVEL => mine == SHARED_LEVEL,
                    _ => mine >= SHARED_LEVEL,
                };
                if !legal {
                    continue;
                }
                let (level, success) = expected(&levels, who, wanted);
                prop_assert_eq!(file.lock(wanted) == ffi::SQLITE_OK, success, "{:?} {} {}", levels, who, wanted);
                levels[who] = level;
            } else {
                prop_assert_eq!(file.unlock(wanted), ffi::SQLITE_OK);
                levels[who] = mine.min(wanted);
            }
            prop_assert_eq!(file.level(), levels[who]);
            for (index, file) in files.iter().enumerate() {
                let reserved = levels.iter().any(|level| (RESERVED_LEVEL..=PENDING_LEVEL).contains(level));
                if levels[index] == SHARED_LEVEL {
                    prop_assert_eq!(file.reserved(), Ok(reserved));
                }
            }
        }
        for file in &files {
            file.unlock(NONE);
        }
        prop_assert!(kernel.0.borrow().iter().all(Vec::is_empty), "nothing is left");
    }
}

/// As many calls as stock SQLite makes, or fewer.
#[test]
fn no_change_of_level_costs_more_calls_than_with_stock() {
    let kernel = Kernel::default();
    let file = Locks::new(Handle(kernel.clone(), 0), Upgrade::Atomic);
    let calls = |code: i32| {
        assert_eq!(code, ffi::SQLITE_OK);
        std::mem::take(&mut *kernel.1.borrow_mut()).len()
    };
    for (step, made, stock) in [
        ("read", calls(file.lock(SHARED_LEVEL)), 3),
        ("begin", calls(file.lock(RESERVED_LEVEL)), 1),
        ("write", calls(file.lock(EXCLUSIVE)), 2),
        ("committed", calls(file.unlock(SHARED_LEVEL)), 2),
        ("ended", calls(file.unlock(NONE)), 1),
        ("read again", calls(file.lock(SHARED_LEVEL)), 3),
        ("hot journal", calls(file.lock(EXCLUSIVE)), 1),
        ("rolled back", calls(file.unlock(NONE)), 2),
    ] {
        assert!(made <= stock, "{step}: {made} calls, stock {stock}");
    }
}

/// A handle that fails, or is not the file it was, in the middle.
#[test]
fn errors_are_those_of_stock_sqlite() {
    struct Fails(i32);
    impl Bytes for Fails {
        fn take(&self, _: Range, _: bool) -> io::Result<bool> {
            Err(io::Error::from_raw_os_error(self.0))
        }
        fn release(&self, _: Range) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(self.0))
        }
        fn taken(&self, _: Range) -> io::Result<bool> {
            Err(io::Error::from_raw_os_error(self.0))
        }
    }
    for (errno, code) in [
        (libc::ENOLCK, ffi::SQLITE_BUSY),
        (libc::ETIMEDOUT, ffi::SQLITE_BUSY),
        (libc::EBUSY, ffi::SQLITE_BUSY),
        (libc::EPERM, ffi::SQLITE_PERM),
        (libc::EIO, ffi::SQLITE_IOERR_LOCK),
        (libc::EINVAL, ffi::SQLITE_IOERR_LOCK),
    ] {
        let file = Locks::new(Fails(errno), Upgrade::Atomic);
        assert_eq!((file.lock(SHARED_LEVEL), file.level()), (code, NONE), "{errno}");
        assert_eq!(file.errno(), if code == ffi::SQLITE_BUSY { 0 } else { errno });
        assert_eq!(file.reserved(), Err(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK));
        file.level.set(EXCLUSIVE);
        assert_eq!((file.unlock(SHARED_LEVEL), file.level()), (ffi::SQLITE_IOERR_RDLOCK, EXCLUSIVE));
        assert_eq!((file.unlock(NONE), file.level()), (ffi::SQLITE_IOERR_UNLOCK, NONE), "never believed to be held");
    }
}
