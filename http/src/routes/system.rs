//! Routes of no domain: probes, discovery, documents, live updates and pages.

use callboard_messages::{Access, auth::GetJwks};

use crate::{
    live, pages, system,
    table::{Routes, endpoint},
};

const ANYONE: Access = Access::Public;
const SIGNED_IN: Access = Access::Authenticated;

pub(super) fn api() -> Routes {
    Routes::new(super::API)
        .get("/live", endpoint("live.follow", SIGNED_IN, live::follow).upgrading().documented(live::docs))
        .get(
            "/actors",
            endpoint("system.actors", Access::Administrator, system::actors).documented(system::actors_docs),
        )
        .get("/openapi.json", endpoint("system.openapi", ANYONE, system::openapi))
}

pub(super) fn root() -> Routes {
    Routes::new("")
        .get("/health", endpoint("system.health", ANYONE, system::health).unlimited())
        .get("/ready", endpoint("system.ready", ANYONE, system::ready).unlimited())
        .get("/metrics", endpoint("system.metrics", ANYONE, system::metrics).unlimited())
        .get("/.well-known/jwks.json", endpoint("auth.jwks", ANYONE, system::jwks).asking::<GetJwks>())
        .get("/.well-known/openid-configuration", endpoint("auth.discovery", ANYONE, system::discovery))
        .get("/sign-in", endpoint("pages.sign_in", ANYONE, pages::sign_in_form))
        .post("/sign-in", endpoint("pages.submit_sign_in", ANYONE, pages::sign_in).limited_as_sign_in())
        .post("/sign-out", endpoint("pages.sign_out", ANYONE, pages::sign_out))
        .get("/setup", endpoint("pages.setup", ANYONE, pages::setup_form))
        .post("/setup", endpoint("pages.submit_setup", ANYONE, pages::setup).limited_as_sign_in())
        .get("/signed-in", endpoint("pages.signed_in", ANYONE, pages::signed_in))
        .get("/docs", endpoint("pages.docs", ANYONE, pages::docs))
        .get("/docs/problems", endpoint("pages.problems", ANYONE, pages::problems))
        .get("/assets/{name}", endpoint("pages.asset", ANYONE, pages::asset))
}
