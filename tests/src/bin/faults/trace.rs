//! What a daemon did to its state folder, read from `strace -f -y -yy -x`, in the order in which it took effect.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mcp_auth_tests::rogue::generation;

/// The calls that [`read`] wants to be traced.
pub(crate) const CALLS: &str = "trace=openat,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,\
                                rmdir,mkdir,mkdirat,ftruncate,close";

/// One step, paths below the folder that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create(PathBuf),
    Append(PathBuf, Vec<u8>),
    /// The file has no content any more.
    Empty(PathBuf),
    /// The content, or the names in a folder, are on the disk.
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    MakeFolder(PathBuf),
    /// An access token of that generation went to a client.
    Serve(u64),
}

/// The steps below `folder`. A call that the model does not know, or that wrote less than it should, is a panic.
pub(crate) fn read(trace: &Path, folder: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(trace).unwrap();
    let (mut begun, mut steps) = (HashMap::new(), Vec::new());
    for line in text.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix("<unfinished ...>") {
            steps.extend(serve(first));
            begun.insert(pid, first.to_owned());
        } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            let whole = begun.remove(pid).unwrap_or_default() + rest;
            steps.extend(step(&whole, folder));
        } else {
            steps.extend(serve(call));
            steps.extend(step(call, folder));
        }
    }
    steps
}

/// A token that begins to leave counts as served, whether or not the call comes back.
fn serve(call: &str) -> Option<Step> {
    let token = call.contains("<UNIX-STREAM").then(|| call.find("zQaT9qz."))??;
    generation(call[token..].split(['"', '\\']).next()?).map(Step::Serve)
}

fn step(call: &str, folder: &Path) -> Option<Step> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if result.starts_with("-1") || result.starts_with('?') {
        return None;
    }
    let below = |path: &str| Path::new(path).strip_prefix(folder).ok().map(Path::to_owned);
    // The descriptor's path, or the paths that were given.
    let open = arguments.split_once('<').and_then(|(_, rest)| below(rest.split_once('>')?.0));
    let mut given = arguments.split('"').skip(1).step_by(2);
    let mut path = || given.next().and_then(below);
    match name {
        "openat" if arguments.contains("O_CREAT") => path().map(Step::Create),
        "openat" | "close" => None,
        "write" => open.map(|file| {
            let content = unescape(arguments);
            assert_eq!(result.parse(), Ok(content.len()), "a short write: {call}");
            Step::Append(file, content)
        }),
        "fsync" | "fdatasync" => open.map(Step::Sync),
        "rename" => path().and_then(|from| Some(Step::Rename(from, path()?))),
        "unlink" | "rmdir" => path().map(Step::Remove),
        "mkdir" => path().map(Step::MakeFolder),
        "ftruncate" => open.map(|file| {
            assert!(arguments.ends_with(", 0)"), "not known: {call}");
            Step::Empty(file)
        }),
        _ => {
            assert!(open.is_none(), "not known: {call}");
            assert!(!name.ends_with("at") && !name.ends_with("at2") || path().is_none(), "not known: {call}");
            None
        }
    }
}

/// The first string of a call's arguments, as bytes.
fn unescape(arguments: &str) -> Vec<u8> {
    let (_, text) = arguments.split_once(", \"").unwrap();
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return bytes,
            b'\\' => bytes.push(match rest.next().unwrap() {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                quoted @ (b'"' | b'\\') => quoted,
                other => panic!("not known: \\{}", char::from(other)),
            }),
            _ => bytes.push(byte),
        }
    }
    panic!("a string without an end: {arguments}")
}
