//! A broker as far as the login, by what it is told to say in it.

use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Heard;

/// What the broker says to the next message of a login.
pub enum Says {
    /// Success so far, with this message.
    Message(Vec<u8>),
    /// An error code with its words, and a message all the same.
    Error(i16, String, Vec<u8>),
    /// Bytes as they are, no frame around them.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// The end.
    Close,
}

type Answers = fn(usize, &str) -> Says;

/// Its part of a login.
#[derive(Clone, Copy)]
pub struct Login {
    /// Error and mechanisms that it offers; `None` is silence.
    pub offer: (i16, &'static [&'static str]),
    /// Instead of that, bytes of a body.
    pub raw_offer: Option<&'static [u8]>,
    /// Sent before anything is asked.
    pub first: &'static [u8],
    /// By the number of the message, from 0, and what it holds.
    pub answers: Answers,
}

impl Default for Login {
    /// Whoever comes is let in.
    fn default() -> Self {
        let offer = (0, &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"][..]);
        let answers = |_: usize, _: &str| Says::Message(Vec::new());
        Self { offer, raw_offer: None, first: b"", answers }
    }
}

/// An ApiVersions answer (v3, v4) that offers what a login needs, and more.
fn versions() -> Vec<u8> {
    let apis = [(0, 0, 12), (1, 4, 17), (3, 0, 13), (17, 0, 1), (18, 0, 4), (36, 0, 2_i16)];
    let mut body = vec![0, 0, apis.len() as u8 + 1];
    for (key, min, max) in apis {
        for value in [key, min, max] {
            body.extend_from_slice(&i16::to_be_bytes(value));
        }
        body.push(0);
    }
    body.extend_from_slice(&[0, 0, 0, 0, 0]);
    body
}

fn compact(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut len = bytes.len() as u32 + 1;
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

fn frame(id: [u8; 4], flexible: bool, body: &[u8]) -> Vec<u8> {
    let size = 4 + u32::from(flexible) + body.len() as u32;
    let mut frame = [&size.to_be_bytes()[..], &id].concat();
    if flexible {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame
}

impl Login {
    /// Plays it until the client leaves.
    pub async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin, heard: &Heard) {
        if stream.write_all(self.first).await.is_err() {
            return;
        }
        let mut messages = 0;
        while let Ok(size) = stream.read_i32().await {
            let mut request = vec![0; size as usize];
            if stream.read_exact(&mut request).await.is_err() {
                return;
            }
            heard.add_plain(&size.to_be_bytes());
            heard.add_plain(&request);
            let api = i16::from_be_bytes([request[0], request[1]]);
            let id = [request[4], request[5], request[6], request[7]];
            let answer = match ApiKey::try_from(api) {
                Ok(ApiKey::ApiVersions) => frame(id, false, &versions()),
                Ok(ApiKey::SaslHandshake) => frame(id, false, &self.offered()),
                Ok(ApiKey::SaslAuthenticate) => {
                    let text = String::from_utf8_lossy(&request).into_owned();
                    messages += 1;
                    let (code, words, message) = match (self.answers)(messages - 1, &text) {
                        Says::Message(message) => (0_i16, None, message),
                        Says::Error(code, words, message) => (code, Some(words), message),
                        Says::Raw(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            continue;
                        }
                        Says::Silence => std::future::pending().await,
                        Says::Close => return,
                    };
                    let mut body = code.to_be_bytes().to_vec();
                    match words {
                        None => body.push(0),
                        Some(words) => compact(&mut body, words.as_bytes()),
                    }
                    compact(&mut body, &message);
                    body.extend_from_slice(&[0; 9]);
                    frame(id, true, &body)
                }
                _ => continue,
            };
            if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }

    fn offered(&self) -> Vec<u8> {
        if let Some(raw) = self.raw_offer {
            return raw.to_vec();
        }
        let (code, names) = self.offer;
        let mut body = code.to_be_bytes().to_vec();
        body.extend_from_slice(&(names.len() as u32).to_be_bytes());
        for name in names {
            body.extend_from_slice(&(name.len() as u16).to_be_bytes());
            body.extend_from_slice(name.as_bytes());
        }
        body
    }
}
