//! What a disk may hold after a power cut, and what SQLite makes of it.
//!
//! A [`Disk`] is a SQLite VFS in memory that keeps apart what programs see and what is durable, and records every change.
//! From the [`Log`] of a run, [`States`] makes the images in which a power cut may leave the disk: after each event, all of
//! the unsynced changes kept, none of them, or seeded choices in which each write is kept, dropped or torn at sectors of
//! 512 bytes, in any order, and each new, deleted or resized file is or is not. A [`Workload`] drives SQLite, and its
//! [`Ledger`] knows every content that a commit has produced and when the program was told. [`Judge`] opens each image,
//! through an [`Opener`], lets SQLite recover it, and compares.
//!
//! ```
//! use support::crash::{Disk, Faults, Journal, Judge, Lies, Setting, Stock, Synchronous, record, workloads};
//!
//! let workload = workloads::mixed("an example", Setting::new(Journal::Delete, Synchronous::Full), 3);
//! let disk = Disk::lease();
//! let recording = record(&workload, &Stock, &disk, Faults::default(), 1);
//! let mut judge = Judge::new(&recording, &Stock, &disk);
//! judge.all(Lies::None, 2, 1);
//! assert_eq!(judge.tally.damaged(), 0, "{:?}", judge.tally.examples);
//! ```
//!
//! The rules of the disk:
//!
//! - A sync makes the bytes and the size of one file durable, not its name. The first sync of a journal, WAL or
//!   super-journal that was opened with SQLITE_OPEN_CREATE also syncs the directory, and so does a deletion that asks for
//!   it: that is what SQLite's unix VFS does. The name of a new main database is durable from the start.
//! - Between syncs nothing has an order. A sector holds its durable version or one that the cache has held since.
//! - A [`SyncFault`] makes a sync fail and settles what the cache shows afterwards and what later syncs still write
//!   ([`Loss`]). [`DirectoryFault`] and [`Capacity`] do the same for directories and for space.
//! - A sync that lies ([`Lies`]) is not to be told from an honest one until the power goes.
//!
//! Invariant: the judge may be wrong in one direction only. A state that it calls good has a sound structure and exactly
//! the content of a transaction that is new enough.

mod cut;
mod disk;
mod fault;
mod file;
mod image;
mod judge;
mod ledger;
mod live;
mod lock;
mod model;
mod opener;
mod record;
mod recovery;
mod rng;
mod session;
mod shm;
mod states;
mod vfs;
mod workload;
pub mod workloads;

pub use crate::rule::Times;
pub use cut::{Device, Keep};
pub use disk::Disk;
pub use fault::{Capacity, DirectoryFault, Faults, SyncFault};
pub use image::Image;
pub use judge::{Judge, Outcome, Tally, plain};
pub use ledger::{Boundary, Ledger};
pub use model::{Event, Loss, SECTOR};
pub use opener::{Found, Opener, Stock, recover};
pub use record::{Recording, record};
pub use recovery::{record_recovery, record_takeover, unfinished};
pub use rng::Rng;
pub use session::{Content, Session};
pub use states::{Cut, Lies, Log, States};
pub use workload::{FILES, Journal, Promise, SCHEMAS, Setting, Step, Synchronous, Workload};
