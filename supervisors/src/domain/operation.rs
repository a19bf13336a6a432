//! How the state of a shard answers an operation.

use std::{fmt, future::Future};

use callboard_messages::{Access, CallError, Caller, Failure, Operation, Principal, auth::ADMINISTER};

/// What a call ends in: a reply, a refusal or a failure.
pub type Outcome<M> = Result<<M as Operation>::Reply, CallError<<M as Operation>::Error>>;

/// The answer of a domain's state to one operation.
///
/// The future stays on the shard's thread, so it may hold `Rc` and `RefCell`; many run at once, up to the bulkhead's
/// `in_flight`. A panic in it, or [`Failure::Internal`] for a broken invariant, fails this call only; after a panic
/// the state is built anew.
pub trait Handle<M: Operation>: 'static {
    /// Carries the operation out.
    fn handle(&self, caller: &Caller, message: M) -> impl Future<Output = Outcome<M>>;
}

/// Why a shard could not be built: a sentence for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError(String);

impl StartError {
    /// From anything that can say what went wrong.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl From<String> for StartError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for StartError {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

impl From<crate::db::Error> for StartError {
    fn from(error: crate::db::Error) -> Self {
        Self::new(error)
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}

impl<E: fmt::Display> From<CallError<E>> for StartError {
    fn from(error: CallError<E>) -> Self {
        Self::new(error)
    }
}

/// The runtime's own check, before anything else of a call; the domain checks again what only it can know.
#[inline]
pub(crate) fn check_access(access: Access, caller: &Caller) -> Result<(), Failure> {
    let known = caller.principal != Principal::Anonymous;
    match access {
        Access::Public => Ok(()),
        Access::Authenticated if known => Ok(()),
        Access::Personal(_) if known && caller.principal != Principal::ApiKey => Ok(()),
        Access::Permission(permission) | Access::Personal(permission) if known => {
            if caller.scopes.allows(permission) {
                Ok(())
            } else {
                Err(Failure::Forbidden(permission.into()))
            }
        }
        Access::Administrator if known && caller.administrator => Ok(()),
        Access::Administrator if known => Err(Failure::Forbidden(ADMINISTER.into())),
        Access::Authenticated | Access::Permission(_) | Access::Personal(_) | Access::Administrator => {
            Err(Failure::Unauthenticated)
        }
        Access::Internal if caller.principal == Principal::System => Ok(()),
        Access::Internal => Err(Failure::Forbidden("internal".into())),
    }
}
