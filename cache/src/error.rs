//! Why Redis did not do what it was asked to.

use std::{error::Error, io, sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// A command that had no effect that could be relied on: the caller goes on without Redis.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// There is no Redis: this node is alone.
    #[error("there is no Redis")]
    None,
    /// Too much of what was asked lately failed, so nothing is asked for a moment.
    #[error("Redis failed lately and is left alone for {retry_after:?}")]
    Resting {
        /// For how long.
        retry_after: Duration,
    },
    /// No answer within the deadline; the command may or may not have been carried out.
    #[error("Redis did not answer in time")]
    Late,
    /// The connection broke, or there is none, or the server can't serve.
    #[error("Redis can't be reached: {0}")]
    Unreachable(RedisError),
    /// The server understood and refused: a mistake of ours, or somebody else's value under our key.
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

/// Why a look at the server at the start did not go well.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckError {
    /// It answers, and will never do what it is asked to: wrong user or password, a missing permission, a database that
    /// it does not have. A reason not to start.
    #[error("Redis refuses this node: {0}; correct CALLBOARD_REDIS_URL, or the server's users")]
    Refused(String),
    /// It shows a certificate of a name or an authority that this node does not trust. A reason not to start.
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

/// What is wrong with the server's certificate, if that is why the connection could not be made.
fn distrust(error: &RedisError) -> Option<&rustls::Error> {
    let source = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    let handshake = source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(handshake, rustls::Error::InvalidCertificate(_)).then_some(handshake)
}

fn said(error: &RedisError) -> String {
    error.detail().map_or_else(|| error.category().to_owned(), |detail| format!("{}: {detail}", error.category()))
}
