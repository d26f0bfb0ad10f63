//! The text that strace writes, as calls.

/// The system calls that change files or say where a descriptor leads, and those with which a process speaks to us.
pub(super) const CALLS: &str = "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,\
                                copy_file_range,sendfile,splice,ioctl,truncate,ftruncate,fallocate,rename,renameat,renameat2,\
                                link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,sync,syncfs,\
                                sync_file_range,stat,newfstatat,statx";

/// A call as it is written: begun, and ended.
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// What it has returned; `None` for an error, or if the process was killed in it.
    pub(super) result: Option<i64>,
}

/// A line: a call that was begun by this process, or one that has come to its end.
pub(super) enum Line {
    Begun(String, Call),
    Ended(String, Call),
}

/// Splits at commas that are not within brackets.
fn arguments(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in text.chars() {
        match letter {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}

fn call(text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (inner, result) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
    let inner = inner.trim_end().strip_suffix(')').unwrap_or(inner);
    let result = result.split_whitespace().next().and_then(|word| {
        word.strip_prefix("0x").map_or_else(|| word.parse().ok(), |digits| i64::from_str_radix(digits, 16).ok())
    });
    Some(Call {
        name: name.trim().to_owned(),
        arguments: arguments(inner),
        result: result.filter(|result| *result >= 0),
    })
}

/// Reads what strace has written.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Line> + '_ {
    let mut begun = std::collections::BTreeMap::<String, String>::new();
    text.lines().filter_map(move |line| {
        let (process, line) = line.split_once(' ')?;
        let (process, line) = (process.to_owned(), line.trim_start());
        if let Some(start) = line.strip_suffix("<unfinished ...>") {
            begun.insert(process.clone(), start.to_owned());
            return Some(Line::Begun(process, call(start)?));
        }
        let text = match line.strip_prefix("<... ") {
            Some(rest) => begun.remove(&process)? + rest.split_once("resumed>")?.1,
            None => line.to_owned(),
        };
        Some(Line::Ended(process, call(&text)?))
    })
}

/// The bytes of a string that strace has written in hexadecimal digits.
pub(super) fn bytes(argument: &str) -> Vec<u8> {
    let text = argument.trim_matches('"');
    assert!(!argument.ends_with("..."), "a string that strace has cut off");
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}
