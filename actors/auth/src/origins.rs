//! The origin of a password attempt: a device that the account knows, or else a network.
//!
//! Attempts are delayed, and take turns in the queue for bcrypt, by origin. So many attempts from one address delay
//! only each other, and a known device waits for no stranger.

use std::net::IpAddr;

use callboard_messages::{Caller, Secret, UserId};
use callboard_supervisors::Turn;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::opaque;

/// The origin of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A device that has signed in to the account before.
    Device { account: UserId, device: Uuid },
    /// An IPv4 address, or the /64 of an IPv6 address: a client with one of its addresses has all of them.
    Network(Option<IpAddr>),
}

impl Origin {
    /// The network of the caller.
    pub(crate) fn network(caller: &Caller) -> Self {
        Self::Network(caller.address.map(|address| match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
            address => address,
        }))
    }

    /// Its turn in the queue: all devices that an account knows share one.
    pub(crate) fn turn(&self) -> Turn {
        match self {
            Self::Device { account, .. } => Turn { subject: account.0.as_u128(), preferred: true },
            Self::Network(address) => {
                let bits = address.map_or(0, |address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
                    IpAddr::V6(address) => address.to_bits(),
                });
                Turn { subject: bits, preferred: false }
            }
        }
    }

    /// Its key in the store of failures.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Device { device, .. } => format!("device {device}"),
            Self::Network(None) => "unknown".to_owned(),
            Self::Network(Some(IpAddr::V4(address))) => address.to_string(),
            Self::Network(Some(IpAddr::V6(address))) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }
}

/// Prefix of every device token.
const PREFIX: &str = "cbd";

/// Recognizes known devices. Their tokens are not stored: each has a device id, with an HMAC over it and the account by
/// the platform's key. A device token is no credential: it signs nobody in.
pub(crate) struct Devices([u8; 32]);

impl Devices {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The token that the device sends with the next sign-in to the account.
    pub(crate) fn token(&self, account: UserId, device: Uuid) -> Secret {
        let mut bytes = [0; 32];
        let parts = device.into_bytes().into_iter().chain(self.code(account, device));
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        opaque::from_bytes(PREFIX, &bytes)
    }

    /// The device of a token, if the account knows it.
    pub(crate) fn known(&self, account: UserId, token: &Secret) -> Option<Uuid> {
        let bytes = opaque::to_bytes(PREFIX, token.expose())?;
        let device = Uuid::from_bytes(*bytes.first_chunk()?);
        let expected = self.token(account, device);
        opaque::equal(expected.expose(), token.expose()).then_some(device)
    }

    /// 128 bits.
    fn code(&self, account: UserId, device: Uuid) -> impl Iterator<Item = u8> {
        // HMAC takes a key of any length.
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).ok().map(|mut mac| {
            mac.update(account.0.as_bytes());
            mac.update(device.as_bytes());
            mac.finalize().into_bytes()
        });
        mac.into_iter().flatten().take(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Origin {
        Origin::network(&Caller { address: Some(text.parse().unwrap()), ..Caller::anonymous() })
    }

    #[test]
    fn one_network_is_one_origin() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1").turn(), network("2001:db8:1:3::1").turn());
        assert_eq!(network("2001:db8:1:2::1").key(), "2001:db8:1:2::/64");
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("192.0.2.1").key(), "192.0.2.1");
        assert_ne!(network("192.0.2.1").turn(), network("192.0.2.2").turn());
        assert_eq!(Origin::network(&Caller::anonymous()).key(), "unknown");
    }

    #[test]
    fn a_device_is_known_to_its_account_by_the_platform_s_key_alone() {
        let (devices, account, device) = (Devices::new([7; 32]), UserId::new(), Uuid::now_v7());
        let token = devices.token(account, device);
        assert_eq!(devices.known(account, &token), Some(device));
        assert_eq!(devices.known(UserId::new(), &token), None);
        assert_eq!(Devices::new([8; 32]).known(account, &token), None);
        let text = token.expose();
        for forged in ["", "cbd_", "cbd_AAAA", &text[1..], &text[..text.len() - 1], &text.replace("cbd_", "cbr_")] {
            assert_eq!(devices.known(account, &Secret::new(forged)), None, "{forged}");
        }
    }
}
