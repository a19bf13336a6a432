//! Errors of Redis.

use std::{error::Error, io, sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a command had no reliable effect: the caller goes on without Redis.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// No server is configured: this node is alone.
    #[error("there is no Redis")]
    None,
    /// The breaker is open.
    #[error("Redis failed lately and is left alone for {retry_after:?}")]
    Resting {
        /// How long.
        retry_after: Duration,
    },
    /// No answer within the deadline; the command may or may not have been carried out.
    #[error("Redis did not answer in time")]
    Late,
    /// The connection broke or could not be made, or the server is not able to serve.
    #[error("Redis can't be reached: {0}")]
    Unreachable(RedisError),
    /// The server refused the command: a mistake of ours, or a value of another program under our key.
    #[error("Redis refused: {0}")]
    Refused(RedisError),
}

impl From<RedisError> for CacheError {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(
                ServerErrorKind::ResponseError
                | ServerErrorKind::ExecAbort
                | ServerErrorKind::CrossSlot
                | ServerErrorKind::NoScript,
            )
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::Extension => Self::Refused(error),
            _ => Self::Unreachable(error),
        }
    }
}

/// Why the check of the server failed at the start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckError {
    /// It answers, and will never serve this node: wrong user or password, a missing permission, a database that it
    /// does not have. A reason not to start.
    #[error("Redis refuses this node: {0}; correct CALLBOARD_REDIS_URL, or the server's users")]
    Refused(String),
    /// Its certificate has a name or an authority that this node does not trust. A reason not to start.
    #[error("the certificate of Redis is not trusted: {0}")]
    Untrusted(String),
    /// It does not answer now; it may later. No reason not to start.
    #[error("Redis can't be reached now ({0}); this node goes on without it until it can")]
    Unreachable(String),
}

impl From<CacheError> for CheckError {
    fn from(error: CacheError) -> Self {
        match &error {
            CacheError::Refused(source) => Self::Refused(said(source)),
            CacheError::Unreachable(source) if is_about_credentials(source) => Self::Refused(said(source)),
            CacheError::Unreachable(source) => match distrust(source) {
                Some(distrust) => Self::Untrusted(distrust.to_string()),
                None => Self::Unreachable(error.to_string()),
            },
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

fn is_about_credentials(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Server(ServerErrorKind::NoPerm)
    ) || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
}

/// Why the server's certificate is not trusted, if that is why the connection failed.
fn distrust(error: &RedisError) -> Option<&rustls::Error> {
    let source = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    let handshake = source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(handshake, rustls::Error::InvalidCertificate(_)).then_some(handshake)
}

fn said(error: &RedisError) -> String {
    error.detail().map_or_else(|| error.category().to_owned(), |detail| format!("{}: {detail}", error.category()))
}
