//! OAUTHBEARER (RFC 7628, KIP-255): a token from a file, or from a token endpoint by the client credentials grant.

use std::path::{Path, PathBuf};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::security::files::{Files, unusable};
use super::Exchange;
use super::token_endpoint::TokenEndpoint;
use crate::config::resolved::{Secret, TokenSource};
use crate::env::Env;
use crate::error::Error;
use crate::limits;
use crate::wire::ErrorCode;
use crate::wire::sasl_authenticate::SaslAuthenticateResponse;

/// RFC 7628's field separator, which alone is also the answer to an error.
const SEPARATOR: &str = "\u{1}";

/// Where tokens come from.
pub(super) enum Tokens {
    /// What the file held when it was read with the others; read at a login only where there is none yet.
    File { path: PathBuf, token: Option<Secret> },
    /// Kept until it is old; the lock makes one request out of many connections'.
    Endpoint { endpoint: Box<TokenEndpoint>, kept: Mutex<Option<Kept>> },
}

/// A token and when to ask for a new one.
pub(super) struct Kept {
    token: Secret,
    until: Instant,
}

impl Tokens {
    pub(super) fn load(source: &TokenSource, files: &Files) -> Result<Self, Error> {
        Ok(match source {
            TokenSource::File(path) => {
                Self::File { path: path.clone(), token: token_in(path, files).ok() }
            }
            TokenSource::ClientCredentials {
                token_endpoint,
                client_id,
                client_secret,
                scope,
                ca,
            } => {
                let secret = files.again(client_secret)?;
                let (client, scope) = ((client_id.clone(), secret), scope.clone());
                let ca = ca.as_deref();
                let endpoint = TokenEndpoint::load(token_endpoint, client, scope, ca, files)?;
                Self::Endpoint { endpoint: Box::new(endpoint), kept: Mutex::new(None) }
            }
        })
    }

    /// A token that is fit for now, or why there is none.
    pub(super) async fn token(&self, env: &Env) -> Result<Secret, String> {
        let token = match self {
            Self::File { token: Some(token), .. } => token.clone(),
            Self::File { path, token: None } => read_token(path).await?,
            Self::Endpoint { endpoint, kept } => {
                let mut kept = kept.lock().await;
                match &*kept {
                    Some(kept) if kept.until > env.now() => kept.token.clone(),
                    _ => {
                        let granted = endpoint.ask(env).await?;
                        // A fifth before its end, so that a token never expires on the way.
                        let until = env.now() + granted.lifetime * 4 / 5;
                        *kept = Some(Kept { token: granted.token.clone(), until });
                        granted.token
                    }
                }
            }
        };
        if is_token(token.expose()) { Ok(token) } else { Err("the token is not one".to_owned()) }
    }

    /// What a broker refused must not be offered again.
    async fn forget(&self) {
        if let Self::Endpoint { kept, .. } = self {
            *kept.lock().await = None;
        }
    }
}

/// RFC 6750's b64token. Nothing else can be put into the message without breaking it.
fn is_token(token: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    !token.is_empty() && token.chars().all(legal)
}

async fn read_token(path: &Path) -> Result<Secret, String> {
    let (path, shown) = (path.to_owned(), path.display().to_string());
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(limits::TOKEN_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    });
    let text = match read.await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(format!("token file {shown}: {error}")),
        Err(_) => return Err(format!("token file {shown} could not be read")),
    };
    read_as_token(&text).map_err(|why| format!("token file {shown} {why}"))
}

fn read_as_token(text: &str) -> Result<Secret, &'static str> {
    match text.trim() {
        "" => Err("is empty"),
        _ if text.len() > limits::TOKEN_BYTES_MAX => Err("is too large"),
        token if !is_token(token) => Err("holds no bearer token"),
        token => Ok(Secret::new(token)),
    }
}

/// The token in a file that was read already.
pub(super) fn token_in(path: &Path, files: &Files) -> Result<Secret, Error> {
    let text = std::str::from_utf8(files.get(path)?).map_err(|_| "is not UTF-8");
    text.and_then(read_as_token)
        .map_err(|why| unusable(format!("token file {} {why}", path.display())))
}

pub(super) async fn authenticate(
    exchange: &Exchange<'_>,
    tokens: &Tokens,
    token: Option<&Secret>,
) -> Result<SaslAuthenticateResponse, Error> {
    let secret = token.map(Secret::expose).unwrap_or_default();
    let message = format!("n,,{SEPARATOR}auth=Bearer {secret}{SEPARATOR}{SEPARATOR}");
    let answer = exchange.send(message, secret).await;
    let refused = match answer {
        // An empty message is success; any other is why not, as JSON, and wants an answer.
        Ok(answer) if answer.message.is_empty() => return Ok(answer),
        Ok(answer) => {
            let reason = String::from_utf8_lossy(&answer.message).into_owned();
            // The broker then fails the authentication, in fewer words.
            let _ = exchange.send(SEPARATOR, secret).await;
            exchange.refused(ErrorCode::SASL_AUTHENTICATION_FAILED, &reason, secret)
        }
        Err(error) => error,
    };
    tokens.forget().await;
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_is_one() {
        assert!(is_token("eyJhbGciOiJub25lIn0.eyJzdWIiOiJzIn0."));
        for bad in ["", "a b", "a\u{1}b", "a,b", "ä", "a\n"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_token_file_is_read_anew_and_its_faults_are_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("token");
            let error = |result: Result<Secret, String>| result.unwrap_err();
            assert!(error(read_token(&path).await).contains("token: No such file"));
            std::fs::write(&path, "  abc.def\n").unwrap();
            assert_eq!(read_token(&path).await.unwrap().expose(), "abc.def");
            std::fs::write(&path, "ghi").unwrap();
            assert_eq!(read_token(&path).await.unwrap().expose(), "ghi");
            std::fs::write(&path, "\n").unwrap();
            assert!(error(read_token(&path).await).ends_with("is empty"));
            std::fs::write(&path, "two canaries").unwrap();
            let two = error(read_token(&path).await);
            assert!(two.ends_with("holds no bearer token") && !two.contains("canaries"), "{two}");
            std::fs::write(&path, "a".repeat(limits::TOKEN_BYTES_MAX + 1)).unwrap();
            assert!(error(read_token(&path).await).ends_with("is too large"));
        });
    }
}
