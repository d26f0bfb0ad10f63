//! What the kernel says about one mount.

use std::path::PathBuf;

use super::Source;
use super::mount_table::split_options;

/// One mount as statmount, the mount table or statfs describe it. What a source does not know is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFacts {
    /// The filesystem's name without a subtype: `ext4`, `nfs4`, `fuse`.
    pub fs_type: Option<String>,
    /// The subtype a FUSE daemon gave itself: `sshfs`.
    pub subtype: Option<String>,
    /// What is mounted.
    pub source: Option<String>,
    /// Where, as seen from this process's root.
    pub mount_point: Option<PathBuf>,
    /// The options of the mount and of the filesystem.
    pub options: Vec<String>,
    /// The magic number of the superblock.
    pub magic: Option<u64>,
    /// Where this came from.
    pub from: Source,
}

impl MountFacts {
    /// Facts from nowhere.
    pub fn nothing() -> Self {
        MountFacts {
            fs_type: None,
            subtype: None,
            source: None,
            mount_point: None,
            options: Vec::new(),
            magic: None,
            from: Source::Nothing,
        }
    }

    /// The full name: `fuse.sshfs`, `ext4`, or none.
    pub fn name(&self) -> Option<String> {
        let fs_type = self.fs_type.as_deref()?;
        Some(match self.subtype.as_deref() {
            Some(subtype) if !subtype.is_empty() => format!("{fs_type}.{subtype}"),
            _ => fs_type.to_owned(),
        })
    }

    /// The value of `key=value` among the options.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether `flag` stands among the options.
    pub fn has(&self, flag: &str) -> bool {
        self.options.iter().any(|option| option == flag)
    }

    /// Splits `fuse.sshfs` as the mount table writes it.
    pub(super) fn set_name(&mut self, name: &str) {
        match name.split_once('.') {
            Some((kind @ ("fuse" | "fuseblk"), subtype)) => {
                self.fs_type = Some(kind.to_owned());
                self.subtype = Some(subtype.to_owned());
            }
            _ => self.fs_type = Some(name.to_owned()),
        }
    }
    /// Takes the filesystem's options as the kernel writes them.
    pub(super) fn set_options(&mut self, text: &[u8]) {
        self.options = split_options(text);
        if self.fs_type.as_deref() != Some("overlay") {
            return;
        }
        for option in &mut self.options {
            if let Some(path) = option.strip_prefix("upperdir=") {
                *option = format!("upperdir={}", undo_overlay_escapes(path));
            }
        }
    }
}

/// Overlays show the path as it was given to mount(2), where a backslash takes the next character as it is.
fn undo_overlay_escapes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(char) = rest.next() {
        out.push(if char == '\\' { rest.next().unwrap_or(char) } else { char });
    }
    out
}
