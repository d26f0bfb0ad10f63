//! The requests as they come from the kernel, each taken through the traffic rules to its work.
//!
//! Invariant: a request that has to wait does so on a thread of its own, so that the threads which
//! take requests never block on another request.

use super::lock_calls::LockRequest;
use super::passthrough::{Caller, Change, Passthrough};
use super::reply::{Listing, OpenedAs, Reply};
use super::traffic::Subject;
use crate::fuse::counters::Op;
use crate::fuse::fault::What;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyEmpty,
    ReplyEntry, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::AtFlags;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime};

/// The server side of a mount.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) fs: Arc<Passthrough>,
    pub(super) auto_invalidate: bool,
    /// Disconnects when the last request has been taken.
    pub(super) alive: Sender<()>,
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

fn not_supported<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Whether the request comes from the kernel itself, or from a program that the test has started: others that walk through the
/// mounts of the machine are not counted.
fn is_ours(request: &Request) -> bool {
    static SESSION: std::sync::OnceLock<libc::pid_t> = std::sync::OnceLock::new();
    let pid = libc::pid_t::try_from(request.pid()).unwrap_or(0);
    // SAFETY: asks for a number.
    let session = |pid| unsafe { libc::getsid(pid) };
    pid == 0 || session(pid) == *SESSION.get_or_init(|| session(0))
}

impl Server {
    fn serve<R: Reply>(
        &self,
        request: &Request,
        op: Op,
        subject: Subject,
        reply: R,
        work: impl FnOnce(&Passthrough, Option<What>) -> io::Result<R::Value> + Send + 'static,
    ) {
        self.take(request, op, subject, false, reply, work);
    }

    fn take<R: Reply>(
        &self,
        request: &Request,
        op: Op,
        subject: Subject,
        blocks: bool,
        reply: R,
        work: impl FnOnce(&Passthrough, Option<What>) -> io::Result<R::Value> + Send + 'static,
    ) {
        let arrived = Instant::now();
        let fs = self.fs.clone();
        if is_ours(request) {
            fs.traffic.tally.add(op);
        }
        let waits = blocks
            || !fs.traffic.latency().is_zero()
            || fs.traffic.holds.covers(op, |suffix| fs.is_named(&subject, suffix));
        let run = move || {
            let named = |suffix: &str| fs.is_named(&subject, suffix);
            fs.traffic.holds.wait(op, named);
            fs.traffic.delay(arrived);
            let outcome = match fs.traffic.faults.strike(op, named) {
                Some(What::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
                Some(What::Enospc) => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                fault => work(&fs, fault),
            };
            match outcome {
                Ok(value) => reply.answer(&fs, value),
                Err(error) => reply.refuse(Errno::from(error)),
            }
        };
        if waits {
            let thread = std::thread::Builder::new().name(format!("fuse-{op}"));
            // If there is no thread to be had, the reply is dropped, which answers EIO.
            let _ = thread.spawn(run);
        } else {
            run();
        }
    }
}

/// A request about an inode.
macro_rules! on_node {
    ($method:ident, $op:ident, ($($arg:ident: $ty:ty),*) -> $reply:ident, |$fs:ident, $node:ident| $work:expr) => {
        fn $method(&self, request: &Request, inode: INodeNo, $($arg: $ty,)* reply: fuser::$reply) {
            let $node = inode.0;
            self.serve(request, Op::$op, Subject::Node(inode.0), reply, move |$fs, _| $work);
        }
    };
}

/// A request about a name in a directory, some of which make a file for the caller.
macro_rules! on_name {
    ($method:ident, $op:ident, ($($arg:ident: $ty:ty),*) -> $reply:ident, |$fs:ident, $dir:ident, $name:ident, $by:ident| $work:expr) => {
        fn $method(&self, request: &Request, dir: INodeNo, name: &OsStr, $($arg: $ty,)* reply: fuser::$reply) {
            let ($dir, $name, $by) = (dir.0, name.to_owned(), caller(request));
            let subject = Subject::Name(name.to_owned());
            self.serve(request, Op::$op, subject, reply, move |$fs, _| $work);
        }
    };
}

impl Filesystem for Server {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it a held LOOKUP would block all others in its directory inside the kernel.
        let mut wanted = vec![InitFlags::FUSE_PARALLEL_DIROPS];
        if self.fs.locks.is_some() {
            wanted.push(InitFlags::FUSE_POSIX_LOCKS);
        }
        if self.auto_invalidate {
            wanted.push(InitFlags::FUSE_AUTO_INVAL_DATA);
        }
        for flag in wanted {
            let missing = |_| io::Error::other(format!("the kernel's FUSE lacks {flag:?}"));
            config.add_capabilities(flag).map_err(missing)?;
        }
        Ok(())
    }

    fn destroy(&mut self) {
        let _ = self.alive.send(());
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        self.fs.traffic.tally.add(Op::Forget);
        self.fs.inodes.forget(inode.0, lookups);
    }

    on_name! { lookup, Lookup, () -> ReplyEntry, |fs, dir, name, _by| fs.lookup(dir, &name) }
    on_name! { mknod, Mknod, (mode: u32, _umask: u32, device: u32) -> ReplyEntry, |fs, dir, name, by| {
        fs.mknod(dir, &name, mode, device, by)
    } }
    on_name! { mkdir, Mkdir, (mode: u32, _umask: u32) -> ReplyEntry, |fs, dir, name, by| {
        fs.mkdir(dir, &name, mode, by)
    } }
    on_name! { create, Create, (mode: u32, _umask: u32, flags: i32) -> ReplyCreate, |fs, dir, name, by| {
        fs.create(dir, &name, mode, flags, by)
    } }
    on_name! { unlink, Unlink, () -> ReplyEmpty, |fs, dir, name, _by| {
        fs.remove(dir, &name, AtFlags::empty())
    } }
    on_name! { rmdir, Rmdir, () -> ReplyEmpty, |fs, dir, name, _by| {
        fs.remove(dir, &name, AtFlags::REMOVEDIR)
    } }

    fn symlink(&self, request: &Request, dir: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (key, target, by) = (name.to_owned(), target.to_owned(), caller(request));
        self.serve(request, Op::Symlink, Subject::Name(key.clone()), reply, move |fs, _| {
            fs.symlink(dir.0, &key, &target, by)
        });
    }

    fn link(&self, request: &Request, inode: INodeNo, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let key = name.to_owned();
        self.serve(request, Op::Link, Subject::Name(key.clone()), reply, move |fs, _| fs.link(inode.0, dir.0, &key));
    }

    fn rename(
        &self,
        request: &Request,
        old_dir: INodeNo,
        old: &OsStr,
        new_dir: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = (old.to_owned(), new.to_owned());
        let subject = Subject::Names(from.clone(), to.clone());
        self.serve(request, Op::Rename, subject, reply, move |fs, _| {
            fs.rename((old_dir.0, &from), (new_dir.0, &to), flags.bits())
        });
    }

    on_node! { getattr, Getattr, (_fh: Option<FileHandle>) -> ReplyAttr, |fs, node| fs.getattr(node) }
    on_node! { readlink, Readlink, () -> ReplyData, |fs, node| fs.readlink(node) }
    on_node! { statfs, Statfs, () -> ReplyStatfs, |fs, node| fs.statfs(node) }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime };
        self.serve(request, Op::Setattr, Subject::Node(inode.0), reply, move |fs, _| {
            fs.setattr(inode.0, &change, fh.map(|fh| fh.0))
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let by = caller(request);
        self.serve(request, Op::Access, Subject::Node(inode.0), reply, move |fs, _| {
            fs.access(inode.0, mask.bits(), by)
        });
    }

    on_node! { open, Open, (flags: OpenFlags) -> ReplyOpen, |fs, node| {
        fs.open(node, flags.0).map(OpenedAs::File)
    } }
    on_node! {
        read, Read,
        (fh: FileHandle, offset: u64, size: u32, _flags: OpenFlags, _owner: Option<LockOwner>) -> ReplyData,
        |fs, _node| fs.read(fh.0, offset, size)
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.serve(request, Op::Write, Subject::Node(inode.0), reply, move |fs, fault| {
            fs.write(fh.0, offset, &data, fault)
        });
    }

    on_node! { flush, Flush, (_fh: FileHandle, owner: LockOwner) -> ReplyEmpty, |fs, node| {
        fs.flush(node, owner.0);
        Ok(())
    } }
    on_node! {
        release, Release,
        (fh: FileHandle, _flags: OpenFlags, _owner: Option<LockOwner>, _flush: bool) -> ReplyEmpty,
        |fs, node| {
            fs.release(node, fh.0);
            Ok(())
        }
    }
    on_node! { fsync, Fsync, (fh: FileHandle, data_only: bool) -> ReplyEmpty, |fs, _node| {
        fs.sync(fh.0, data_only)
    } }
    on_node! { fallocate, Fallocate, (fh: FileHandle, offset: u64, length: u64, mode: i32) -> ReplyEmpty, |fs, _node| {
        fs.fallocate(fh.0, offset, length, mode)
    } }
    on_node! { lseek, Lseek, (fh: FileHandle, offset: i64, whence: i32) -> ReplyLseek, |fs, _node| {
        fs.lseek(fh.0, offset, whence)
    } }

    on_node! { opendir, Opendir, (_flags: OpenFlags) -> ReplyOpen, |fs, node| {
        fs.opendir(node).map(OpenedAs::Directory)
    } }
    on_node! { readdir, Readdir, (fh: FileHandle, offset: u64) -> ReplyDirectory, |fs, _node| {
        Ok(Listing { offset, entries: fs.readdir(fh.0, offset)? })
    } }
    on_node! { releasedir, Releasedir, (fh: FileHandle, _flags: OpenFlags) -> ReplyEmpty, |fs, _node| {
        fs.handles.remove(fh.0);
        Ok(())
    } }
    on_node! { fsyncdir, Fsyncdir, (fh: FileHandle, data_only: bool) -> ReplyEmpty, |fs, _node| {
        fs.sync(fh.0, data_only)
    } }

    on_node! {
        getlk, Getlk,
        (fh: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32, pid: u32) -> ReplyLock,
        |fs, node| fs.getlk(&LockRequest { node, handle: fh.0, owner: owner.0, pid, start, end, kind })
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let (node, handle, owner) = (inode.0, fh.0, owner.0);
        let lock = LockRequest { node, handle, owner, pid, start, end, kind };
        let waits = (sleep && kind != libc::F_UNLCK).then_some(request.pid());
        self.take(request, Op::Setlk, Subject::Node(node), waits.is_some(), reply, move |fs, fault| match fault {
            Some(What::GrantLock) => Ok(()),
            _ => fs.setlk(&lock, waits),
        });
    }

    // What follows is not supported. It is counted all the same; the kernel asks once and then does
    // without.

    on_node! {
        copy_file_range, CopyFileRange,
        (_fh: FileHandle, _offset: u64, _to: INodeNo, _to_fh: FileHandle, _to_offset: u64, _length: u64,
         _flags: CopyFileRangeFlags) -> ReplyWrite,
        |_fs, _node| not_supported()
    }
    on_node! {
        setxattr, Setxattr,
        (_name: &OsStr, _value: &[u8], _flags: i32, _position: u32) -> ReplyEmpty,
        |_fs, _node| not_supported()
    }
    on_node! { getxattr, Getxattr, (_name: &OsStr, _size: u32) -> ReplyXattr, |_fs, _node| not_supported() }
    on_node! { listxattr, Listxattr, (_size: u32) -> ReplyXattr, |_fs, _node| not_supported() }
    on_node! { removexattr, Removexattr, (_name: &OsStr) -> ReplyEmpty, |_fs, _node| not_supported() }
    on_node! { bmap, Bmap, (_size: u32, _index: u64) -> ReplyBmap, |_fs, _node| not_supported() }
    on_node! {
        ioctl, Ioctl,
        (_fh: FileHandle, _flags: IoctlFlags, _command: u32, _data: &[u8], _size: u32) -> ReplyIoctl,
        |_fs, _node| not_supported()
    }
    on_node! {
        poll, Poll,
        (_fh: FileHandle, _notifier: PollNotifier, _events: PollEvents, _flags: PollFlags) -> ReplyPoll,
        |_fs, _node| not_supported()
    }
}
