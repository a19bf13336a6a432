//! How a setting is written.

use std::{fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

/// A type a setting can have.
pub trait Value: Sized {
    /// From text, or what it must be.
    fn parse(text: &str) -> Result<Self, String>;
    /// As it would be written.
    fn show(&self) -> String;
}

macro_rules! from_str {
    ($($type:ty => $must_be:literal),+ $(,)?) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| $must_be.to_owned())
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

from_str! {
    String => "a text",
    u32 => "a whole number",
    u64 => "a whole number",
    usize => "a whole number",
    SocketAddr => "an address with a port, such as 127.0.0.1:8080",
    url::Url => "a URL",
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err("true or false".to_owned()),
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let must_be = || "a time such as 500ms, 10s, 5m or 1h".to_owned();
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(must_be)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| must_be())?;
        match unit.trim() {
            "ms" => Ok(Self::from_millis(number)),
            "s" => Ok(Self::from_secs(number)),
            "m" => number.checked_mul(60).map(Self::from_secs).ok_or_else(must_be),
            "h" => number.checked_mul(3600).map(Self::from_secs).ok_or_else(must_be),
            _ => Err(must_be()),
        }
    }
    fn show(&self) -> String {
        let (seconds, millis) = (self.as_secs(), self.as_millis());
        match () {
            () if u128::from(seconds) * 1000 != millis => format!("{millis}ms"),
            () if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
            () if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
            () => format!("{seconds}s"),
        }
    }
}

/// Bytes, written as 512MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }
}

impl Value for Size {
    fn parse(text: &str) -> Result<Self, String> {
        let must_be = || "a size such as 4096, 512KiB, 64MiB or 2GiB".to_owned();
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| must_be())?;
        let factor: u64 = match unit.trim() {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(must_be()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(must_be)
    }
    fn show(&self) -> String {
        for (unit, bytes) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 > 0 && self.0.is_multiple_of(bytes) {
                return format!("{}{unit}", self.0 / bytes);
            }
        }
        self.0.to_string()
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "(not set)".to_owned(), Value::show)
    }
}

impl<T: Value> Value for Vec<T> {
    fn parse(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items
            .map(T::parse)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("a list, separated by commas, each {error}"))
    }
    fn show(&self) -> String {
        self.iter().map(Value::show).collect::<Vec<_>>().join(",")
    }
}

/// A value of another crate that is written the way it parses and displays itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<T>(pub T);

impl<T: FromStr<Err: Display> + Display> Value for Text<T> {
    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map(Self).map_err(|error| format!("something else: {error}"))
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_written_as_they_are_read() {
        for text in ["500ms", "10s", "5m", "2h", "0s"] {
            assert_eq!(Duration::parse(text).unwrap().show(), text);
        }
        for text in ["1", "3KiB", "64MiB", "2GiB"] {
            assert_eq!(Size::parse(text).unwrap().show(), text);
        }
        assert!(Duration::parse("10").is_err() && Duration::parse("s").is_err() && Size::parse("1MB").is_err());
        assert_eq!(Vec::<u32>::parse("1, 2,").unwrap(), [1, 2]);
    }
}
