//! What the API's description says of texts and maps whose Rust type does not say it: shapes to refer to, never values.

use std::collections::BTreeMap;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{AdditionalProperties, Object, ObjectBuilder, Schema, SchemaType, Type},
    },
};

use crate::project::VERSIONED_LANGUAGES;

/// What a person reads: a sentence, with the last words of a program where there are any.
pub const SENTENCE_LONGEST: usize = 16_384;

/// `noun:verb`, all of one noun (`noun:*`), a verb of every noun (`*:read`), or all there is (`*`).
#[derive(ToSchema)]
#[schema(max_length = 81, pattern = r"^(\*|(\*|[a-z_]{1,40}):(\*|[a-z_]{1,40}))$")]
pub struct Permission(pub String);

/// The same, or with a `-` before it what is not held, whatever else is there.
#[derive(ToSchema)]
#[schema(max_length = 82, pattern = r"^-?(\*|(\*|[a-z_]{1,40}):(\*|[a-z_]{1,40}))$")]
pub struct HeldPermission(pub String);

/// Permissions.
#[derive(ToSchema)]
#[schema(value_type = Vec<HeldPermission>, max_items = 100)]
pub struct Permissions(pub Vec<HeldPermission>);

/// The name of a domain of the platform.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 64, pattern = "^[a-z_]+$")]
pub struct DomainName(pub String);

/// The name of a process type: `web`, `worker`, ….
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 40, pattern = "^[A-Za-z0-9_-]+$")]
pub struct ProcessType(pub String);

/// The name of an environment variable.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z_][A-Za-z0-9_]*$")]
pub struct VariableName(pub String);

/// How many instances there are of each process type.
pub struct ProcessCounts(pub BTreeMap<String, u32>);

/// The numbers of instances to change, of one process type at least.
pub struct ProcessChanges(pub BTreeMap<String, u32>);

/// The versions of languages that are asked for, by language.
pub struct LanguageVersions(pub BTreeMap<String, String>);

/// The command of each process type.
pub struct ProcessCommands(pub BTreeMap<String, String>);

/// The process types of one app.
const PROCESSES_MOST: usize = 20;

/// A map by process type.
fn by_process(description: &str, least: usize, value: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
    let name = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .max_length(Some(40))
        .pattern(Some("^[A-Za-z0-9_-]+$"));
    Object::builder()
        .description(Some(description))
        .property_names(Some(Schema::from(name)))
        .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
        .min_properties(Some(least))
        .max_properties(Some(PROCESSES_MOST))
        .into()
}

/// How many instances of a process type there can be.
fn count() -> Schema {
    let count = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
    count.minimum(Some(0)).maximum(Some(100)).into()
}

impl PartialSchema for ProcessCounts {
    fn schema() -> RefOr<Schema> {
        by_process("How many instances there are of each process type.", 0, count())
    }
}

impl ToSchema for ProcessCounts {}

impl PartialSchema for ProcessChanges {
    fn schema() -> RefOr<Schema> {
        by_process("How many instances there shall be of these process types.", 1, count())
    }
}

impl ToSchema for ProcessChanges {}

impl PartialSchema for ProcessCommands {
    fn schema() -> RefOr<Schema> {
        let command = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).max_length(Some(4_096)).build();
        by_process("The command of each process type.", 1, Schema::from(command))
    }
}

impl ToSchema for ProcessCommands {}

impl PartialSchema for LanguageVersions {
    fn schema() -> RefOr<Schema> {
        let text = |most| ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).max_length(Some(most));
        let version = text(64).min_length(Some(1)).build();
        let name = text(16).pattern(Some(format!("^({})$", VERSIONED_LANGUAGES.join("|"))));
        Object::builder()
            .description(Some("The versions of languages that are asked for, by language."))
            .property_names(Some(Schema::from(name)))
            .additional_properties(Some(AdditionalProperties::RefOr(Schema::from(version).into())))
            .max_properties(Some(VERSIONED_LANGUAGES.len()))
            .into()
    }
}

impl ToSchema for LanguageVersions {}
