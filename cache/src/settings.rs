//! Settings of Redis.

use std::time::Duration;

use callboard_messages::Secret;

/// The address of the server, and time limits.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// `CALLBOARD_REDIS_URL`: `redis://[user:password@]host[:port][/database]`, `rediss://…` with TLS, or
    /// `redis+unix:///path`. A secret, because it may hold a password.
    pub url: Secret,
    /// `CALLBOARD_REDIS_PREFIX`: before every key, so that several platforms can share a server. Default: `callboard`.
    pub prefix: String,
    /// `CALLBOARD_REDIS_TIMEOUT`: time limit of a command, including connecting, after which the caller goes on without
    /// Redis. Default: 100 ms; between 10 ms and 1 s.
    pub timeout: Duration,
}

impl CacheSettings {
    /// The defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), prefix: "callboard".to_owned(), timeout: Duration::from_millis(100) }
    }

    /// Checks all settings, without connecting.
    ///
    /// # Errors
    /// A sentence for each invalid one; none shows the URL, which may hold a password.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        if let Err(error) = redis::Client::open(self.url.expose()) {
            wrong.push(format!(
                "the Redis URL must be redis://[user:password@]host[:port][/database], or rediss:// for TLS: {}",
                error.category()
            ));
        }
        let spelt = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.chars().all(spelt) {
            wrong.push("the prefix of Redis keys must be 1 to 64 letters, digits, '-', '_', '.' or ':'".to_owned());
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(1)).contains(&self.timeout) {
            wrong.push("the timeout of Redis commands must be between 10 ms and 1 s".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_mistake_has_its_sentence() {
        for url in ["redis://127.0.0.1", "rediss://user:secret@redis.example.com:6380/2", "redis+unix:///run/redis"] {
            assert_eq!(CacheSettings::new(url).validate(), Ok(()), "{url}");
        }
        for url in ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis://127.0.0.1/secret"] {
            let wrong = CacheSettings::new(url).validate().unwrap_err();
            assert_eq!(wrong.len(), 1, "{url}");
            assert!(!wrong[0].contains("secret"), "{wrong:?}");
        }
        let wrong = CacheSettings { prefix: "a b".to_owned(), timeout: Duration::ZERO, ..CacheSettings::new("") };
        assert_eq!(wrong.validate().unwrap_err().len(), 3);
    }
}
