//! The contracts of Callboard: operations, events, views, identifiers and errors, one module per domain.
//!
//! This crate knows neither the runtime nor HTTP nor a database, so that a domain, the gateway and a client
//! share one definition of every message. Adding an operation starts here; see [`Operation`].

pub mod auth;
pub mod caller;
pub mod cluster;
pub mod code;
pub mod deploy;
pub mod event;
pub mod ids;
pub mod live;
pub mod operation;
pub mod organization;
pub mod page;
pub mod project;
pub mod saga;
pub mod secret;
pub mod shapes;

pub use caller::{Caller, Principal, Scopes};
pub use code::{CallError, Code, DomainError, Failure};
pub use deploy::InstanceId;
pub use event::{CloudEvent, Event};
pub use ids::*;
pub use operation::{Access, Operation};
pub use page::{Cursor, Limit, Page};
pub use saga::{SagaDomain, SagaError, SagaStatus, SagaView};
pub use secret::Secret;
