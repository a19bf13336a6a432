//! Where a node is, as its parts and its users are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use url::Url;

use crate::{
    config::{Mode, Settings},
    error::{Context, Error, Result},
};

/// The URLs of a node.
#[derive(Debug)]
pub struct Addresses {
    /// For the command line on this machine.
    pub local: Url,
    /// For browsers.
    pub public: Url,
    /// For the other nodes.
    pub advertised: Url,
    /// Who signs the platform's tokens, the same on every node.
    pub issuer: String,
    /// Of an app; `{app}` stands for its name.
    pub app_template: String,
}

impl Addresses {
    /// Takes the port, which the settings may leave to the system, and derives the rest.
    pub fn take(settings: &mut Settings, mode: Mode) -> Result<(Self, TcpListener)> {
        let listen = &mut settings.gateway.listen;
        let listener = TcpListener::bind(*listen).map_err(|error| {
            Error::failure(format!("can't listen on {listen}: {error}"))
                .hint("stop the program that has the port, or choose another: --listen 127.0.0.1:9090")
        })?;
        *listen = listener.local_addr().context(|| "read the port".to_owned())?;
        let listen = *listen;
        let local = url(&format!("http://{}", SocketAddr::new(reachable(listen.ip()), listen.port())))?;
        let public = match &settings.gateway.public_url {
            Some(public) => public.clone(),
            None if listen.ip().is_loopback() || listen.ip().is_unspecified() => {
                url(&format!("http://localhost:{}", listen.port()))?
            }
            None => local.clone(),
        };
        let port = public.port().map(|port| format!(":{port}")).unwrap_or_default();
        let app_template = format!("{}://{{app}}.{}{port}", public.scheme(), settings.router.base_domain);
        let advertised = settings.cluster.advertise_url.clone().unwrap_or_else(|| local.clone());
        let mut addresses = Self { local, public, app_template, advertised, issuer: String::new() };
        addresses.issuer = match mode {
            Mode::Serve => Self::issuer_in_cluster(settings),
            Mode::Dev => addresses.platform().to_owned(),
        };
        Ok((addresses, listener))
    }

    /// Who signs the platform's tokens in a cluster, wherever a node of it listens.
    pub fn issuer_in_cluster(settings: &Settings) -> String {
        match &settings.gateway.public_url {
            Some(public) => public.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://{}", settings.router.base_domain),
        }
    }

    /// Where an app answers.
    pub fn app(&self, name: &str) -> String {
        self.app_template.replace("{app}", name)
    }

    /// The platform's own address, without a slash at its end.
    pub fn platform(&self) -> &str {
        self.public.as_str().trim_end_matches('/')
    }
}

/// An address of this machine for one that stands for all of them.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

fn url(text: &str) -> Result<Url> {
    Url::parse(text).context(|| format!("understand {text}"))
}
