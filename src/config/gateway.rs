//! The gateway and the router: what listens, and for whom.

use std::time::Duration;

use callboard_http::{GatewaySettings, Rate, RateLimits, router};
use ipnet::IpNet;

use super::{
    reader::Reader,
    value::{Size, Text},
};

/// Both, because they share the port and the trusted proxies.
pub fn read(reader: &mut Reader) -> (GatewaySettings, router::Settings) {
    let defaults = GatewaySettings::default();
    let proxies: Vec<Text<IpNet>> = reader.value(
        "CALLBOARD_TRUSTED_PROXIES",
        "Networks, such as 10.0.0.0/8, whose X-Forwarded-For, X-Forwarded-Proto and X-Request-Id are believed.",
        Vec::new(),
    );
    let trusted_proxies: Vec<IpNet> = proxies.into_iter().map(|Text(network)| network).collect();
    let Size(json_limit) = reader.within(
        "CALLBOARD_JSON_LIMIT",
        "The largest JSON body.",
        Size(defaults.json_limit as u64),
        Size(1024)..=Size::mib(64),
    );
    let Size(upload_limit) = reader.within(
        "CALLBOARD_UPLOAD_LIMIT",
        "The largest uploaded source.",
        Size(defaults.upload_limit),
        Size(1024)..=Size::mib(64 * 1024),
    );
    let Size(body_rate) = reader.within(
        "CALLBOARD_BODY_RATE",
        "For each so many bytes of an upload, or of a body for an app, a second is added to CALLBOARD_BODY_TIMEOUT.",
        Size(defaults.body_rate),
        Size(1)..=Size::mib(1024),
    );
    let gateway = GatewaySettings {
        listen: reader.value("CALLBOARD_LISTEN", "Where the node listens; port 0 takes a free one.", defaults.listen),
        workers: reader.within("CALLBOARD_WORKERS", "Worker threads; 0 is one for each core.", 0, 0..=1024),
        public_url: reader.value(
            "CALLBOARD_PUBLIC_URL",
            "How browsers and programs reach the platform, as discovery tells them; with https, cookies are Secure.",
            None,
        ),
        trusted_proxies: trusted_proxies.clone(),
        cors_origins: reader.value(
            "CALLBOARD_CORS_ORIGINS",
            "Origins whose scripts may read the API, such as https://console.example.com.",
            Vec::new(),
        ),
        json_limit: usize::try_from(json_limit).unwrap_or(usize::MAX),
        upload_limit,
        body_timeout_seconds: seconds(
            reader,
            "CALLBOARD_BODY_TIMEOUT",
            "How long a JSON body may take to arrive, and an upload or a body for an app may be waited for in all.",
            defaults.body_timeout_seconds,
        ),
        body_rate,
        head_timeout_seconds: seconds(
            reader,
            "CALLBOARD_HEAD_TIMEOUT",
            "How long the head of a request may take to arrive.",
            defaults.head_timeout_seconds,
        ),
        keep_alive_seconds: seconds(
            reader,
            "CALLBOARD_KEEP_ALIVE",
            "How long a connection is kept without a request.",
            defaults.keep_alive_seconds,
        ),
        stream_idle_seconds: reader
            .within(
                "CALLBOARD_STREAM_IDLE_TIMEOUT",
                "How long an answer, a stream or a WebSocket may stand still, no byte going either way, before it is closed.",
                Duration::from_secs(defaults.stream_idle_seconds),
                Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
            )
            .as_secs(),
        rate_limits: rate_limits(reader, &defaults.rate_limits),
        metrics_token: reader.secret(
            "CALLBOARD_METRICS_TOKEN",
            "Who brings it as a bearer token may read /metrics, besides administrators; without one, programs on this machine may.",
        ),
        ..defaults
    };
    let router = router::Settings {
        body_timeout: Duration::from_secs(gateway.body_timeout_seconds),
        body_rate: gateway.body_rate,
        ..router(reader, trusted_proxies)
    };
    for mistake in gateway.validate().err().into_iter().chain(router.validate().err()).flatten() {
        reader.require(false, || mistake);
    }
    (gateway, router)
}

fn seconds(reader: &mut Reader, variable: &'static str, about: &'static str, default: u64) -> u64 {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
    reader.within(variable, about, Duration::from_secs(default), bounds).as_secs()
}

fn rate_limits(reader: &mut Reader, defaults: &RateLimits) -> RateLimits {
    RateLimits {
        enabled: reader.value(
            "CALLBOARD_RATE_LIMITS",
            "Whether requests are limited; off for benchmarks only.",
            defaults.enabled,
        ),
        principal: Rate {
            per_minute: reader.value(
                "CALLBOARD_RATE_PRINCIPAL",
                "Requests a minute of a user or an API key.",
                defaults.principal.per_minute,
            ),
            burst: reader.value(
                "CALLBOARD_RATE_PRINCIPAL_BURST",
                "How many of them may come at once.",
                defaults.principal.burst,
            ),
        },
        address: Rate {
            per_minute: reader.value(
                "CALLBOARD_RATE_ADDRESS",
                "Requests a minute of an address without credentials.",
                defaults.address.per_minute,
            ),
            burst: reader.value(
                "CALLBOARD_RATE_ADDRESS_BURST",
                "How many of them may come at once.",
                defaults.address.burst,
            ),
        },
        sign_in: Rate {
            per_minute: reader.value(
                "CALLBOARD_RATE_SIGN_IN",
                "Requests a minute of an address to what takes passwords and refresh tokens.",
                defaults.sign_in.per_minute,
            ),
            burst: reader.value(
                "CALLBOARD_RATE_SIGN_IN_BURST",
                "How many of them may come at once.",
                defaults.sign_in.burst,
            ),
        },
    }
}

fn router(reader: &mut Reader, trusted_proxies: Vec<IpNet>) -> router::Settings {
    let defaults = router::Settings::default();
    router::Settings {
        base_domain: reader.value("CALLBOARD_BASE_DOMAIN", "Apps answer at <app>.<base domain>.", defaults.base_domain),
        trusted_proxies,
        response_timeout: reader.value(
            "CALLBOARD_RESPONSE_TIMEOUT",
            "How long an app may take to begin its answer.",
            defaults.response_timeout,
        ),
        connect_timeout: reader.value(
            "CALLBOARD_CONNECT_TIMEOUT",
            "How long an app may take to accept a connection.",
            defaults.connect_timeout,
        ),
        idle_timeout: reader.value(
            "CALLBOARD_IDLE_TIMEOUT",
            "How long a connection to an app is kept without use.",
            defaults.idle_timeout,
        ),
        idle_connections: reader.value(
            "CALLBOARD_IDLE_CONNECTIONS",
            "Unused connections kept for each instance and worker thread.",
            defaults.idle_connections,
        ),
        app_requests: reader.value(
            "CALLBOARD_APP_REQUESTS",
            "Requests, streams and WebSockets that one app may have under way on a node; more are answered 503.",
            defaults.app_requests,
        ),
        address_requests: reader.value(
            "CALLBOARD_ADDRESS_REQUESTS",
            "Of these, for all apps together, those of one client address; more are answered 429.",
            defaults.address_requests,
        ),
        ..defaults
    }
}
