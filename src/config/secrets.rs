//! `${env:NAME}`, `${env:NAME:-default}`, `${file:PATH}` and `$$` in a scalar that was parsed already: what comes out
//! is the text of that one field and is never read as YAML again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::Surroundings;
use super::resolved::SecretPart;
use crate::limits;

/// Longest file that `${file:..}` or a `*_file` key takes: a token is a few KiB.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 10;

/// A scalar after its references are resolved.
pub(super) struct Expanded {
    pub(super) text: String,
    /// The same by where it comes from.
    pub(super) parts: Vec<SecretPart>,
    /// The references, as written, in order; with one of them the text must not be shown.
    pub(super) references: Vec<String>,
}

/// Why a reference has no value, and what to do.
pub(crate) struct Unresolved {
    pub(crate) what: String,
    pub(crate) fix: String,
}

fn unresolved(what: impl Into<String>, fix: impl Into<String>) -> Unresolved {
    Unresolved { what: what.into(), fix: fix.into() }
}

/// Resolves what a scalar refers to.
pub(super) fn expand(written: &str, around: &Surroundings<'_>) -> Result<Expanded, Unresolved> {
    let mut text = String::with_capacity(written.len());
    let (mut parts, mut references) = (Vec::new(), Vec::new());
    let mut add = |piece: String, file: Option<PathBuf>| {
        text.push_str(&piece);
        parts.push(file.map_or(SecretPart::Text(piece), SecretPart::File));
    };
    let mut rest = written;
    while let Some(at) = rest.find('$') {
        add(rest[..at].to_owned(), None);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            add("$".to_owned(), None);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some((reference, after)) = after.split_once('}') else {
                return Err(unresolved(
                    "`${` without its `}`",
                    "close it, or write `$$` for a dollar sign",
                ));
            };
            let file = reference.strip_prefix("file:").map(|path| around.directory.join(path));
            add(value_of(reference, around)?, file);
            references.push(format!("${{{reference}}}"));
            rest = after;
        } else {
            add("$".to_owned(), None);
        }
    }
    add(rest.to_owned(), None);
    Ok(Expanded { text, parts, references })
}

fn value_of(reference: &str, around: &Surroundings<'_>) -> Result<String, Unresolved> {
    match reference.split_once(':') {
        Some(("env", name)) => {
            let (name, default) = match name.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (name, None),
            };
            // As in a shell, `:-` also stands in for a variable that is set to nothing.
            match ((around.variable)(name), default) {
                (Some(value), None) => Ok(value),
                (Some(value), Some(_)) if !value.is_empty() => Ok(value),
                (_, Some(default)) => Ok(default.to_owned()),
                (None, None) => Err(unresolved(
                    format!("the environment variable {name} is not set"),
                    format!("set it, or give a default: ${{env:{name}:-value}}"),
                )),
            }
        }
        Some(("file", path)) => read(&around.directory.join(path)),
        _ => Err(unresolved(
            "only `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` are known",
            "write `$$` for a dollar sign",
        )),
    }
}

/// The content of a secret's file, without the newline that editors leave at its end.
pub(crate) fn read(path: &Path) -> Result<String, Unresolved> {
    read_within(path, limits::PIPE_WAIT)
}

/// A shell's process substitution is a pipe, and gives its secret once. One that nobody writes to is not waited for without end.
fn read_within(path: &Path, wait: Duration) -> Result<String, Unresolved> {
    let shown = path.display();
    let text = if is_pipe(path) {
        let (sender, receiver) = mpsc::sync_channel(1);
        let own = path.to_owned();
        // Stays behind where nobody writes: nothing else can end its wait, and the process is about to end.
        let reading = move || sender.send(content(&own));
        let reader = thread::Builder::new().name("pipe".to_owned()).spawn(reading);
        reader.map_err(|e| unresolved(format!("{shown} cannot be read: {e}"), "start it again"))?;
        receiver.recv_timeout(wait).map_err(|_| {
            let what =
                format!("{shown} is a pipe, and nobody has written it to its end within {wait:?}");
            unresolved(what, "write the secret to it and close it, or name a file")
        })?
    } else {
        content(path)
    };
    let text = text
        .map_err(|e| unresolved(format!("{shown} cannot be read: {e}"), "check path and rights"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unresolved(
            format!("{shown} is longer than {FILE_BYTES_MAX} bytes"),
            "is this the right file?",
        ));
    }
    Ok(without_newline(&text).to_owned())
}

fn content(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // A device or a pipe has no length to be asked for.
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether it is there and can be read only once: a pipe, or a device.
pub(crate) fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Opens a file, or a link to one. Nothing else: a pipe would wait for a writer, for ever.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    let found = path.metadata()?;
    if found.is_dir() {
        // Opening it succeeds; only reading it does not.
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !found.is_file() {
        let why = "it is a pipe or a device, and must be a file that can be read again";
        return Err(io::Error::other(why));
    }
    File::open(path)
}

/// What editors leave at the end of a file is no part of a secret.
pub(crate) fn without_newline(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(written: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "from-file\n").unwrap();
        let around = Surroundings {
            directory: directory.path(),
            variable: &|name| match name {
                "SET" => Some("value: [1, 2]".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            },
        };
        expand(written, &around).map(|e| e.text).map_err(|e| e.what)
    }

    #[test]
    fn references_become_text_and_nothing_else() {
        for (written, expected) in [
            ("plain", "plain"),
            ("${env:SET}", "value: [1, 2]"),
            ("a-${env:SET}-b", "a-value: [1, 2]-b"),
            ("${env:UNSET:-default}", "default"),
            ("${env:UNSET:-}", ""),
            ("${env:EMPTY:-default}", "default"),
            ("${env:EMPTY}", ""),
            ("${file:token}", "from-file"),
            ("$$", "$"),
            ("$${env:SET}", "${env:SET}"),
            ("cost $5", "cost $5"),
            ("end$", "end$"),
        ] {
            assert_eq!(expanded(written).as_deref(), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_has_no_value_is_named() {
        for (written, expected) in [
            ("${env:UNSET}", "the environment variable UNSET is not set"),
            ("${file:missing}", "cannot be read"),
            ("${file:/dev/zero}", "is longer than 65536 bytes"),
            ("${vault:x}", "only `${env:NAME}`"),
            ("${env:SET", "`${` without its `}`"),
        ] {
            let what = expanded(written).unwrap_err();
            assert!(what.contains(expected), "{written}: {what}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_gives_its_secret_once_and_is_not_waited_for_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let what = read_within(&pipe, Duration::from_millis(50)).err().unwrap();
        assert!(what.what.contains("pipe is a pipe, and nobody has written"), "{}", what.what);
        assert!(!what.fix.is_empty());
        std::fs::remove_file(&pipe).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let writer = pipe.clone();
        let write = move || std::fs::write(writer, "from-pipe\n").unwrap();
        let writing = thread::Builder::new().spawn(write).unwrap();
        assert_eq!(read(&pipe).ok().as_deref(), Some("from-pipe"));
        writing.join().unwrap();
    }
}
