//! The calls of a process, followed: where each descriptor leads, and which file each name.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tempfile::TempDir;

use super::trace::{Call, Line, bytes, lines};
use super::{HOME, Initial, Node, Op, Recording, disk};

/// An open file: where it leads, and from where it is read and written.
#[derive(Clone, Copy)]
struct Open {
    node: Node,
    at: u64,
}

/// The files of a directory as a process sees them.
pub(super) struct System {
    home: PathBuf,
    nodes: Vec<Initial>,
    /// What each directory holds now.
    directories: BTreeMap<Node, BTreeMap<String, Node>>,
    /// How long each file is now.
    lengths: BTreeMap<Node, u64>,
    /// WAL-indexes: written through mappings, and trusted by nobody after a crash.
    indexes: BTreeSet<Node>,
    descriptors: BTreeMap<i64, Open>,
    ops: Vec<Op>,
    before_last: usize,
    fsyncs: usize,
    of_directories: Vec<usize>,
}

impl System {
    /// Everything that is in `home` is on disk.
    pub(super) fn of(home: &Path) -> System {
        let mut system = System {
            home: home.to_owned(),
            nodes: Vec::new(),
            directories: BTreeMap::new(),
            lengths: BTreeMap::new(),
            indexes: BTreeSet::new(),
            descriptors: BTreeMap::new(),
            ops: Vec::new(),
            before_last: 0,
            fsyncs: 0,
            of_directories: Vec::new(),
        };
        system.take_in(home, &mut BTreeMap::new());
        system
    }

    fn take_in(&mut self, path: &Path, seen: &mut BTreeMap<u64, Node>) -> Node {
        let found = std::fs::symlink_metadata(path).unwrap();
        let node = self.nodes.len();
        if found.is_dir() {
            self.nodes.push(Initial::Directory(BTreeMap::new()));
            let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
            let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort();
            let entries: BTreeMap<String, Node> =
                names.into_iter().map(|name| (name.clone(), self.take_in(&path.join(&name), seen))).collect();
            self.directories.insert(node, entries.clone());
            self.nodes[node] = Initial::Directory(entries);
            return node;
        }
        assert!(found.is_file(), "{}", path.display());
        if let Some(node) = seen.get(&found.ino()) {
            return *node;
        }
        seen.insert(found.ino(), node);
        let bytes = std::fs::read(path).unwrap();
        self.lengths.insert(node, bytes.len() as u64);
        self.nodes.push(Initial::File(bytes.into()));
        node
    }

    /// Follows one process from its start to its end.
    pub(super) fn run(&mut self, trace: &str) {
        self.descriptors.clear();
        self.before_last = self.ops.len();
        self.fsyncs = 0;
        self.of_directories.clear();
        let mut begun = BTreeMap::new();
        for line in lines(trace) {
            match line {
                // The number may be given out again before the call is seen to end.
                Line::Begun(_, call) if call.name == "close" => self.close(&call),
                Line::Begun(process, _) => drop(begun.insert(process, self.ops.len())),
                Line::Ended(process, call) => {
                    let before = begun.remove(&process).unwrap_or(self.ops.len());
                    self.call(&call, before);
                }
            }
        }
    }

    pub(super) fn recording(self, home: TempDir) -> Recording {
        let System { nodes, ops, before_last, of_directories, .. } = self;
        Recording { home: Rc::new(home), nodes, ops, before_last, of_directories }
    }

    /// The directory and the name in it that a path means; `None` outside of the home.
    fn place(&self, directory: &str, path: &str) -> Option<(Node, String)> {
        let path = String::from_utf8(bytes(path)).unwrap();
        if !path.starts_with('/') && directory != "AT_FDCWD" {
            let from = self.descriptors.get(&directory.parse().ok()?)?;
            assert!(!path.contains('/'), "a path below a descriptor: {path}");
            return Some((from.node, path));
        }
        let inside = Path::new(&path).strip_prefix(&self.home).ok()?;
        let mut parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap()).collect();
        let name = parts.pop()?;
        let mut node = HOME;
        for part in parts {
            node = *self.directories[&node].get(part)?;
        }
        Some((node, name.to_owned()))
    }

    fn node(&self, directory: &str, path: &str) -> Option<Node> {
        if String::from_utf8(bytes(path)).is_ok_and(|path| Path::new(&path) == self.home) {
            return Some(HOME);
        }
        let (directory, name) = self.place(directory, path)?;
        self.directories[&directory].get(&name).copied()
    }

    fn set(&mut self, directory: Node, name: &str, to: Option<Node>) {
        let entries = self.directories.get_mut(&directory).unwrap();
        match to {
            Some(node) => drop(entries.insert(name.to_owned(), node)),
            None => drop(entries.remove(name)),
        }
    }

    fn named(&mut self, (directory, name): (Node, String), to: Option<Node>) {
        self.set(directory, &name, to);
        self.ops.push(Op::Name(directory, name, to));
    }

    fn create(&mut self, place: (Node, String), initial: Initial) -> Node {
        let node = self.nodes.len();
        match &initial {
            Initial::Directory(entries) => drop(self.directories.insert(node, entries.clone())),
            Initial::File(bytes) => drop(self.lengths.insert(node, bytes.len() as u64)),
        }
        self.nodes.push(initial);
        if place.1.ends_with("-shm") {
            self.indexes.insert(node);
        }
        self.named(place, Some(node));
        node
    }

    fn length(&mut self, node: Node, length: u64) {
        self.lengths.insert(node, length);
        if !self.indexes.contains(&node) {
            self.ops.push(Op::Length(node, length));
        }
    }

    fn write(&mut self, node: Node, at: u64, data: Vec<u8>) {
        let length = self.lengths.get_mut(&node).unwrap();
        *length = (*length).max(at + data.len() as u64);
        if !self.indexes.contains(&node) {
            self.ops.push(Op::Data(node, at, data.into()));
        }
    }

    fn rename(&mut self, from: (Node, String), to: (Node, String)) {
        let node = self.directories[&from.0][&from.1];
        if self.directories[&to.0].get(&to.1) == Some(&node) {
            // Two names of one file: nothing happens.
            return;
        }
        self.named(to, Some(node));
        self.set(from.0, &from.1, None);
        self.ops.push(Op::Moved(from.0, from.1));
    }

    fn close(&mut self, call: &Call) {
        let descriptor: i64 = call.arguments[0].trim_end_matches(')').trim().parse().unwrap();
        self.descriptors.remove(&descriptor);
    }

    /// A call that has ended; the first `before` operations had been done when it began.
    fn call(&mut self, call: &Call, before: usize) {
        let (name, arguments) = (call.name.as_str(), &call.arguments);
        let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
        if matches!(name, "statx" | "newfstatat" | "stat") {
            let path = argument(usize::from(name != "stat"));
            let mark = String::from_utf8(bytes(path)).unwrap_or_default();
            if let Some(mark) = mark.strip_prefix("/mark/") {
                self.ops.push(Op::Mark(mark.to_owned()));
            }
            return;
        }
        let Some(result) = call.result else { return };
        let open = |at: usize| argument(at).parse().ok().and_then(|number: i64| self.descriptors.get(&number).copied());
        match name {
            "close" => self.close(call),
            "open" | "openat" => {
                let (directory, path, flags) = match name {
                    "open" => ("AT_FDCWD", argument(0), argument(1)),
                    _ => (argument(0), argument(1), argument(2)),
                };
                self.descriptors.remove(&result);
                let mut node = self.node(directory, path);
                if node.is_none()
                    && flags.contains("O_CREAT")
                    && let Some(place) = self.place(directory, path)
                {
                    node = Some(self.create(place, Initial::File([].into())));
                }
                let Some(node) = node else { return };
                assert!(!flags.contains("O_APPEND"), "what is appended is not followed");
                if flags.contains("O_TRUNC") && self.lengths[&node] > 0 {
                    self.length(node, 0);
                }
                self.descriptors.insert(result, Open { node, at: 0 });
            }
            "dup" | "dup2" | "dup3" | "fcntl" => {
                if name == "fcntl" && !argument(1).starts_with("F_DUPFD") {
                    return;
                }
                let copied = open(0);
                self.descriptors.remove(&result);
                if let Some(open) = copied {
                    self.descriptors.insert(result, open);
                }
            }
            "lseek" => {
                if let Some(open) = argument(0).parse().ok().and_then(|number: i64| self.descriptors.get_mut(&number)) {
                    open.at = result as u64;
                }
            }
            "write" | "pwrite64" => {
                let Some(Open { node, at }) = open(0) else { return };
                let mut data = bytes(argument(1));
                data.truncate(result as usize);
                if name == "pwrite64" {
                    self.write(node, argument(3).parse().unwrap(), data);
                } else {
                    self.descriptors.insert(argument(0).parse().unwrap(), Open { node, at: at + data.len() as u64 });
                    self.write(node, at, data);
                }
            }
            "copy_file_range" => {
                let (Some(from), Some(to)) = (open(0), open(2)) else {
                    assert!(open(2).is_none(), "copied from outside");
                    return;
                };
                let offset = |text: &str| -> usize {
                    let digits: String = text.chars().skip(1).take_while(char::is_ascii_digit).collect();
                    digits.parse().expect("an offset")
                };
                let (start, at) = (offset(argument(1)), offset(argument(3)) as u64);
                let data = disk::content(&self.nodes, &self.ops, from.node)[start..start + result as usize].to_vec();
                self.write(to.node, at, data);
            }
            "ftruncate" => {
                if let Some(open) = open(0) {
                    self.length(open.node, argument(1).parse().unwrap());
                }
            }
            "fallocate" => {
                let Some(open) = open(0) else { return };
                assert_eq!(argument(1), "0", "a kind of fallocate that is not followed");
                let end = argument(2).parse::<u64>().unwrap() + argument(3).parse::<u64>().unwrap();
                if end > self.lengths[&open.node] {
                    self.length(open.node, end);
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = match name {
                    "rename" => (self.place("AT_FDCWD", argument(0)), self.place("AT_FDCWD", argument(1))),
                    _ => (self.place(argument(0), argument(1)), self.place(argument(2), argument(3))),
                };
                if let (Some(from), Some(to)) = (from, to) {
                    self.rename(from, to);
                }
            }
            "link" | "linkat" => {
                let (from, to) = match name {
                    "link" => (self.node("AT_FDCWD", argument(0)), self.place("AT_FDCWD", argument(1))),
                    _ => (self.node(argument(0), argument(1)), self.place(argument(2), argument(3))),
                };
                if let (Some(node), Some(to)) = (from, to) {
                    self.named(to, Some(node));
                }
            }
            "unlink" | "unlinkat" | "rmdir" => {
                let place = match name {
                    "unlinkat" => self.place(argument(0), argument(1)),
                    _ => self.place("AT_FDCWD", argument(0)),
                };
                if let Some(place) = place {
                    self.named(place, None);
                }
            }
            "mkdir" | "mkdirat" => {
                let place = match name {
                    "mkdir" => self.place("AT_FDCWD", argument(0)),
                    _ => self.place(argument(0), argument(1)),
                };
                if let Some(place) = place {
                    self.create(place, Initial::Directory(BTreeMap::new()));
                }
            }
            "fsync" | "fdatasync" => {
                let open = open(0);
                self.fsyncs += usize::from(name == "fsync");
                if name == "fsync" && open.is_some_and(|open| self.directories.contains_key(&open.node)) {
                    self.of_directories.push(self.fsyncs);
                }
                if let Some(open) = open {
                    self.ops.push(Op::Sync(open.node, before));
                }
            }
            "ioctl" => assert!(!argument(1).contains("CLONE"), "shared blocks are not followed"),
            other => assert!(open(0).is_none(), "{other} is not followed"),
        }
    }
}
