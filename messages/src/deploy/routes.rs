//! Where apps are answered, for the routers of all nodes.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::DeployError;
use crate::{Access, Operation};

/// Where every app is answered, for the routers of all nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListRoutes {
    /// The [`AppRoutes::version`] that the caller has: the same routes are not sent twice.
    #[serde(default)]
    pub known: Option<String>,
}

impl Operation for ListRoutes {
    const NAME: &'static str = "deploy.list_routes";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = AppRoutes;
    type Error = DeployError;
}

/// The routes of all apps at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRoutes {
    /// Of their content.
    pub version: String,
    /// Every app, by name; absent when the caller has them already.
    #[serde(default)]
    pub items: Option<Vec<AppRoute>>,
}

/// Which node answers for an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRoute {
    /// Its host name's first part.
    pub app: String,
    /// The node that runs its instances, if one does; with [`RouteState::Moving`] the one that did and is gone.
    #[serde(default)]
    pub node: Option<Uuid>,
    /// What to tell a visitor when nobody answers.
    pub state: RouteState,
}

/// The state of an app as far as its visitors are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// It has a release that should be answering.
    Serving,
    /// Nothing was deployed yet.
    NoRelease,
    /// Its first release is on the way.
    Deploying,
    /// Stopped, scaled to zero, or without a `web` process.
    Stopped,
    /// It has a release, but no instance of it is healthy.
    Unhealthy,
    /// The node that ran it is gone, and another takes it over.
    Moving,
}

impl RouteState {
    /// Why nobody answers, as a sentence for the visitor.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Serving => "None of its instances is ready to take requests.",
            Self::NoRelease => "Nothing has been deployed to it yet.",
            Self::Deploying => "Its first release is being deployed.",
            Self::Stopped => "It has been stopped, scaled to zero instances, or released without a web process.",
            Self::Unhealthy => "Its instances are failing their health checks and are being restarted.",
            Self::Moving => "The node that ran it is gone, and another one takes it over.",
        }
    }
}
