//! The address of a client: from the socket, or from a trusted proxy.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::{HttpRequest, http::header::HeaderMap};
use ipnet::IpNet;

/// The client's end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// Whether the peer is a trusted proxy.
    pub(crate) proxied: bool,
}

/// Proxies whose headers are trusted.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    pub(crate) fn client(&self, http: &HttpRequest) -> Client {
        self.client_behind(http.peer_addr().map(|peer| peer.ip()), http.headers())
    }

    /// Reads `X-Forwarded-For` from right to left: the first hop that is no trusted proxy is the client. Entries
    /// further left were written by the client itself.
    pub(crate) fn client_behind(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Client {
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.to_canonical());
        if self.0.is_empty() || !self.trusts(peer) {
            return Client { address: peer, proxied: false };
        }
        let mut address = peer;
        let lines: Vec<&str> = headers.get_all("x-forwarded-for").filter_map(|line| line.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
            address = hop.to_canonical();
            if !self.trusts(address) {
                break;
            }
        }
        Client { address, proxied: true }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The subject of a rate limit: an IPv4 address, or the /64 that one IPv6 subscriber has.
pub(crate) fn bucket(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&'static str]) -> String {
        let proxies = TrustedProxies(trusted.split_whitespace().map(|network| network.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static(line));
        }
        proxies.client_behind(Some(peer.parse().unwrap()), &headers).address.to_string()
    }

    #[test]
    fn a_stranger_can_t_choose_its_address() {
        assert_eq!(client("", "203.0.113.7", &["10.0.0.1"]), "203.0.113.7");
        assert_eq!(client("10.0.0.0/8", "203.0.113.7", &["198.51.100.1"]), "203.0.113.7");
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_is_the_client() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["1.1.1.1, 203.0.113.7, 10.0.0.2"]), "203.0.113.7");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["1.1.1.1", "203.0.113.7"]), "203.0.113.7");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn one_ipv6_subscriber_is_one_bucket() {
        let bucket_of = |address: &str| bucket(address.parse().unwrap());
        assert_eq!(bucket_of("2001:db8:1:2::1"), bucket_of("2001:db8:1:2:ffff::9"));
        assert_ne!(bucket_of("2001:db8:1:2::1"), bucket_of("2001:db8:1:3::1"));
        assert_ne!(bucket_of("203.0.113.7"), bucket_of("203.0.113.8"));
    }
}
