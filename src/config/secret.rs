//! A secret as the configuration names it: its value, and the files that it is read from again while it is in use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A string that is never shown (I8), and where it is read again.
#[derive(Clone)]
pub struct Secret {
    value: String,
    parts: Arc<[SecretPart]>,
}

/// A piece of a secret.
pub enum SecretPart {
    /// Text that stays.
    Text(String),
    /// The content of a file, without the newline at its end.
    File(PathBuf),
}

impl Secret {
    /// One that stays.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), parts: Arc::default() }
    }

    /// One that was read from these, put together.
    pub fn read(value: impl Into<String>, parts: Vec<SecretPart>) -> Self {
        Self { value: value.into(), parts: parts.into() }
    }

    /// The files that it stands in.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| match part {
            SecretPart::Text(_) => None,
            SecretPart::File(path) => Some(&**path),
        })
    }

    /// The same secret as its files have it by now.
    ///
    /// # Errors
    /// What `content` says of a file.
    pub fn again<E>(&self, content: impl Fn(&Path) -> Result<String, E>) -> Result<Self, E> {
        if self.files().next().is_none() {
            return Ok(self.clone());
        }
        let mut value = String::new();
        for part in &*self.parts {
            match part {
                SecretPart::Text(text) => value.push_str(text),
                SecretPart::File(path) => value.push_str(&content(path)?),
            }
        }
        Ok(Self { value, parts: self.parts.clone() })
    }

    /// The value; for the authentication itself only.
    pub fn expose(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_put_together_again_from_its_files_and_stays_where_it_has_none() {
        let parts = vec![SecretPart::Text("a-".into()), SecretPart::File("/token".into())];
        let secret = Secret::read("a-old", parts);
        let again = secret.again(|path| Ok::<_, ()>(format!("new{}", path.display()))).unwrap();
        assert_eq!((again.expose(), again.files().count()), ("a-new/token", 1));
        assert_eq!(secret.again(|_| Err(7)).err(), Some(7));
        let fixed = Secret::read("x", vec![SecretPart::Text("y".into())]);
        assert_eq!(fixed.again(|_| Err(7)).unwrap().expose(), "x");
        assert_eq!(format!("{again:?}"), "***");
    }
}
