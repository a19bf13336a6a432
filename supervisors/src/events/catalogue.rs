//! Subscriptions of all domains, on whichever node.

use std::sync::Arc;

/// A domain and the types of the events it reacts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The domain.
    pub domain: &'static str,
    /// [`Event::NAME`](super::Event::NAME) of each.
    pub types: Vec<&'static str>,
}

/// Every subscription of the platform: every node knows every contract. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue(Arc<[Subscription]>);

impl Catalogue {
    pub(crate) fn new(subscriptions: impl IntoIterator<Item = Subscription>) -> Self {
        Self(subscriptions.into_iter().filter(|subscription| !subscription.types.is_empty()).collect())
    }

    /// Each domain that reacts to anything.
    #[must_use]
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.0
    }

    /// The domains that react to events of this type.
    pub fn subscribers<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'static str> + 'a {
        self.0.iter().filter(move |subscription| subscription.types.contains(&kind)).map(|of| of.domain)
    }

    /// Whether no domain reacts to events of this type.
    #[must_use]
    pub fn is_unheard(&self, kind: &str) -> bool {
        self.subscribers(kind).next().is_none()
    }
}
