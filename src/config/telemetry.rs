//! What a node tells of itself: its log, and traces.

use url::Url;

use super::{reader::Reader, value::Value};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people at a terminal.
    Pretty,
    /// One JSON document a line, for what gathers logs.
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("json or pretty".to_owned()),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
        .to_owned()
    }
}

/// The log, and traces.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// `CALLBOARD_LOG_FORMAT`: as the mode has it unless set.
    pub format: Option<LogFormat>,
    /// `CALLBOARD_OTLP_ENDPOINT`: where traces go, if anywhere.
    pub otlp_endpoint: Option<Url>,
}

impl TelemetrySettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let settings = Self {
            format: reader.value(
                "CALLBOARD_LOG_FORMAT",
                "How the log is written: json or pretty; pretty in dev and json in serve when not set.",
                None,
            ),
            otlp_endpoint: reader.value_or_standard(
                "CALLBOARD_OTLP_ENDPOINT",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "A collector of traces that speaks OTLP over HTTP, such as http://127.0.0.1:4318; OTEL_EXPORTER_OTLP_ENDPOINT when not set, and without either there are no traces.",
                None,
            ),
        };
        let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host().is_some();
        reader.require(settings.otlp_endpoint.as_ref().is_none_or(is_web), || {
            "CALLBOARD_OTLP_ENDPOINT must begin with http:// or https://".to_owned()
        });
        settings
    }
}
