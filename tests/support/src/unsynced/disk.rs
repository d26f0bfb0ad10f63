//! What is on disk if some of the operations have reached it.

use std::collections::BTreeMap;
use std::path::Path;

use super::{HOME, Initial, Node, Op, Recording};

/// Half of a write may be lost, but not half of this.
const SECTOR: usize = 4096;

/// Every file below a directory, by its path in it.
pub(super) fn read(home: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut below = vec![String::new()];
    while let Some(directory) = below.pop() {
        for entry in std::fs::read_dir(home.join(&directory)).unwrap().map(|entry| entry.unwrap()) {
            let name = format!("{directory}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                below.push(format!("{name}/"));
            } else {
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn write(bytes: &mut Vec<u8>, at: u64, data: &[u8]) {
    let at = at as usize;
    bytes.resize(bytes.len().max(at + data.len()), 0);
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn resize(bytes: &mut Vec<u8>, length: u64) {
    bytes.resize(length as usize, 0);
}

/// What a file holds after all of these.
pub(super) fn content(nodes: &[Initial], ops: &[Op], node: Node) -> Vec<u8> {
    let Initial::File(bytes) = &nodes[node] else { return Vec::new() };
    let mut bytes = bytes.to_vec();
    for op in ops {
        match op {
            Op::Data(of, at, data) if *of == node => write(&mut bytes, *at, data),
            Op::Length(of, length) if *of == node => resize(&mut bytes, *length),
            _ => {}
        }
    }
    bytes
}

/// The files if of all operations those have reached the disk for which `kept` says so, and of the data that `torn` names half
/// of the sectors. Directories end in a slash.
pub(super) fn files(
    recording: &Recording,
    kept: &[bool],
    torn: Option<(usize, u64)>,
) -> BTreeMap<String, (Node, Vec<u8>)> {
    let mut contents: BTreeMap<Node, Vec<u8>> = BTreeMap::new();
    let mut directories: BTreeMap<Node, BTreeMap<String, Node>> = BTreeMap::new();
    for (node, initial) in recording.nodes.iter().enumerate() {
        match initial {
            Initial::File(bytes) => drop(contents.insert(node, bytes.to_vec())),
            Initial::Directory(entries) => drop(directories.insert(node, entries.clone())),
        }
    }
    for (number, op) in recording.ops.iter().enumerate().filter(|(number, _)| kept[*number]) {
        match op {
            Op::Data(node, at, data) => {
                let bytes = contents.get_mut(node).unwrap();
                for (piece, part) in data.chunks(SECTOR).enumerate() {
                    if torn.is_none_or(|(torn, which)| torn != number || which >> (piece % 64) & 1 == 1) {
                        write(bytes, at + (piece * SECTOR) as u64, part);
                    }
                }
            }
            Op::Length(node, length) => resize(contents.get_mut(node).unwrap(), *length),
            Op::Name(directory, name, Some(node)) => {
                directories.get_mut(directory).unwrap().insert(name.clone(), *node);
            }
            Op::Name(directory, name, None) | Op::Moved(directory, name) => {
                directories.get_mut(directory).unwrap().remove(name);
            }
            Op::Sync(..) | Op::Mark(_) => {}
        }
    }
    let (mut files, mut below) = (BTreeMap::new(), vec![(String::new(), HOME)]);
    while let Some((path, directory)) = below.pop() {
        for (name, node) in &directories[&directory] {
            if directories.contains_key(node) {
                files.insert(format!("{path}{name}/"), (*node, Vec::new()));
                below.push((format!("{path}{name}/"), *node));
            } else {
                files.insert(format!("{path}{name}"), (*node, contents[node].clone()));
            }
        }
    }
    files
}

/// Makes `home` hold this and nothing else.
pub(super) fn make(home: &Path, files: &BTreeMap<String, (Node, Vec<u8>)>) {
    for entry in std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(entry.path()).unwrap();
        } else {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let mut made: BTreeMap<Node, &str> = BTreeMap::new();
    for (name, (node, bytes)) in files {
        let path = home.join(name);
        if name.ends_with('/') {
            std::fs::create_dir(path).unwrap();
        } else if let Some(first) = made.get(node) {
            std::fs::hard_link(home.join(first), path).unwrap();
        } else {
            std::fs::write(path, bytes).unwrap();
            made.insert(*node, name);
        }
    }
}
