//! What a message is read from: fields from path, query and headers, which are texts, and those of a JSON body.
//!
//! One deserializer reads them all, so that the code that reads a message is compiled once, and every error names its
//! field.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};

use super::{
    Error, Fields, UNSTORABLE_SENTENCE,
    error::{Path, unexpected},
    is_storable, json, shortened,
};
use crate::problem::Problem;

/// The fields of a message, in order.
pub(crate) struct Input<'a>(Vec<(Cow<'a, str>, Given<'a>)>);

/// A value as it came.
enum Given<'a> {
    Text(Cow<'a, str>),
    Json(Value),
}

impl<'a> Input<'a> {
    /// Every field is in `fields`.
    pub(crate) fn of(fields: Fields<'a>) -> Self {
        Self(fields.into_iter().map(|(name, text)| (Cow::Borrowed(name), Given::Text(text))).collect())
    }

    /// Some are in `fields` and the rest in a JSON body; an empty body is an empty object.
    pub(crate) fn with_body(fields: Fields<'a>, body: &[u8]) -> Result<Self, Problem> {
        let mut input = Self::of(fields);
        if !body.iter().all(u8::is_ascii_whitespace) {
            let object = match json::parse(body).map_err(Problem::invalid)? {
                Value::Object(object) => object,
                other => {
                    let got = unexpected(&other);
                    return Err(Problem::invalid(format!("the body is refused: {got}, expected a JSON object")));
                }
            };
            input.add(object).map_err(|error| Problem::invalid(error.to_string()))?;
        }
        Ok(input)
    }

    /// A field of the path or of a header can't be said a second time, otherwise, in the body.
    fn add(&mut self, object: Map<String, Value>) -> Result<(), Error> {
        if let Some(name) =
            object.keys().find(|name| *name == "if_match" || self.0.iter().any(|(other, _)| other == *name))
        {
            return Err(de::Error::custom(format_args!("unknown field `{name}`: it does not belong in the body")));
        }
        self.0.extend(object.into_iter().map(|(name, value)| (Cow::Owned(name), Given::Json(value))));
        Ok(())
    }

    /// The message, or what does not fit.
    pub(crate) fn read<M: DeserializeOwned>(self) -> Result<M, Error> {
        M::deserialize(Root(self.0))
    }
}

/// The message itself: whatever it is, it has fields.
struct Root<'a>(Vec<(Cow<'a, str>, Given<'a>)>);

impl<'de> Deserializer<'de> for Root<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { path: &Path::Root, entries: self.0.into_iter(), next: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The fields of a message, or of an object in it.
struct Entries<'p, 'a> {
    path: &'p Path<'p>,
    entries: std::vec::IntoIter<(Cow<'a, str>, Given<'a>)>,
    next: Option<(Cow<'a, str>, Given<'a>)>,
}

impl<'p> Entries<'p, 'static> {
    fn of(path: &'p Path<'p>, object: Map<String, Value>) -> Self {
        let entries: Vec<_> = object.into_iter().map(|(name, value)| (Cow::Owned(name), Given::Json(value))).collect();
        Self { path, entries: entries.into_iter(), next: None }
    }
}

impl Entries<'_, '_> {
    /// Goes on to the next field; its name.
    fn advance(&mut self) -> Option<de::value::StrDeserializer<'_, Error>> {
        self.next = self.entries.next();
        self.next.as_ref().map(|(name, _)| name.as_ref().into_deserializer())
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.advance() else { return Ok(None) };
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, value)) = self.next.take() else { return Err(de::Error::custom("a value without its name")) };
        let path = Path::Field(self.path, &name);
        match value {
            Given::Text(text) if !is_storable(&text) => Err(Error::at(de::Error::custom(UNSTORABLE_SENTENCE), &path)),
            value => seed.deserialize(Node { path: &path, value }),
        }
    }
}

struct Items<'p> {
    path: &'p Path<'p>,
    items: std::iter::Enumerate<std::vec::IntoIter<Value>>,
}

impl Items<'_> {
    /// Nothing may be left.
    fn end(self) -> Result<(), Error> {
        match self.items.len() {
            0 => Ok(()),
            left => Err(Error::at(de::Error::custom(format_args!("{left} items too many")), self.path)),
        }
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        seed.deserialize(Node { path: &Path::Item(self.path, index), value: Given::Json(item) }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A value, as whatever the field wants.
struct Node<'p, 'a> {
    path: &'p Path<'p>,
    value: Given<'a>,
}

impl Node<'_, '_> {
    /// A text as what it stands for; what is no text stays what it is.
    fn parsed(self, parse: fn(&str) -> Option<Value>, wanted: &str) -> Result<Self, Error> {
        let Given::Text(text) = &self.value else { return Ok(self) };
        match parse(text) {
            Some(value) => Ok(Self { value: Given::Json(value), ..self }),
            None => Err(self.error(format_args!("{:?} is not {wanted}", shortened(text)))),
        }
    }

    /// Visitors of structs and ids take an array, too, which no description tells of.
    fn unless_array(self, wanted: &dyn Expected) -> Result<Self, Error> {
        match self.value {
            Given::Json(Value::Array(_)) => Err(Error::at(de::Error::invalid_type(Unexpected::Seq, wanted), self.path)),
            _ => Ok(self),
        }
    }

    fn error(&self, message: fmt::Arguments<'_>) -> Error {
        Error::at(de::Error::custom(message), self.path)
    }
}

fn truth(text: &str) -> Option<Value> {
    text.parse::<bool>().ok().map(Value::from)
}

/// A number has no `+` before it.
fn plain(text: &str) -> Option<&str> {
    (!text.starts_with('+')).then_some(text)
}

fn signed(text: &str) -> Option<Value> {
    plain(text)?.parse::<i64>().ok().map(Value::from)
}

fn unsigned(text: &str) -> Option<Value> {
    plain(text)?.parse::<u64>().ok().map(Value::from)
}

fn number(text: &str) -> Option<Value> {
    text.parse::<f64>().ok().map(Value::from)
}

macro_rules! parsed {
    ($($method:ident $parse:ident $wanted:literal),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.parsed($parse, $wanted)?.deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_, '_> {
    type Error = Error;

    parsed! {
        deserialize_bool truth "true or false",
        deserialize_i8 signed "a whole number", deserialize_i16 signed "a whole number",
        deserialize_i32 signed "a whole number", deserialize_i64 signed "a whole number",
        deserialize_u8 unsigned "a whole number, 0 or more", deserialize_u16 unsigned "a whole number, 0 or more",
        deserialize_u32 unsigned "a whole number, 0 or more", deserialize_u64 unsigned "a whole number, 0 or more",
        deserialize_f32 number "a number", deserialize_f64 number "a number"
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let path = self.path;
        let read = match self.value {
            Given::Text(Cow::Borrowed(text)) => visitor.visit_str(text),
            Given::Text(Cow::Owned(text)) | Given::Json(Value::String(text)) => visitor.visit_string(text),
            Given::Json(Value::Null) => visitor.visit_unit(),
            Given::Json(Value::Bool(value)) => visitor.visit_bool(value),
            Given::Json(Value::Number(number)) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Given::Json(Value::Array(items)) => {
                let mut items = Items { path, items: items.into_iter().enumerate() };
                let value = visitor.visit_seq(&mut items).map_err(|error| error.at(path))?;
                return items.end().map(|()| value);
            }
            Given::Json(Value::Object(object)) => visitor.visit_map(Entries::of(path, object)),
        };
        read.map_err(|error| error.at(path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Given::Json(Value::Null) = self.value { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        let path = self.path;
        visitor.visit_newtype_struct(self).map_err(|error| error.at(path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let path = self.path;
        visitor.visit_enum(self.variant(variants)?).map_err(|error| error.at(path))
    }

    /// An object by its names, and never by their order, as an array.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.unless_array(&visitor)?.deserialize_any(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.unless_array(&visitor)?.deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    /// Asked for only when the message has no such field.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::unknown(self.path, matches!(self.value, Given::Text(_))))
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

impl<'p> Node<'p, '_> {
    /// A variant by its name, or an object of one field, which has its name and holds its content.
    fn variant(self, variants: &[&str]) -> Result<Variant<'p>, Error> {
        let (name, content) = match self.value {
            Given::Text(text) => (text.into_owned(), None),
            Given::Json(Value::String(text)) => (text, None),
            Given::Json(Value::Object(object)) if object.len() == 1 => {
                let (name, content) = object.into_iter().next().unwrap_or_default();
                (name, Some(content))
            }
            Given::Json(other) => {
                let expected = format_args!("must be {}, or an object of one field with that name", listed(variants));
                let other = Node { path: self.path, value: Given::Json(other) };
                return Err(other.error(expected));
            }
        };
        if !variants.contains(&name.as_str()) {
            let sentence = format!("must be {}", listed(variants));
            return Err(Error::at(de::Error::custom(sentence), self.path));
        }
        Ok(Variant { path: self.path, name, content })
    }
}

fn listed(variants: &[&str]) -> String {
    format!("one of {}", variants.join(", "))
}

struct Variant<'p> {
    path: &'p Path<'p>,
    name: String,
    content: Option<Value>,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'p> {
    type Error = Error;
    type Variant = Content<'p>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'p>), Error> {
        let name: de::value::StrDeserializer<'_, Error> = self.name.as_str().into_deserializer();
        let variant = seed.deserialize(name)?;
        Ok((variant, Content { path: self.path, name: self.name, content: self.content }))
    }
}

/// What a variant holds.
struct Content<'p> {
    path: &'p Path<'p>,
    name: String,
    content: Option<Value>,
}

impl Content<'_> {
    /// What holds something may not come by its name alone.
    fn with<T>(self, read: impl FnOnce(Node<'_, 'static>) -> Result<T, Error>) -> Result<T, Error> {
        let path = Path::Field(self.path, &self.name);
        match self.content {
            Some(value) => read(Node { path: &path, value: Given::Json(value) }),
            None => Err(Error::at(de::Error::custom("its content is missing"), &path)),
        }
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            None => Ok(()),
            Some(other) => Err(de::Error::custom(format_args!("{} where nothing belongs", unexpected(&other)))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.with(|node| seed.deserialize(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.with(|node| node.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.with(|node| node.deserialize_struct("", names, visitor))
    }
}

#[cfg(test)]
mod tests {
    use callboard_messages::{
        Limit,
        cluster::HoldBreaker,
        deploy::{CreateDeployment, GetLogs, Scale},
        project::{CreateProject, GetProject, ListProjects, UpdateProject},
    };
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    fn texts<M: DeserializeOwned>(fields: &[(&str, &str)]) -> Result<M, String> {
        let fields = fields.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
        Input::of(fields).read().map_err(|error| error.to_string())
    }

    fn message<M: DeserializeOwned>(fields: &[(&str, &str)], body: &str) -> Result<M, String> {
        let fields = fields.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
        let input = Input::with_body(fields, body.as_bytes()).map_err(|problem| problem.detail.into_owned())?;
        input.read().map_err(|error| error.to_string())
    }

    #[test]
    fn texts_become_what_the_fields_are() {
        let id = Uuid::now_v7();
        let logs: GetLogs = texts(&[("project_id", &id.to_string()), ("after", "7"), ("limit", "3")]).unwrap();
        assert_eq!((logs.project_id.0, logs.after, logs.limit), (id, Some(7), Some(3)));
        let list: ListProjects = texts(&[("name", "12")]).unwrap();
        assert_eq!((list.name.as_deref(), list.limit), (Some("12"), Limit::default()));
        assert_eq!(texts::<ListProjects>(&[("limit", "3")]).map(|list| list.limit), Ok(Limit::of(3)));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let id = Uuid::now_v7().to_string();
        let error = |fields: &[(&str, &str)]| texts::<GetLogs>(fields).unwrap_err();
        assert!(error(&[("project_id", "7")]).starts_with("`project_id`: "));
        assert_eq!(error(&[("project_id", &id), ("after", "-1")]), "`after`: \"-1\" is not a whole number, 0 or more");
        assert_eq!(error(&[("project_id", &id), ("admin", "1")]), "unknown parameter `admin`");
        assert_eq!(error(&[("project_id", &id), ("limit", "1"), ("limit", "2")]), "duplicate field `limit`");
        assert_eq!(error(&[]), "missing field `project_id`");
        assert!(texts::<GetProject>(&[("project_id", &"9".repeat(10_000))]).unwrap_err().len() < 300);
    }

    #[test]
    fn a_text_that_no_engine_stores_is_refused_with_its_name() {
        let error = texts::<ListProjects>(&[("name", "a\0")]).unwrap_err();
        assert!(error.starts_with("`name`: ") && error.contains("U+0000"), "{error}");
        assert!(texts::<ListProjects>(&[("nobody", "\0")]).is_err());
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
        let message: Message = texts(&[("kind", "very_small"), ("loud", "true")]).unwrap();
        assert_eq!((message.kind, message.loud), (Kind::VerySmall, true));
        assert_eq!(texts::<Message>(&[("kind", "tiny")]).unwrap_err(), "`kind`: must be one of big, very_small");
        assert_eq!(Kind::Big, Kind::Big);
    }

    #[test]
    fn path_header_and_body_become_one_message() {
        let id = Uuid::now_v7();
        let fields = [("project_id", id.to_string()), ("if_match", "4".to_owned())];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let update: UpdateProject = message(&fields, r#"{"description":"new"}"#).unwrap();
        assert_eq!((update.project_id.0, update.if_match), (id, Some(4)));
        assert_eq!(update.description.as_deref(), Some("new"));
        let source_id = Uuid::now_v7();
        let body = format!(r#"{{"source":{{"archive":{{"source_id":"{source_id}"}}}}}}"#);
        assert!(message::<CreateDeployment>(&[("project_id", &id.to_string())], &body).is_ok());
    }

    #[test]
    fn every_bad_body_is_told_apart() {
        let error = |body: &str| message::<CreateProject>(&[], body).unwrap_err();
        assert_eq!(error(r#"{"name":"a","admin":true}"#), "unknown field `admin`");
        assert_eq!(error(r#"{"name":7}"#), "`name`: invalid type: integer `7`, expected a string");
        assert!(error("{\n\"name\":\"a\",\n}").contains("line 3 column 1"));
        let id = Uuid::now_v7().to_string();
        let scale =
            |web: &str| message::<Scale>(&[("project_id", &id)], &format!(r#"{{"processes":{{"web":{web}}}}}"#));
        let wanted = "expected a whole number from 0 to 4294967295";
        assert_eq!(scale("[1]").unwrap_err(), format!("`processes.web`: invalid type: an array, {wanted}"));
        assert_eq!(
            scale("4294967296").unwrap_err(),
            format!("`processes.web`: invalid value: integer `4294967296`, {wanted}")
        );
        assert!(error(r#"{"name":"a"} x"#).contains("trailing characters"));
        assert!(error(r#"{"name":"a","name":"b"}"#).contains("duplicate key `name`"));
        assert!(error(r#"["a"]"#).contains("expected a JSON object"));
        assert!(error(r#"{"description":"x"}"#).contains("missing field `name`"));
        assert!(error(&format!(r#"{{"name":{}1{}}}"#, "[".repeat(50), "]".repeat(50))).contains("32 levels"));
        assert!(error(&"[".repeat(10_000)).starts_with("the body is "));
        assert!(error(&format!(r#"{{"name":[{}1]}}"#, "1,".repeat(20_000))).contains("16384 values"));
        assert!(error("{\"name\":\"\u{0}\"}").starts_with("the body is not JSON"));
        assert!(Input::with_body(Vec::new(), b"{\"name\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_text_or_a_key_that_no_engine_stores_is_refused_wherever_it_stands() {
        let bodies = [
            r#"{"name":"a\u0000b"}"#,
            r#"{"name":"a","description":"\u0000"}"#,
            r#"{"name":"a","x\u0000":1}"#,
            r#"{"name":"a","config":{"deep":[1,["\u0000"]]}}"#,
            r#"{"name":"a","config":{"deep":{"\u0000":null}}}"#,
        ];
        for body in bodies {
            let error = message::<CreateProject>(&[], body).unwrap_err();
            assert!(error.starts_with("the body is refused") && error.contains("U+0000"), "{body}: {error}");
        }
        assert!(message::<CreateProject>(&[], r#"{"name":"a\\u0000b"}"#).is_ok(), "a backslash and a zero are no NUL");
    }

    #[test]
    fn an_array_is_neither_a_struct_nor_an_id_and_nothing_of_it_is_left_over() {
        let id = Uuid::now_v7().to_string();
        let deploy =
            |source: &str| message::<CreateDeployment>(&[("project_id", &id)], &format!(r#"{{"source":{source}}}"#));
        for source in [
            r#"{"git":["https://example.com/a.git","main"]}"#,
            r#"{"archive":{"source_id":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}}"#,
            r#"{"archive":[]}"#,
        ] {
            let error = deploy(source).unwrap_err();
            assert!(error.contains("`source.") && error.contains("an array"), "{source}: {error}");
        }
        assert!(message::<HoldBreaker>(&[("domain", "auth")], r#"{"hold":{"open":null}}"#).is_err());

        #[derive(Debug, Deserialize)]
        struct Pair {
            pair: (u8, u8),
        }
        assert_eq!(message::<Pair>(&[], r#"{"pair":[1,2]}"#).unwrap().pair, (1, 2));
        assert_eq!(message::<Pair>(&[], r#"{"pair":[1,2,3]}"#).unwrap_err(), "`pair`: 1 items too many");
    }

    #[test]
    fn a_nested_unknown_field_and_a_doubled_key_of_a_map_are_refused() {
        let id = Uuid::now_v7().to_string();
        let body = r#"{"source":{"git":{"url":"https://example.com/a.git","shell":"sh"}}}"#;
        let error = message::<CreateDeployment>(&[("project_id", &id)], body).unwrap_err();
        assert!(error.contains("source") && error.contains("shell"), "{error}");
        let error = message::<Scale>(&[("project_id", &id)], r#"{"processes":{"web":1,"web":9}}"#).unwrap_err();
        assert!(error.contains("duplicate key `web`"), "{error}");
    }

    #[test]
    fn a_body_can_t_say_what_the_path_and_the_headers_say() {
        let (id, other) = (Uuid::now_v7().to_string(), Uuid::now_v7());
        for body in [format!(r#"{{"project_id":"{other}"}}"#), r#"{"if_match":9}"#.to_owned()] {
            let error = message::<UpdateProject>(&[("project_id", &id)], &body).unwrap_err();
            assert!(error.starts_with("unknown field"), "{error}");
        }
    }
}
