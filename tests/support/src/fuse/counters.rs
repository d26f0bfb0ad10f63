//! Requests by kind. A request is counted once, when it arrives, so every request that a system call
//! waited for is counted before the call returns.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Sub;

macro_rules! ops {
    ($($variant:ident = $name:literal,)*) => {
        /// A kind of request, named as in the FUSE protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "the names are those of the protocol")]
        pub enum Op { $($variant,)* }

        impl Op {
            /// Every kind, in order.
            pub const ALL: &'static [Op] = &[$(Op::$variant,)*];

            /// The protocol's name, in capitals.
            pub fn name(self) -> &'static str {
                match self { $(Op::$variant => $name,)* }
            }
        }
    };
}

ops! {
    Lookup = "LOOKUP", Forget = "FORGET", Getattr = "GETATTR", Setattr = "SETATTR",
    Readlink = "READLINK", Symlink = "SYMLINK", Mknod = "MKNOD", Mkdir = "MKDIR",
    Unlink = "UNLINK", Rmdir = "RMDIR", Rename = "RENAME", Link = "LINK",
    Open = "OPEN", Create = "CREATE", Read = "READ", Write = "WRITE",
    Flush = "FLUSH", Release = "RELEASE", Fsync = "FSYNC",
    Opendir = "OPENDIR", Readdir = "READDIR", Releasedir = "RELEASEDIR", Fsyncdir = "FSYNCDIR",
    Statfs = "STATFS", Access = "ACCESS", Getlk = "GETLK", Setlk = "SETLK",
    Fallocate = "FALLOCATE", Lseek = "LSEEK", CopyFileRange = "COPY_FILE_RANGE",
    Setxattr = "SETXATTR", Getxattr = "GETXATTR", Listxattr = "LISTXATTR",
    Removexattr = "REMOVEXATTR", Ioctl = "IOCTL", Poll = "POLL", Bmap = "BMAP",
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many requests of each kind have arrived: a snapshot, or the difference of two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<Op, u64>);

impl Counters {
    /// Requests of one kind.
    pub fn get(&self, op: Op) -> u64 {
        self.0.get(&op).copied().unwrap_or(0)
    }

    /// All requests that somebody waits for, that is all but FORGET, which has no answer.
    pub fn total(&self) -> u64 {
        self.iter().filter(|(op, _)| *op != Op::Forget).map(|(_, n)| n).sum()
    }

    /// The kinds that occurred, in the order of [`Op::ALL`], with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Op, u64)> + '_ {
        self.0.iter().map(|(op, n)| (*op, *n))
    }
}

impl Sub for Counters {
    type Output = Counters;

    /// What has arrived since `earlier` was taken.
    fn sub(self, earlier: Counters) -> Counters {
        let since = self.iter().map(|(op, n)| (op, n.saturating_sub(earlier.get(op))));
        Counters(since.filter(|(_, n)| *n > 0).collect())
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (op, n)) in self.iter().enumerate() {
            write!(f, "{}{op} {n}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl FromIterator<(Op, u64)> for Counters {
    fn from_iter<I: IntoIterator<Item = (Op, u64)>>(counts: I) -> Self {
        Counters(counts.into_iter().collect())
    }
}
