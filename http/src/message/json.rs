//! A JSON body, read more strictly than JSON is: no duplicate keys, no deep nesting, no text that can't be stored.

use std::{cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, map::Entry};

use super::{UNSTORABLE_SENTENCE, is_storable, shortened};

/// Levels of objects and arrays in each other; no message has more than a handful.
const DEPTH: usize = 32;
/// Values in a document: each takes many times the memory of the two bytes that it may be written in.
const VALUES: usize = 16_384;

/// The document in `body`; otherwise a sentence that says what is wrong and where.
pub(crate) fn parse(body: &[u8]) -> Result<Value, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = Strict { depth: 0, left: &Cell::new(VALUES) }
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value));
    parsed.map_err(|error| {
        if error.is_data() { format!("the body is refused: {error}") } else { format!("the body is not JSON: {error}") }
    })
}

/// A value at some depth of a document.
struct Strict<'d> {
    depth: usize,
    /// How many values the document may still have.
    left: &'d Cell<usize>,
}

impl Strict<'_> {
    /// For a value inside this one.
    fn below<E: de::Error>(&self) -> Result<Self, E> {
        if self.depth == DEPTH {
            return Err(E::custom(format_args!("more than {DEPTH} levels of nesting")));
        }
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(E::custom(format_args!("more than {VALUES} values"))),
        }
        Ok(Self { depth: self.depth + 1, left: self.left })
    }
}

fn stored<E: de::Error>(text: String) -> Result<String, E> {
    if is_storable(&text) { Ok(text) } else { Err(E::custom(UNSTORABLE_SENTENCE)) }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! accept {
    ($($visit:ident $type:ty),*) => {$(
        fn $visit<E: de::Error>(self, value: $type) -> Result<Value, E> {
            Ok(value.into())
        }
    )*};
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    accept! { visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64 }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        stored(text).map(Value::String)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.below()?)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match object.entry(stored::<A::Error>(key)?) {
                Entry::Vacant(place) => place.insert(map.next_value_seed(self.below()?)?),
                Entry::Occupied(other) => {
                    let key = shortened(other.key());
                    return Err(de::Error::custom(format_args!("duplicate key `{key}`")));
                }
            };
        }
        Ok(Value::Object(object))
    }
}
