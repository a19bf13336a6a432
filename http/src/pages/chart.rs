//! Charts: SVG that the server draws, styled by the page's own tokens, with a table of the numbers beside it.
//!
//! A chart shows the time between `from` and `to` of the address, in seconds since 1970; zooming is a link with others.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::request::PageRequest;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 140.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 22.0;
/// Lines across the chart.
const STEPS: u32 = 4;

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bars,
    Line,
}

/// What a chart shows.
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What stands behind a number.
    pub(super) unit: &'static str,
    pub(super) kind: Kind,
    pub(super) series: Vec<Series>,
    pub(super) markers: Vec<Marker>,
}

/// Points in the order of their times.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<Point>,
}

pub(super) struct Point {
    pub(super) at: DateTime<Utc>,
    pub(super) value: f64,
    /// What is told of it besides.
    pub(super) label: String,
}

/// A moment that something happened at.
pub(super) struct Marker {
    pub(super) at: DateTime<Utc>,
    pub(super) label: String,
}

/// A chart as the template shows it: numbers for SVG, already placed.
#[derive(Debug, Serialize)]
pub(super) struct ChartView {
    title: &'static str,
    unit: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    bottom: f64,
    top: f64,
    lines: Vec<AxisView>,
    times: Vec<TimeView>,
    series: Vec<SeriesView>,
    markers: Vec<MarkerView>,
    /// What is shown, in seconds since 1970; a script selects another part of it.
    from: i64,
    to: i64,
    zoomed: bool,
    zooms: Vec<ZoomView>,
    /// Where all of it is shown.
    whole: String,
}

#[derive(Debug, Serialize)]
struct AxisView {
    y: f64,
    label: String,
}

#[derive(Debug, Serialize)]
struct TimeView {
    x: f64,
    at: DateTime<Utc>,
    label: String,
    anchor: &'static str,
}

#[derive(Debug, Serialize)]
struct SeriesView {
    name: &'static str,
    bars: bool,
    /// For a line.
    path: String,
    points: Vec<PointView>,
}

#[derive(Debug, Serialize)]
struct PointView {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    at: DateTime<Utc>,
    value: String,
    label: String,
}

#[derive(Debug, Serialize)]
struct MarkerView {
    x: f64,
    at: DateTime<Utc>,
    label: String,
}

/// A link that shows the last part of the time.
#[derive(Debug, Serialize)]
struct ZoomView {
    label: &'static str,
    address: String,
}

/// The spans that the links show, if the chart's time is longer.
const ZOOMS: [(&str, i64); 3] = [("Last hour", 3_600), ("Last day", 86_400), ("Last week", 604_800)];

impl Chart {
    /// The chart for this request's part of the time; nothing without points.
    pub(super) fn view(self, request: &PageRequest) -> Option<ChartView> {
        let seconds =
            |name: &str| -> Option<DateTime<Utc>> { DateTime::from_timestamp(request.query(name)?.parse().ok()?, 0) };
        self.within(seconds("from"), seconds("to"), request.http().path())
    }

    fn within(mut self, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>, path: &str) -> Option<ChartView> {
        let all = || self.series.iter().flat_map(|series| &series.points).map(|point| point.at);
        let (first, last) = (all().min()?, all().max()?);
        let zoomed = from.is_some() || to.is_some();
        let (mut start, mut end) = (from.unwrap_or(first), to.unwrap_or(last));
        if start >= end {
            (start, end) = (start - TimeDelta::minutes(1), start + TimeDelta::minutes(1));
        }
        for series in &mut self.series {
            series.points.retain(|point| (start..=end).contains(&point.at));
        }
        self.markers.retain(|marker| (start..=end).contains(&marker.at));
        let highest = self.series.iter().flat_map(|series| &series.points).map(|point| point.value).fold(0.0, f64::max);
        let scale = Scale { start, end, top: nice(highest) };
        let zooms = ZOOMS
            .iter()
            .filter(|(_, seconds)| (last - first).num_seconds() > *seconds)
            .map(|(label, seconds)| ZoomView {
                label,
                address: format!("{path}?from={}&to={}", last.timestamp() - seconds, last.timestamp() + 1),
            })
            .collect();
        let markers = self.markers.iter();
        Some(ChartView {
            title: self.title,
            unit: self.unit,
            width: WIDTH,
            height: HEIGHT,
            left: LEFT,
            right: WIDTH - RIGHT,
            bottom: HEIGHT - BOTTOM,
            top: TOP,
            lines: scale.lines(),
            times: scale.times(),
            series: self.series.iter().map(|series| scale.series(series, self.kind)).collect(),
            markers: markers
                .map(|marker| MarkerView { x: scale.x(marker.at), at: marker.at, label: marker.label.clone() })
                .collect(),
            from: start.timestamp(),
            to: end.timestamp(),
            zoomed,
            zooms,
            whole: path.to_owned(),
        })
    }
}

/// Where a time and a number are.
struct Scale {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    top: f64,
}

impl Scale {
    fn x(&self, at: DateTime<Utc>) -> f64 {
        let part = |span: TimeDelta| span.num_milliseconds() as f64;
        rounded(LEFT + part(at - self.start) / part(self.end - self.start).max(1.0) * (WIDTH - LEFT - RIGHT))
    }

    fn y(&self, value: f64) -> f64 {
        rounded(HEIGHT - BOTTOM - value / self.top * (HEIGHT - BOTTOM - TOP))
    }

    fn lines(&self) -> Vec<AxisView> {
        let value = |step: u32| self.top * f64::from(step) / f64::from(STEPS);
        (0..=STEPS).map(|step| AxisView { y: self.y(value(step)), label: number(value(step)) }).collect()
    }

    fn times(&self) -> Vec<TimeView> {
        let format = if (self.end - self.start).num_days() >= 2 { "%-d %b %Y" } else { "%-d %b, %H:%M UTC" };
        let time =
            |at: DateTime<Utc>, anchor| TimeView { x: self.x(at), at, label: at.format(format).to_string(), anchor };
        let middle = self.start + (self.end - self.start) / 2;
        vec![time(self.start, "start"), time(middle, "middle"), time(self.end, "end")]
    }

    fn series(&self, series: &Series, kind: Kind) -> SeriesView {
        let floor = HEIGHT - BOTTOM;
        let room = (WIDTH - LEFT - RIGHT) / (series.points.len().max(1) as f64);
        let width = rounded((room * 0.6).clamp(3.0, 18.0));
        let point = |point: &Point| {
            let (x, y) = (self.x(point.at), self.y(point.value));
            PointView {
                x: if kind == Kind::Bars { rounded((x - width / 2.0).clamp(LEFT, WIDTH - RIGHT - width)) } else { x },
                y,
                width,
                height: rounded((floor - y).max(1.0)),
                at: point.at,
                value: number(point.value),
                label: point.label.clone(),
            }
        };
        let points: Vec<PointView> = series.points.iter().map(point).collect();
        let step = |(index, point): (usize, &PointView)| {
            format!("{}{} {}", if index == 0 { "M" } else { "L" }, point.x, point.y)
        };
        let path = if kind == Kind::Line { points.iter().enumerate().map(step).collect() } else { String::new() };
        SeriesView { name: series.name, bars: kind == Kind::Bars, path, points }
    }
}

/// The next number above that reads well on an axis.
fn nice(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let magnitude = 10_f64.powf(highest.log10().floor());
    let part = highest / magnitude;
    let step = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().find(|step| part <= *step).unwrap_or(10.0);
    step * magnitude
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn number(value: f64) -> String {
    let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn chart(kind: Kind) -> Chart {
        let points = [(0, 1.0), (60, 3.5), (120, 2.0)];
        let point = |(minutes, value): (i64, f64)| Point { at: at(minutes), value, label: String::new() };
        Chart {
            title: "t",
            unit: "s",
            kind,
            series: vec![Series { name: "s", points: points.map(point).into() }],
            markers: vec![Marker { at: at(90), label: "failed".to_owned() }],
        }
    }

    #[test]
    fn points_lie_within_the_frame_and_the_highest_below_its_top() {
        for kind in [Kind::Bars, Kind::Line] {
            let view = chart(kind).within(None, None, "/x").unwrap();
            for point in &view.series[0].points {
                assert!(
                    (LEFT..=WIDTH - RIGHT).contains(&point.x) && (TOP..=HEIGHT - BOTTOM).contains(&point.y),
                    "{point:?}"
                );
            }
            assert_eq!(view.lines.last().map(|line| line.label.as_str()), Some("4"));
            assert_eq!(view.series[0].path.is_empty(), kind == Kind::Bars);
            assert_eq!((view.zoomed, view.zooms.len()), (false, 1), "longer than an hour");
        }
    }

    #[test]
    fn a_zoom_shows_the_points_of_its_time() {
        let view = chart(Kind::Line).within(Some(at(30)), Some(at(100)), "/x").unwrap();
        let shown: Vec<&str> = view.series[0].points.iter().map(|point| point.value.as_str()).collect();
        assert_eq!((shown, view.markers.len(), view.zoomed), (vec!["3.5"], 1, true));
        assert!(chart(Kind::Line).within(Some(at(500)), Some(at(600)), "/x").unwrap().series[0].points.is_empty());
    }

    #[test]
    fn an_axis_ends_at_a_number_that_reads_well() {
        for (highest, top) in [(0.0, 1.0), (0.7, 0.8), (3.5, 4.0), (17.0, 20.0), (99.0, 100.0), (1_001.0, 2_000.0)] {
            assert!((nice(highest) - top).abs() < 1e-9, "{highest}: {}", nice(highest));
        }
        assert_eq!((number(4.0), number(0.25), number(1200.0)), ("4".into(), "0.25".into(), "1200".into()));
    }
}
