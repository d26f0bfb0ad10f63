//! One way to answer every kind of request: a value or an error number.

use super::handles::Entry;
use super::lock_calls::LockAnswer;
use super::passthrough::Passthrough;
use fuser::{Errno, FileAttr, FileHandle, FopenFlags, Generation, INodeNo};
use rustix::fs::StatVfs;
use std::convert::Infallible;

/// An answer that the kernel waits for.
pub(super) trait Reply: Send + 'static {
    /// What it takes to answer with success.
    type Value;

    fn answer(self, fs: &Passthrough, value: Self::Value);
    fn refuse(self, errno: Errno);
}

macro_rules! reply {
    ($kind:ident, $value:ty, |$reply:ident, $fs:ident, $answer:pat_param| $send:expr) => {
        impl Reply for fuser::$kind {
            type Value = $value;

            fn answer(self, $fs: &Passthrough, $answer: $value) {
                let $reply = self;
                $send
            }

            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        }
    };
}

const GENERATION: Generation = Generation(0);

fn open_flags(fs: &Passthrough) -> FopenFlags {
    if fs.direct_io { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
}

reply!(ReplyEmpty, (), |reply, _fs, ()| reply.ok());
reply!(ReplyEntry, FileAttr, |reply, fs, attr| reply.entry(&fs.cache, &attr, GENERATION));
reply!(ReplyAttr, FileAttr, |reply, fs, attr| reply.attr(&fs.cache, &attr));
reply!(ReplyData, Vec<u8>, |reply, _fs, data| reply.data(&data));
reply!(ReplyWrite, u32, |reply, _fs, written| reply.written(written));
reply!(ReplyLseek, i64, |reply, _fs, offset| reply.offset(offset));
reply!(ReplyXattr, Infallible, |_reply, _fs, never| match never {});
reply!(ReplyIoctl, Infallible, |_reply, _fs, never| match never {});
reply!(ReplyPoll, Infallible, |_reply, _fs, never| match never {});
reply!(ReplyBmap, Infallible, |_reply, _fs, never| match never {});
reply!(ReplyOpen, OpenedAs, |reply, fs, opened| match opened {
    OpenedAs::File(handle) => reply.opened(FileHandle(handle), open_flags(fs)),
    OpenedAs::Directory(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
});
reply!(ReplyCreate, (FileAttr, u64), |reply, fs, (attr, handle)| {
    reply.created(&fs.cache, &attr, GENERATION, FileHandle(handle), open_flags(fs));
});
reply!(ReplyLock, LockAnswer, |reply, _fs, lock| {
    reply.locked(lock.start, lock.end, lock.kind, lock.pid);
});
reply!(ReplyStatfs, StatVfs, |reply, _fs, fs| {
    reply.statfs(
        fs.f_blocks,
        fs.f_bfree,
        fs.f_bavail,
        fs.f_files,
        fs.f_ffree,
        fs.f_bsize as u32,
        fs.f_namemax as u32,
        fs.f_frsize as u32,
    );
});
reply!(ReplyDirectory, Listing, |reply, _fs, listing| {
    let mut reply = reply;
    for (entry, next) in listing.entries.into_iter().zip(listing.offset + 1..) {
        if reply.add(INodeNo(entry.node), next, entry.kind, entry.name) {
            break;
        }
    }
    reply.ok();
});

/// What an OPEN or an OPENDIR has opened.
#[derive(Debug, Clone, Copy)]
pub(super) enum OpenedAs {
    File(u64),
    Directory(u64),
}

/// The entries of a directory from an offset on.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) offset: u64,
    pub(super) entries: Vec<Entry>,
}
