//! What an event is, and how it travels.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::ids::OrganizationId;

/// A fact, in the past tense, such as `project.created`.
pub trait Event: Serialize + DeserializeOwned + Send + 'static {
    /// `<noun>.<past participle>`. It is written nowhere else.
    const NAME: &'static str;

    /// What the fact is about. Events of one aggregate reach each subscriber in the order in which they became true.
    fn aggregate(&self) -> Uuid;

    /// The tenant it concerns, if it concerns one.
    fn organization(&self) -> Option<OrganizationId> {
        None
    }
}

/// What an event is called, the field that says what it is about, and the one that says whose it is, if it is a tenant's.
macro_rules! event {
    ($event:ty = $name:literal, about $($about:tt).+ $(, of $($of:tt).+)?) => {
        impl $crate::Event for $event {
            const NAME: &'static str = $name;
            fn aggregate(&self) -> uuid::Uuid {
                self.$($about).+.0
            }
            $(fn organization(&self) -> Option<$crate::OrganizationId> {
                Some(self.$($of).+)
            })?
        }
    };
}

/// Events of one shape: the fact, under a name of its own. What it tells is of a project, and keeps its order there.
macro_rules! events_of_projects {
    ($($(#[$doc:meta])* $event:ident($fact:ty) = $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $event(pub $fact);

        $crate::event::event!($event = $name, about 0.project_id, of 0.organization_id);
    )*};
}

pub(crate) use {event, events_of_projects};

/// An event on its way: [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) in its
/// JSON form. Attributes it does not know are ignored, so that two versions understand each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// `1.0`.
    pub specversion: String,
    /// The event's own id: whoever has applied it once does not apply it again.
    pub id: Uuid,
    /// The domain whose fact it is.
    pub source: String,
    /// [`Event::NAME`].
    #[serde(rename = "type")]
    pub kind: String,
    /// [`Event::aggregate`].
    pub subject: Uuid,
    /// When it became true, in UTC.
    pub time: DateTime<Utc>,
    /// `application/json`.
    #[serde(default = "json")]
    pub datacontenttype: String,
    /// The event itself.
    pub data: Value,
    /// The request that led to it.
    #[serde(default, skip_serializing_if = "Uuid::is_nil")]
    pub correlationid: Uuid,
    /// [`Event::organization`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organizationid: Option<OrganizationId>,
    /// The trace it belongs to, as W3C Trace Context writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

fn json() -> String {
    "application/json".to_owned()
}

impl CloudEvent {
    /// The one version of the specification that is spoken here.
    pub const VERSION: &'static str = "1.0";

    /// `event` as a fact of the domain `source`, true at `time`.
    ///
    /// # Errors
    /// When the event can't be written as JSON.
    pub fn new<E: Event>(source: &str, time: DateTime<Utc>, event: &E) -> Result<Self, serde_json::Error> {
        Ok(Self {
            specversion: Self::VERSION.to_owned(),
            id: Uuid::now_v7(),
            source: source.to_owned(),
            kind: E::NAME.to_owned(),
            subject: event.aggregate(),
            time,
            datacontenttype: json(),
            data: serde_json::to_value(event)?,
            correlationid: Uuid::nil(),
            organizationid: event.organization(),
            traceparent: None,
        })
    }

    /// The event itself.
    ///
    /// # Errors
    /// A sentence, when it is another event, of another version, or no such event at all.
    pub fn read<E: Event>(&self) -> Result<E, String> {
        if self.specversion != Self::VERSION {
            return Err(format!("CloudEvents {} is not spoken here", self.specversion));
        }
        if self.kind != E::NAME {
            return Err(format!("{} is not {}", self.kind, E::NAME));
        }
        E::deserialize(&self.data).map_err(|error| format!("this is no {}: {error}", E::NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Moved {
        what: Uuid,
        to: String,
        #[serde(default)]
        from: Option<String>,
    }

    impl Event for Moved {
        const NAME: &'static str = "thing.moved";
        fn aggregate(&self) -> Uuid {
            self.what
        }
    }

    fn moved() -> Moved {
        Moved { what: Uuid::now_v7(), to: "there".to_owned(), from: None }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let event = CloudEvent::new("sample", DateTime::UNIX_EPOCH, &moved()).unwrap();
        let wire = serde_json::to_value(&event).unwrap();
        for (attribute, value) in [("specversion", "1.0"), ("type", "thing.moved"), ("source", "sample")] {
            assert_eq!(wire[attribute], value);
        }
        assert_eq!(wire["time"], "1970-01-01T00:00:00Z");
        let back: CloudEvent = serde_json::from_value(wire).unwrap();
        assert_eq!(back, event);
        assert_eq!(back.read::<Moved>().unwrap().what, event.subject);
    }

    #[test]
    fn unknown_attributes_pass_and_another_event_does_not() {
        let mut wire =
            serde_json::to_value(CloudEvent::new("sample", DateTime::UNIX_EPOCH, &moved()).unwrap()).unwrap();
        wire["ofalaterversion"] = 1.into();
        wire["data"]["of_a_later_version"] = 1.into();
        let mut event: CloudEvent = serde_json::from_value(wire).unwrap();
        assert!(event.read::<Moved>().is_ok());
        event.data = serde_json::json!({ "to": 1 });
        assert!(event.read::<Moved>().unwrap_err().starts_with("this is no thing.moved"));
        event.kind = "thing.lost".to_owned();
        assert!(event.read::<Moved>().is_err());
        event.specversion = "2.0".to_owned();
        assert!(event.read::<Moved>().unwrap_err().contains("2.0"));
    }
}
