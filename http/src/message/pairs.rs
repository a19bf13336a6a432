//! Texts into fields: a serde deserializer over names and texts.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor, value::Error},
    forward_to_deserialize_any,
};

use super::{Fields, Reader, UNSTORABLE_SENTENCE, is_storable};

/// Fields with their texts, in order.
pub(crate) struct Pairs<'a> {
    fields: std::vec::IntoIter<(&'a str, Cow<'a, str>)>,
    value: Option<(&'a str, Cow<'a, str>)>,
}

impl<'a> Pairs<'a> {
    pub(crate) fn new(fields: Fields<'a>) -> Self {
        Self { fields: fields.into_iter(), value: None }
    }

    /// Whether a field of this name is still to come or has come: it may not be anywhere else.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.fields.as_slice().iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn next_key<'de, K: DeserializeSeed<'de>, E: de::Error>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, E> {
        let Some((name, value)) = self.fields.next() else { return Ok(None) };
        self.value = Some((name, value));
        // The name outlives the call but not 'de: serde only compares it.
        let name: de::value::StrDeserializer<'_, E> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    /// The value of the key before; `None` when that did not come from here.
    pub(crate) fn next_value<'de, V: DeserializeSeed<'de>, E: de::Error>(
        &mut self,
        seed: V,
    ) -> Result<Result<V::Value, V>, E> {
        match self.value.take() {
            Some((name, text)) if !is_storable(&text) => {
                Err(E::custom(format_args!("`{name}`: {UNSTORABLE_SENTENCE}")))
            }
            Some((name, text)) => seed.deserialize(Text { name, text: &text, error: std::marker::PhantomData }).map(Ok),
            None => Ok(Err(seed)),
        }
    }
}

/// What `read` makes of fields alone.
pub(crate) fn from_pairs<T>(pairs: Pairs<'_>, read: impl Reader<T>) -> Result<T, erased_serde::Error> {
    read(&mut <dyn erased_serde::Deserializer<'_>>::erase(pairs))
}

impl<'de> Deserializer<'de> for Pairs<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Pairs<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next_key(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.next_value(seed)?.map_err(|_| Error::custom("a value without its name"))
    }
}

/// One text, as whatever the field wants.
struct Text<'a, E> {
    name: &'a str,
    text: &'a str,
    error: std::marker::PhantomData<E>,
}

impl<E: de::Error> Text<'_, E> {
    fn parse<T: std::str::FromStr>(&self, wanted: &str) -> Result<T, E> {
        self.text.parse().map_err(|_| self.error(format_args!("{:?} is not {wanted}", shortened(self.text))))
    }

    fn error(&self, message: impl fmt::Display) -> E {
        E::custom(format_args!("`{}`: {message}", self.name))
    }
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(64).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

macro_rules! parsed {
    ($($method:ident $visit:ident $wanted:literal),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
            let value = self.parse($wanted)?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de, E: de::Error> Deserializer<'de> for Text<'_, E> {
    type Error = E;

    parsed! {
        deserialize_bool visit_bool "true or false",
        deserialize_i8 visit_i8 "a whole number", deserialize_i16 visit_i16 "a whole number",
        deserialize_i32 visit_i32 "a whole number", deserialize_i64 visit_i64 "a whole number",
        deserialize_u8 visit_u8 "a whole number", deserialize_u16 visit_u16 "a whole number, 0 or more",
        deserialize_u32 visit_u32 "a whole number, 0 or more", deserialize_u64 visit_u64 "a whole number, 0 or more",
        deserialize_f32 visit_f32 "a number", deserialize_f64 visit_f64 "a number"
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        let (name, text) = (self.name, self.text);
        visitor.visit_str(text).map_err(|error: E| E::custom(format_args!("`{name}`: {error}")))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, E> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, E> {
        if !variants.contains(&self.text) {
            return Err(self.error(format_args!("must be one of {}", variants.join(", "))));
        }
        let text: de::value::StrDeserializer<'_, E> = self.text.into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    /// Asked for only when the message has no such field.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, E> {
        Err(E::custom(format_args!("unknown parameter `{}`", self.name)))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}

#[cfg(test)]
mod tests {
    use callboard_messages::{
        Limit,
        deploy::GetLogs,
        project::{GetProject, ListProjects},
    };
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    fn read<M: de::DeserializeOwned>(fields: &[(&str, &str)]) -> Result<M, String> {
        let fields = fields.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
        from_pairs(Pairs::new(fields), crate::message::read).map_err(|error| error.to_string())
    }

    #[test]
    fn texts_become_what_the_fields_are() {
        let id = Uuid::now_v7();
        let logs: GetLogs = read(&[("project_id", &id.to_string()), ("after", "7"), ("limit", "3")]).unwrap();
        assert_eq!((logs.project_id.0, logs.after, logs.limit), (id, Some(7), Some(3)));
        let list: ListProjects = read(&[("name", "12")]).unwrap();
        assert_eq!((list.name.as_deref(), list.limit), (Some("12"), Limit::default()));
        assert_eq!(read::<ListProjects>(&[("limit", "3")]).map(|list| list.limit), Ok(Limit::of(3)));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let id = Uuid::now_v7().to_string();
        let error = |fields: &[(&str, &str)]| read::<GetLogs>(fields).unwrap_err();
        assert!(error(&[("project_id", "7")]).starts_with("`project_id`: "));
        assert_eq!(error(&[("project_id", &id), ("after", "-1")]), "`after`: \"-1\" is not a whole number, 0 or more");
        assert_eq!(error(&[("project_id", &id), ("admin", "1")]), "unknown parameter `admin`");
        assert_eq!(error(&[("project_id", &id), ("limit", "1"), ("limit", "2")]), "duplicate field `limit`");
        assert_eq!(error(&[]), "missing field `project_id`");
        assert!(read::<GetProject>(&[("project_id", &"9".repeat(10_000))]).unwrap_err().len() < 300);
    }

    #[test]
    fn a_text_that_no_engine_stores_is_refused_with_its_name() {
        let error = read::<ListProjects>(&[("name", "a\0")]).unwrap_err();
        assert!(error.starts_with("`name`: ") && error.contains("U+0000"), "{error}");
        assert!(read::<ListProjects>(&[("nobody", "\0")]).is_err());
    }

    #[test]
    fn a_text_can_name_a_variant() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Kind {
            Big,
            VerySmall,
        }
        #[derive(Debug, Deserialize)]
        struct Message {
            kind: Kind,
            loud: bool,
        }
        let message: Message = read(&[("kind", "very_small"), ("loud", "true")]).unwrap();
        assert_eq!((message.kind, message.loud), (Kind::VerySmall, true));
        assert_eq!(read::<Message>(&[("kind", "tiny")]).unwrap_err(), "`kind`: must be one of big, very_small");
        assert_eq!(Kind::Big, Kind::Big);
    }
}
