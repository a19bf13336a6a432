//! The documentation of a route, derived from its types.

use callboard_messages::{Code, DomainError, Operation, Page};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

/// The documentation of a route.
pub(crate) struct Docs {
    pub(crate) message: Value,
    pub(crate) reply: Option<Value>,
    pub(crate) schemas: Vec<(String, Value)>,
    /// The media type of the body and of the answer.
    pub(crate) media: (&'static str, &'static str),
    /// Codes of the refusals of the asked domains.
    pub(crate) refusals: Vec<Code>,
}

type Named = Vec<(String, RefOr<Schema>)>;

impl Docs {
    /// For an operation.
    pub(crate) fn of<M: Operation + ToSchema>() -> Self
    where
        M::Reply: ToSchema,
    {
        Self::new(M::schema(), Some::<&dyn Fn(&mut Named)>(&M::schemas), reply::<M::Reply>()).refusing(M::Error::CODES)
    }

    /// For an operation that lists `T`: the derived schema of a page refers to `T` without including it.
    pub(crate) fn of_page<T, M>() -> Self
    where
        T: ToSchema + Serialize + DeserializeOwned + Send + 'static,
        M: Operation<Reply = Page<T>> + ToSchema,
    {
        let mut docs = Self::of::<M>();
        docs.schemas.push((T::name().into_owned(), value(&T::schema())));
        docs
    }

    /// For an operation that answers a list of at most `MOST`.
    pub(crate) fn of_list<T, M, const MOST: usize>() -> Self
    where
        T: ToSchema,
        Vec<T>: ToSchema,
        M: Operation<Reply = Vec<T>> + ToSchema,
    {
        let mut docs = Self::of::<M>();
        docs.schemas.push((T::name().into_owned(), value(&T::schema())));
        if let Some(reply) = docs.reply.as_mut().and_then(Value::as_object_mut) {
            reply.insert("maxItems".to_owned(), json!(MOST));
        }
        docs
    }

    /// For an operation that answers what is in progress, unless it is done.
    pub(crate) fn of_accepted<T, M>() -> Self
    where
        T: ToSchema + 'static,
        M: Operation<Reply = Option<T>> + ToSchema,
    {
        Self::new(M::schema(), Some::<&dyn Fn(&mut Named)>(&M::schemas), reply::<T>()).refusing(M::Error::CODES)
    }

    fn new(message: RefOr<Schema>, more: Option<&dyn Fn(&mut Named)>, reply: (Option<Value>, Named)) -> Self {
        let (reply, mut schemas) = reply;
        if let Some(more) = more {
            more(&mut schemas);
        }
        let schemas = schemas.into_iter().map(|(name, schema)| (name, value(&schema))).collect();
        let media = ("application/json", "application/json");
        Self { message: value(&message), reply, schemas, media, refusals: Vec::new() }
    }

    /// For an endpoint without a message.
    pub(crate) fn saying<R: ToSchema + 'static>(description: &str) -> Self {
        let mut docs = Self::new(RefOr::T(Schema::default()), None, reply::<R>());
        docs.message = json!({"type": "object", "description": description, "properties": {}});
        docs
    }

    /// With other fields in its path, query or body.
    pub(crate) fn with_fields(mut self, fields: Value, required: &[&str]) -> Self {
        if let Some(message) = self.message.as_object_mut() {
            message.insert("properties".to_owned(), fields);
            message.insert("required".to_owned(), json!(required));
        }
        self
    }

    /// For an answer that no type describes.
    pub(crate) fn answering(self, reply: Value) -> Self {
        Self { reply: Some(reply), ..self }
    }

    /// Adds codes that the asked domains may refuse with.
    pub(crate) fn refusing(mut self, codes: &[Code]) -> Self {
        self.refusals.extend_from_slice(codes);
        self
    }

    pub(crate) fn with_media(mut self, body: &'static str, answer: &'static str) -> Self {
        self.media = (body, answer);
        self
    }
}

fn value(schema: &impl serde::Serialize) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// The schema of a reply: by name, unless the type is generic or unit.
fn reply<R: ToSchema + 'static>() -> (Option<Value>, Named) {
    let mut schemas = Named::new();
    if std::any::TypeId::of::<R>() == std::any::TypeId::of::<()>() {
        return (None, schemas);
    }
    R::schemas(&mut schemas);
    if std::any::type_name::<R>().contains('<') {
        return (Some(value(&<R as PartialSchema>::schema())), schemas);
    }
    schemas.push((R::name().into_owned(), R::schema()));
    (Some(reference(&R::name())), schemas)
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
