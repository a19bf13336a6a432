//! A JSON body, with the fields from elsewhere put before its own.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

use super::{Pairs, Reader, UNSTORABLE_SENTENCE, is_storable};

/// Levels of objects and arrays in each other; no message has more than a handful.
const DEPTH: usize = 32;

/// What `read` makes of `pairs` and the object in `body`; otherwise a sentence that says what is wrong and where.
pub(crate) fn from_json<T>(pairs: Pairs<'_>, body: &[u8], read: impl Reader<T>) -> Result<T, String> {
    let mut scan = serde_json::Deserializer::from_slice(body);
    Strict { depth: 0 }.deserialize(&mut scan).and_then(|()| scan.end()).map_err(|error| {
        if error.is_data() { format!("the body is refused: {error}") } else { format!("the body is not JSON: {error}") }
    })?;

    let mut unknown = None;
    let mut json = serde_json::Deserializer::from_slice(body);
    let merged = Merged { pairs, json: &mut json };
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| path.to_string());
    };
    let noting = serde_ignored::Deserializer::new(merged, &mut note);
    let message = read(&mut <dyn erased_serde::Deserializer<'_>>::erase(noting)).map_err(|error| error.to_string())?;
    match unknown {
        Some(path) => Err(format!("unknown field `{}`", shortened(&path))),
        None => Ok(message),
    }
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(64).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Walks a whole document: no duplicate keys, no deep nesting, no text, and no key, that can't be stored.
struct Strict {
    depth: usize,
}

impl Strict {
    fn below(&self) -> Self {
        Self { depth: self.depth + 1 }
    }

    fn check<E: de::Error>(&self) -> Result<(), E> {
        if self.depth < DEPTH { Ok(()) } else { Err(E::custom(format_args!("more than {DEPTH} levels of nesting"))) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! accept {
    ($($visit:ident $type:ty),*) => {$(
        fn $visit<E: de::Error>(self, _: $type) -> Result<(), E> {
            Ok(())
        }
    )*};
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    accept! { visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64 }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        if is_storable(text) { Ok(()) } else { Err(E::custom(UNSTORABLE_SENTENCE)) }
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.check()?;
        while seq.next_element_seed(self.below())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.check()?;
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if !is_storable(&key.0) {
                return Err(A::Error::custom(UNSTORABLE_SENTENCE));
            }
            if keys.contains(&key.0) {
                return Err(A::Error::custom(format_args!("duplicate key `{}`", shortened(&key.0))));
            }
            keys.insert(key.0);
            map.next_value_seed(self.below())?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of `pairs`, then those of the JSON object.
struct Merged<'a, 'j, R> {
    pairs: Pairs<'a>,
    json: &'j mut serde_json::Deserializer<R>,
}

impl<'de, R: serde_json::de::Read<'de>> Deserializer<'de> for Merged<'_, '_, R> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let elsewhere = self.pairs.names();
        self.json.deserialize_map(Opened { pairs: self.pairs, elsewhere, visitor })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Waits for the JSON object to open.
struct Opened<'a, V> {
    pairs: Pairs<'a>,
    elsewhere: Vec<&'a str>,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Opened<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Chain { pairs: self.pairs, elsewhere: self.elsewhere, map })
    }
}

struct Chain<'a, A> {
    pairs: Pairs<'a>,
    elsewhere: Vec<&'a str>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Chain<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        if !self.pairs.names().is_empty() {
            return self.pairs.next_key(seed);
        }
        let Some(Key(key)) = self.map.next_key()? else { return Ok(None) };
        // A field of the path or of a header can't be said a second time, otherwise, in the body.
        if self.elsewhere.iter().any(|name| *name == key) || key == "if_match" {
            return Err(A::Error::custom(format_args!("unknown field `{key}`: it does not belong in the body")));
        }
        let key: de::value::CowStrDeserializer<'_, A::Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.pairs.next_value(seed)? {
            Ok(value) => Ok(value),
            Err(seed) => self.map.next_value_seed(seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use callboard_messages::{
        deploy::{CreateDeployment, Scale},
        project::{CreateProject, UpdateProject},
    };
    use uuid::Uuid;

    use super::*;

    fn read<M: de::DeserializeOwned>(fields: &[(&str, &str)], body: &str) -> Result<M, String> {
        let fields = fields.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
        from_json(Pairs::new(fields), body.as_bytes(), crate::message::read)
    }

    #[test]
    fn path_header_and_body_become_one_message() {
        let id = Uuid::now_v7();
        let fields = [("project_id", id.to_string()), ("if_match", "4".to_owned())];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let update: UpdateProject = read(&fields, r#"{"description":"new"}"#).unwrap();
        assert_eq!((update.project_id.0, update.if_match), (id, Some(4)));
        assert_eq!(update.description.as_deref(), Some("new"));
        let source_id = Uuid::now_v7();
        let body = format!(r#"{{"source":{{"archive":{{"source_id":"{source_id}"}}}}}}"#);
        assert!(read::<CreateDeployment>(&[("project_id", &id.to_string())], &body).is_ok());
    }

    #[test]
    fn every_bad_body_is_told_apart() {
        let error = |body: &str| read::<CreateProject>(&[], body).unwrap_err();
        assert_eq!(error(r#"{"name":"a","admin":true}"#), "unknown field `admin`");
        assert_eq!(error(r#"{"name":7}"#), "invalid type: integer `7`, expected a string at line 1 column 9");
        assert!(error("{\n\"name\":\"a\",\n}").contains("line 3 column 1"));
        assert!(error(r#"{"name":"a"} x"#).contains("trailing characters"));
        assert!(error(r#"{"name":"a","name":"b"}"#).contains("duplicate key `name`"));
        assert!(error(r#"["a"]"#).contains("expected a JSON object"));
        assert!(error(r#"{"description":"x"}"#).contains("missing field `name`"));
        assert!(error(&format!(r#"{{"name":{}1{}}}"#, "[".repeat(50), "]".repeat(50))).contains("32 levels"));
        assert!(error(&"[".repeat(10_000)).starts_with("the body is "));
        assert!(error("{\"name\":\"\u{0}\"}").starts_with("the body is not JSON"));
        assert!(
            from_json(Pairs::new(Vec::new()), b"{\"name\":\"\xff\"}", crate::message::read::<CreateProject>).is_err()
        );
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
            let error = read::<CreateProject>(&[], body).unwrap_err();
            assert!(error.starts_with("the body is refused") && error.contains("U+0000"), "{body}: {error}");
        }
        assert!(read::<CreateProject>(&[], r#"{"name":"a\\u0000b"}"#).is_ok(), "a backslash and a zero are no NUL");
    }

    #[test]
    fn a_nested_unknown_field_and_a_doubled_key_of_a_map_are_refused() {
        let id = Uuid::now_v7().to_string();
        let body = r#"{"source":{"git":{"url":"https://example.com/a.git","shell":"sh"}}}"#;
        let error = read::<CreateDeployment>(&[("project_id", &id)], body).unwrap_err();
        assert!(error.contains("source") && error.contains("shell"), "{error}");
        let error = read::<Scale>(&[("project_id", &id)], r#"{"processes":{"web":1,"web":9}}"#).unwrap_err();
        assert!(error.contains("duplicate key `web`"), "{error}");
    }

    #[test]
    fn a_body_can_t_say_what_the_path_and_the_headers_say() {
        let (id, other) = (Uuid::now_v7().to_string(), Uuid::now_v7());
        for body in [format!(r#"{{"project_id":"{other}"}}"#), r#"{"if_match":9}"#.to_owned()] {
            let error = read::<UpdateProject>(&[("project_id", &id)], &body).unwrap_err();
            assert!(error.starts_with("unknown field"), "{error}");
        }
    }
}
