//! The files that a cluster's security stands in: read together, so that what is judged is what is used. Compared by
//! content; dates say little behind a symbolic link that is moved.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::super::diagnosis::SECURITY_FILE;
use crate::config::resolved::{Cluster, Sasl, Secret, TokenSource};
use crate::config::secrets;
use crate::error::{Action, Error, Side};
use crate::limits;

/// What stands in them.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<PathBuf, Result<Vec<u8>, String>>);

/// Tells one content of all of them from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Print([u8; 32]);

pub(crate) fn unusable(message: String) -> Error {
    Error::new(SECURITY_FILE, Side::Local, Action::Stop, message)
}

/// The files of a cluster, each once.
pub(super) fn named(cluster: &Cluster) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Some(tls) = &cluster.tls {
        paths.extend(tls.ca.clone());
        paths.extend(tls.identity.iter().flat_map(|(chain, key)| [chain.clone(), key.clone()]));
    }
    let mut secret = |secret: &Secret| paths.extend(read_again(secret));
    match &cluster.sasl {
        None => {}
        Some(Sasl::Plain { password, .. } | Sasl::Scram { password, .. }) => secret(password),
        Some(Sasl::OAuthBearer(TokenSource::File(path))) => paths.push(path.clone()),
        Some(Sasl::OAuthBearer(TokenSource::ClientCredentials { client_secret, ca, .. })) => {
            secret(client_secret);
            paths.extend(ca.clone());
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

/// The files of a secret that are looked at. A pipe gave what it had to the configuration; what is gone or cannot be read
/// is among them, and is told.
pub(crate) fn read_again(secret: &Secret) -> impl Iterator<Item = PathBuf> {
    secret.files().filter(|path| !secrets::is_pipe(path)).map(Path::to_owned)
}

impl Files {
    /// Reads them, those that cannot be read included.
    pub(crate) fn read(paths: &[PathBuf]) -> Self {
        let read = |path: &PathBuf| (path.clone(), read(path));
        Self(paths.iter().map(read).collect())
    }

    /// What they hold at the next look. A file system that does not answer holds up no one else.
    pub(crate) async fn next_look(paths: &[PathBuf]) -> Self {
        loop {
            tokio::time::sleep(limits::SECURITY_LOOK_INTERVAL).await;
            let paths = paths.to_vec();
            let read = tokio::task::spawn_blocking(move || Self::read(&paths));
            if let Ok(files) = read.await {
                return files;
            }
        }
    }

    /// A file's content; ST-029 where there is none.
    pub(crate) fn get(&self, path: &Path) -> Result<&[u8], Error> {
        match self.0.get(path) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(why)) => Err(unusable(format!("{}: {why}", path.display()))
                .fix("put a file there, or a link to one, that the user of this process may read")),
            None => Err(unusable(format!("{}: not read", path.display()))),
        }
    }

    /// The secret as its files have it now; as the configuration read it, where they cannot be read twice.
    pub(crate) fn again(&self, secret: &Secret) -> Result<Secret, Error> {
        if secret.files().all(|path| self.0.contains_key(path)) {
            secret.again(|path| self.secret(path))
        } else {
            Ok(secret.clone())
        }
    }

    /// A secret's file, as the configuration reads it.
    fn secret(&self, path: &Path) -> Result<String, Error> {
        let bytes = self.get(path)?;
        let bad = |why: &str| Err(unusable(format!("{}: {why}", path.display())));
        match std::str::from_utf8(bytes).map(secrets::without_newline) {
            Err(_) => bad("is not UTF-8"),
            Ok("") => bad("is empty"),
            Ok(_) if bytes.len() as u64 > secrets::FILE_BYTES_MAX => {
                bad("is too long for a secret")
            }
            Ok(text) => Ok(text.to_owned()),
        }
    }

    pub(crate) fn print(&self) -> Print {
        let mut all = digest::Context::new(&digest::SHA256);
        for content in self.0.values() {
            let (kind, bytes) = match content {
                Ok(bytes) => (0, bytes.as_slice()),
                Err(why) => (1, why.as_bytes()),
            };
            all.update(&[kind]);
            all.update(digest::digest(&digest::SHA256, bytes).as_ref());
        }
        let mut print = Print::default();
        print.0.copy_from_slice(all.finish().as_ref());
        print
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = secrets::open_file(path)
        .and_then(|file| file.take(limits::SECURITY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(len) if len as u64 > limits::SECURITY_FILE_BYTES_MAX => {
            Err(format!("more than {} bytes are too many", limits::SECURITY_FILE_BYTES_MAX))
        }
        Ok(_) => Ok(bytes),
    }
}
