//! The framing of request bodies: where a body ends.
//!
//! Nothing is decoded here: actix-http does that, and refuses what is malformed. Bytes of the request are counted, so
//! that those of the next one are not handed on with them.

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing more.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, up to the last one and its trailers.
    Chunked(Chunks),
    /// Everything: the connection is no longer HTTP, or the chunks are malformed.
    Stream,
}

/// The position within a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the digits of a size.
    Size(u64),
    /// Behind the digits, up to the end of the line.
    Extension(u64),
    /// In the data of a chunk.
    Data(u64),
    /// In the two bytes behind the data.
    DataEnd(u8),
    /// At the beginning of a line behind the last chunk.
    TrailerBegin,
    /// Within such a line.
    Trailer,
    /// Before the last byte.
    LastLineFeed,
}

impl Framing {
    pub(super) const CHUNKED: Self = Self::Chunked(Chunks::Size(0));

    /// How many of these bytes belong to the body; they count as handed on.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::None => 0,
            Self::Stream => bytes.len(),
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::None;
                }
                taken
            }
            Self::Chunked(_) => self.take_chunks(bytes),
        }
    }

    /// Whether the whole body was handed on.
    pub(super) fn is_done(self) -> bool {
        self == Self::None
    }

    fn take_chunks(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Self::Chunked(chunks) = self {
            let Some(&byte) = bytes.get(at) else { break };
            if let Chunks::Data(left) = chunks {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= taken as u64;
                if *left == 0 {
                    *chunks = Chunks::DataEnd(2);
                }
                at += taken;
                continue;
            }
            at += 1;
            *self = chunks.step(byte).map_or(Self::Stream, |next| next.map_or(Self::None, Self::Chunked));
        }
        if *self == Self::Stream { bytes.len() } else { at }
    }
}

impl Chunks {
    /// The position behind the byte: `Some(None)` is the end of the body, and `None` a malformed one.
    fn step(self, byte: u8) -> Option<Option<Self>> {
        let next = match (self, byte) {
            (Self::Size(size), b'\r' | b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Size(size), _) => {
                let digit = u64::from(char::from(byte).to_digit(16)?);
                Self::Size(size.checked_mul(16)? + digit)
            }
            (Self::Extension(0), b'\n') => Self::TrailerBegin,
            (Self::Extension(size), b'\n') => Self::Data(size),
            (Self::DataEnd(2), _) => Self::DataEnd(1),
            (Self::DataEnd(_), _) => Self::Size(0),
            (Self::TrailerBegin, b'\r') => Self::LastLineFeed,
            (Self::TrailerBegin, _) => Self::Trailer,
            (Self::Trailer, b'\n') => Self::TrailerBegin,
            (Self::LastLineFeed, b'\n') => return Some(None),
            (Self::LastLineFeed, _) => return None,
            (Self::Extension(_) | Self::Trailer | Self::Data(_), _) => self,
        };
        Some(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &str = "GET / HTTP/1.1\r\n";

    #[test]
    fn a_body_ends_where_its_framing_says_however_it_is_cut() {
        let chunked = "5\r\nhello\r\n0A ;x=\"y\"\r\n0123456789\r\n000\r\nTrailer: 1\r\n\r\n";
        for (framing, body) in [
            (Framing::None, ""),
            (Framing::Length(5), "hello"),
            (Framing::CHUNKED, "0\r\n\r\n"),
            (Framing::CHUNKED, chunked),
        ] {
            let text = format!("{body}{NEXT}");
            for piece in 1..=text.len() {
                let (mut left, mut taken) = (framing, 0);
                for bytes in text.as_bytes().chunks(piece) {
                    let took = left.take(bytes);
                    taken += took;
                    if took < bytes.len() {
                        break;
                    }
                }
                assert_eq!((taken, left.is_done()), (body.len(), true), "{body:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_chunked_body_is_left_to_be_refused() {
        for body in ["hello\r\n", "5x\r\nhello", "fffffffffffffffff\r\n", "0\r\n\rX"] {
            let mut framing = Framing::CHUNKED;
            assert_eq!(framing.take(format!("{body}{NEXT}").as_bytes()), body.len() + NEXT.len(), "{body:?}");
            assert!(!framing.is_done());
        }
    }
}
