//! Answers that are long: a page of metrics may have tens of MB. Few of them exist at a time, however many peers read, and
//! however slowly: while all are being read the next peer gets the newest of them once more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::limits;

/// The texts of one path that are being read.
#[derive(Default)]
pub(super) struct Texts(Mutex<VecDeque<Weak<String>>>);

/// What keeps a text while bytes of it are to be sent.
struct Held(Arc<String>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Texts {
    /// A new text, or the newest where there are as many as may be.
    pub(super) fn text<E>(&self, write: impl FnOnce() -> Result<String, E>) -> Result<Bytes, E> {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        texts.retain(|text| text.strong_count() > 0);
        let newest = texts.back().and_then(Weak::upgrade);
        let text = match newest.filter(|_| texts.len() >= limits::TELEMETRY_TEXTS_MAX) {
            Some(newest) => newest,
            None => {
                let text = Arc::new(write()?);
                texts.push_back(Arc::downgrade(&text));
                text
            }
        };
        Ok(Bytes::from_owner(Held(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_exist_and_no_more_and_a_new_one_comes_when_one_was_read() {
        let texts = Texts::default();
        let mut written = 0;
        let mut text = |texts: &Texts| {
            let text = texts.text(|| {
                written += 1;
                Ok::<_, ()>(written.to_string())
            });
            text.unwrap()
        };
        let mut readers: Vec<Bytes> = (0..100).map(|_| text(&texts)).collect();
        let most = limits::TELEMETRY_TEXTS_MAX;
        assert_eq!(readers[0], "1");
        assert!(readers[most - 1..].iter().all(|newest| *newest == most.to_string()));
        readers.remove(0);
        assert_eq!(text(&texts), (most + 1).to_string());
        drop(readers);
        assert_eq!(text(&texts), (most + 2).to_string());
    }
}
