//! Every component on one page, for who builds pages: there in `dev` only.

use actix_web::HttpResponse;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::{
    chart::{Chart, ChartView, Kind, Marker, Point, Series},
    form::FormView,
    request::PageRequest,
};
use crate::problem::Problem;

#[derive(Serialize)]
struct ComponentsView {
    form: FormView,
    statuses: [&'static str; 12],
    bars: Option<ChartView>,
    lines: Option<ChartView>,
    now: DateTime<Utc>,
}

const STATUSES: [&str; 12] = [
    "running",
    "deploying",
    "degraded",
    "failed",
    "stopped",
    "new",
    "deleting",
    "queued",
    "completed",
    "cancelled",
    "ready",
    "unavailable",
];

pub(crate) async fn components(request: PageRequest) -> Result<HttpResponse, Problem> {
    if !request.worker().shared.development {
        return Err(Problem::not_found());
    }
    let now = request.worker().clock().now();
    let mut form = FormView::filled([("name", "Shop".to_owned()), ("memory", "512".to_owned())]);
    form.errors.insert("name".to_owned(), "the name may hold only a-z, 0-9 and -".to_owned());
    form.error = Some("Nothing was saved: one field needs another value.".to_owned());
    let view = ComponentsView {
        form,
        statuses: STATUSES,
        bars: chart(now, "Time to deploy", Kind::Bars).view(&request),
        lines: chart(now, "Requests", Kind::Line).view(&request),
        now,
    };
    request.render("components.html", &view).await
}

/// A curve that looks like any other day.
fn chart(now: DateTime<Utc>, title: &'static str, kind: Kind) -> Chart {
    let point = |(shift, scale): (f64, f64)| {
        move |hour: i32| Point {
            at: now - TimeDelta::minutes(i64::from(47 - hour) * 30),
            value: (f64::from(hour) / 7.0 + shift).sin().abs() * scale + 2.0,
            label: String::new(),
        }
    };
    let series = |name, shift, scale| Series { name, points: (0..48).map(point((shift, scale))).collect() };
    let mut all = vec![series("from request to end", 0.0, 9.0)];
    if kind == Kind::Line {
        all.push(series("the day before", 1.3, 6.0));
    }
    let markers = vec![Marker { at: now - TimeDelta::hours(9), label: "failed".to_owned() }];
    Chart { title, unit: "s", kind, series: all, markers }
}
