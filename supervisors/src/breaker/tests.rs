//! The cases of resilience4j's state machine, with our defaults.

use std::time::{Duration, Instant};

use chrono::DateTime;

use super::*;
use crate::testing::Warnings;

const NO_TIME: Duration = Duration::ZERO;

fn settings() -> Settings {
    Settings { jitter: 0.0, ..Settings::default() }
}

fn machine(settings: Settings) -> (Machine, Instant) {
    let now = Instant::now();
    (Machine::new(settings, now), now)
}

fn call(machine: &mut Machine, now: Instant, verdict: Verdict, took: Duration) -> bool {
    let Ok(admission) = machine.admit(now) else { return false };
    machine.record(admission, now, verdict, took);
    true
}

fn calls(machine: &mut Machine, now: Instant, count: usize, verdict: Verdict) {
    for _ in 0..count {
        assert!(call(machine, now, verdict, NO_TIME));
    }
}

fn opened(settings: Settings) -> (Machine, Instant) {
    let (mut machine, now) = machine(settings);
    calls(&mut machine, now, 20, Verdict::Fails);
    assert_eq!(machine.state(), State::Open);
    (machine, now)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn it_opens_at_the_twentieth_call_when_half_of_them_failed() {
    let (mut machine, now) = machine(settings());
    calls(&mut machine, now, 10, Verdict::Works);
    calls(&mut machine, now, 9, Verdict::Fails);
    assert_eq!(machine.state(), State::Closed);
    calls(&mut machine, now, 1, Verdict::Fails);
    assert_eq!(machine.state(), State::Open);
    assert_eq!(machine.admit(now + seconds(1)), Err(seconds(4)));
}

#[test]
fn nineteen_failures_say_nothing_and_forty_nine_per_cent_are_not_enough() {
    let (mut few, now) = machine(settings());
    calls(&mut few, now, 19, Verdict::Fails);
    assert_eq!(few.state(), State::Closed);
    let (mut many, now) = machine(settings());
    calls(&mut many, now, 51, Verdict::Works);
    calls(&mut many, now, 49, Verdict::Fails);
    assert_eq!(many.state(), State::Closed);
}

#[test]
fn refusals_and_calls_that_never_began_do_not_count_against_it() {
    let (mut machine, now) = machine(settings());
    calls(&mut machine, now, 1000, Verdict::Works);
    calls(&mut machine, now, 1000, Verdict::Nothing);
    assert_eq!(machine.state(), State::Closed);
    // Calls that never began do not count for the window.
    calls(&mut machine, now, 49, Verdict::Fails);
    assert_eq!(machine.state(), State::Closed);
    calls(&mut machine, now, 1, Verdict::Fails);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn it_opens_when_four_of_five_calls_are_slow() {
    let (mut machine, now) = machine(settings());
    for n in 0..20 {
        let took = if n < 16 { seconds(2) } else { Duration::from_millis(1999) };
        assert!(call(&mut machine, now, Verdict::Works, took));
        assert_eq!(machine.state() == State::Open, n == 19);
    }
}

#[test]
fn fifteen_slow_calls_of_twenty_are_not_enough() {
    let (mut machine, now) = machine(settings());
    for n in 0..20 {
        assert!(call(&mut machine, now, Verdict::Works, if n < 15 { seconds(2) } else { NO_TIME }));
    }
    assert_eq!(machine.state(), State::Closed);
    // Slow failures count in both rates.
    let (mut both, now) = self::machine(settings());
    for n in 0..20 {
        let verdict = if n < 9 { Verdict::Fails } else { Verdict::Works };
        assert!(call(&mut both, now, verdict, if n < 15 { seconds(2) } else { NO_TIME }));
    }
    assert_eq!(both.state(), State::Closed);
}

#[test]
fn whoever_is_refused_is_told_how_long_to_wait() {
    let (mut machine, now) = opened(settings());
    assert_eq!(machine.admit(now), Err(seconds(5)));
    assert_eq!(machine.admit(now + Duration::from_millis(4999)), Err(Duration::from_millis(1)));
    let now = now + seconds(5);
    let probes: Vec<_> = (0..5).map(|_| machine.admit(now).unwrap()).collect();
    assert_eq!(machine.admit(now), Err(seconds(1)), "while the probes are under way");
    assert_eq!(machine.admit(now + Duration::from_millis(9400)), Err(Duration::from_millis(600)));
    assert_eq!(machine.admit(now + Duration::from_millis(9999)), Err(Duration::from_millis(1)));
    assert_eq!(machine.state(), State::HalfOpen);
    assert_eq!(machine.admit(now + seconds(10)), Err(seconds(10)), "open again, for twice the time");
    drop(probes);
    machine.force(Some(Force::Open), now);
    assert_eq!(machine.admit(now), Err(seconds(5)));
}

#[test]
fn probes_that_ended_do_not_count_as_waiting() {
    let (mut machine, now) = opened(settings());
    let now = now + seconds(5);
    for late in 0..4 {
        // Each long after the one before, which has ended.
        calls(&mut machine, now + seconds(20 * late), 1, Verdict::Works);
        assert_eq!(machine.state(), State::HalfOpen);
    }
    let last = now + seconds(80);
    let probe = machine.admit(last).unwrap();
    assert_eq!(machine.admit(last + seconds(9)), Err(seconds(1)));
    machine.record(probe, last + seconds(9), Verdict::Works, NO_TIME);
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn a_time_window_forgets_the_failures_of_long_ago() {
    let (mut machine, now) = machine(Settings { window: Window::Time(seconds(10)), ..settings() });
    calls(&mut machine, now, 19, Verdict::Fails);
    calls(&mut machine, now + seconds(10), 19, Verdict::Fails);
    assert_eq!(machine.state(), State::Closed, "nineteen in any ten seconds");
    calls(&mut machine, now + seconds(11), 1, Verdict::Fails);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn half_open_admits_exactly_its_probes_and_closes_when_they_work() {
    let (mut machine, now) = opened(settings());
    assert!(machine.admit(now + Duration::from_millis(4999)).is_err());
    let now = now + seconds(5);
    let probes: Vec<_> = (0..100).filter_map(|_| machine.admit(now).ok()).collect();
    assert_eq!((probes.len(), machine.state()), (5, State::HalfOpen));
    for (ended, probe) in probes.into_iter().enumerate() {
        assert_eq!(machine.state(), State::HalfOpen, "{ended}");
        machine.record(probe, now, Verdict::Works, NO_TIME);
    }
    assert_eq!(machine.state(), State::Closed);
    calls(&mut machine, now, 19, Verdict::Fails);
    assert_eq!(machine.state(), State::Closed, "it judges anew");
}

#[test]
fn probes_that_fail_open_it_for_twice_the_time_up_to_a_minute() {
    let (mut machine, _) = opened(settings());
    let mut now;
    for wait in [10, 20, 40, 60, 60] {
        now = machine.open_until().unwrap();
        calls(&mut machine, now, 2, Verdict::Works);
        calls(&mut machine, now, 3, Verdict::Fails);
        assert_eq!(machine.open_until().unwrap() - now, seconds(wait));
    }
    now = machine.open_until().unwrap();
    calls(&mut machine, now, 5, Verdict::Works);
    calls(&mut machine, now, 20, Verdict::Fails);
    assert_eq!(machine.open_until().unwrap() - now, seconds(5), "it begins anew once it has closed");
}

#[test]
fn two_failures_of_five_probes_close_it_and_slow_probes_do_not() {
    let (mut failing, now) = opened(settings());
    calls(&mut failing, now + seconds(5), 2, Verdict::Fails);
    calls(&mut failing, now + seconds(5), 3, Verdict::Works);
    assert_eq!(failing.state(), State::Closed);
    let (mut slow, now) = opened(settings());
    for _ in 0..5 {
        assert!(call(&mut slow, now + seconds(5), Verdict::Works, seconds(3)));
    }
    assert_eq!(slow.state(), State::Open);
}

#[test]
fn a_probe_that_never_began_gives_its_turn_back() {
    let (mut machine, now) = opened(settings());
    let now = now + seconds(5);
    calls(&mut machine, now, 50, Verdict::Nothing);
    assert_eq!((0..100).filter(|_| machine.admit(now).is_ok()).count(), 5);
}

#[test]
fn probes_without_an_answer_for_ten_seconds_open_it_again() {
    let (mut machine, now) = opened(settings());
    let now = now + seconds(5);
    let probes: Vec<_> = (0..5).map(|_| machine.admit(now).unwrap()).collect();
    assert!(machine.admit(now + seconds(9)).is_err());
    assert_eq!(machine.state(), State::HalfOpen);
    assert!(machine.admit(now + seconds(10)).is_err());
    assert_eq!(machine.state(), State::Open);
    // Outcomes of an earlier phase do not count.
    for probe in probes {
        machine.record(probe, now + seconds(11), Verdict::Works, NO_TIME);
    }
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn half_open_waits_for_callers_as_long_as_it_takes() {
    let (mut machine, now) = opened(settings());
    for minute in 1..=5 {
        calls(&mut machine, now + seconds(60 * minute), 1, Verdict::Works);
    }
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn outcomes_of_calls_from_before_it_opened_say_nothing_about_now() {
    let (mut machine, now) = machine(settings());
    let early: Vec<_> = (0..30).map(|_| machine.admit(now).unwrap()).collect();
    calls(&mut machine, now, 20, Verdict::Fails);
    let later = now + seconds(5);
    calls(&mut machine, later, 1, Verdict::Works);
    for admission in early {
        machine.record(admission, later, Verdict::Fails, NO_TIME);
    }
    assert_eq!(machine.state(), State::HalfOpen);
}

#[test]
fn forced_states_hold_whatever_happens_and_leave_no_trace() {
    let (mut machine, now) = machine(settings());
    machine.force(Some(Force::Open), now);
    assert!(machine.admit(now + seconds(3600)).is_err());
    machine.force(Some(Force::Closed), now);
    calls(&mut machine, now, 1000, Verdict::Fails);
    assert_eq!(machine.state(), State::ForcedClosed);
    machine.force(None, now);
    assert_eq!(machine.state(), State::Closed);
    calls(&mut machine, now, 19, Verdict::Fails);
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn the_time_it_stays_open_is_spread() {
    let waits: Vec<f64> = (0..200)
        .map(|_| {
            let (machine, now) = opened(Settings::default());
            (machine.open_until().unwrap() - now).as_secs_f64()
        })
        .collect();
    assert!(waits.iter().all(|wait| (4.0..6.0).contains(wait)));
    assert!(waits.iter().any(|wait| *wait < 4.7) && waits.iter().any(|wait| *wait > 5.3));
}

#[test]
fn settings_that_cannot_be_are_refused_each_with_its_sentence() {
    let base = Settings::default;
    let cases = [
        (Settings { window: Window::Count(0), minimum_calls: 0, ..base() }, "the window"),
        (Settings { window: Window::Count(100_001), ..base() }, "the window"),
        (Settings { window: Window::Time(Duration::ZERO), ..base() }, "the window"),
        (Settings { window: Window::Time(Duration::from_millis(1500)), ..base() }, "whole seconds"),
        (Settings { minimum_calls: 0, ..base() }, "minimum_calls must be at least 1"),
        (Settings { minimum_calls: 101, ..base() }, "minimum_calls must not exceed"),
        (Settings { failure_rate: 0.0, ..base() }, "failure_rate"),
        (Settings { failure_rate: 100.1, ..base() }, "failure_rate"),
        (Settings { failure_rate: f64::NAN, ..base() }, "failure_rate"),
        (Settings { slow_rate: -1.0, ..base() }, "slow_rate"),
        (Settings { slow_after: Duration::ZERO, ..base() }, "slow_after"),
        (Settings { open_for: Duration::ZERO, ..base() }, "open_for must be longer"),
        (Settings { open_at_most: seconds(1), ..base() }, "open_at_most"),
        (Settings { jitter: 1.0, ..base() }, "jitter"),
        (Settings { probes: 0, ..base() }, "probes"),
        (Settings { half_open_at_most: Duration::ZERO, ..base() }, "half_open_at_most"),
    ];
    let allowed = [
        base(),
        Settings { window: Window::Count(1), minimum_calls: 1, ..base() },
        Settings { window: Window::Count(100_000), minimum_calls: 100_000, ..base() },
        Settings { window: Window::Time(seconds(1)), ..base() },
        Settings { window: Window::Time(seconds(3600)), ..base() },
        Settings { failure_rate: 100.0, slow_rate: 100.0, ..base() },
        Settings { failure_rate: 0.1, slow_rate: 0.1, ..base() },
        Settings { open_at_most: seconds(5), ..base() },
        Settings { jitter: 0.0, probes: 1, ..base() },
        Settings { jitter: 0.99, ..base() },
    ];
    for settings in allowed {
        assert_eq!(settings.validate(), Ok(()), "{settings:?}");
    }
    let too_long = Settings { window: Window::Time(seconds(3601)), ..base() };
    assert!(too_long.validate().is_err());
    for (settings, says) in cases {
        let wrong = settings.validate().unwrap_err();
        assert!(wrong.iter().any(|sentence| sentence.contains(says)), "{says}: {wrong:?}");
        assert!(Breaker::new("test", settings, Clock::system()).is_err());
    }
}

#[actix_rt::test]
async fn a_shared_breaker_stops_calls_to_a_dependency_that_fails() {
    let clock = Clock::manual(DateTime::UNIX_EPOCH);
    let breaker = Breaker::new("mail", settings(), clock.clone()).unwrap();
    let judge = |outcome: &Result<u8, &str>| if outcome.is_ok() { Verdict::Works } else { Verdict::Fails };
    for _ in 0..20 {
        assert_eq!(breaker.call(async { Err("down") }, judge).await, Ok(Err("down")));
    }
    let refused = breaker.call(async { panic!("must not be called") }, judge).await;
    assert_eq!(refused, Err(Failure::Unavailable { retry_after: seconds(5) }));
    clock.advance(seconds(5));
    // A caller that goes away frees its place.
    for _ in 0..50 {
        drop(breaker.admit().unwrap());
    }
    for _ in 0..5 {
        assert_eq!(breaker.call(async { Ok(1) }, judge).await, Ok(Ok(1)));
    }
    assert_eq!(breaker.state(), State::Closed);
    breaker.force(Some(Force::Open));
    assert!(breaker.admit().is_err());
}

/// A breaker that opens at its twentieth failure, before `dependency` where there is one.
fn breaker(name: &str, dependency: Option<Dependency>) -> Breaker {
    Breaker::made(name.to_owned(), settings(), Clock::system(), dependency).unwrap()
}

fn open(breaker: &Breaker) {
    for _ in 0..20 {
        if let Ok(permit) = breaker.admit() {
            permit.record(Verdict::Fails);
        }
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn that_it_opens_is_told_once_and_calls_that_change_nothing_are_not() {
    let warnings = Warnings::collect();
    let breaker = breaker("told", None);
    breaker.admit().unwrap().record(Verdict::Works);
    assert_eq!(warnings.with("breaker=told"), [""; 0]);
    open(&breaker);
    let [warning] = &*warnings.with("breaker=told") else { panic!("{:?}", warnings.with("breaker=told")) };
    assert!(warning.contains("a breaker has opened"), "{warning}");
    assert_eq!(format!("{breaker:?}"), "Breaker { name: \"told\", state: Open }");
}

#[actix_rt::test]
async fn it_begins_anew_when_what_it_stands_before_is_back_and_not_before() {
    let dependency = Dependency::new("database", || async { Ok(()) });
    let breaker = breaker("before", Some(dependency.clone()));
    open(&breaker);
    assert_eq!(breaker.state(), State::Open, "it has not been away");
    dependency.broke();
    while dependency.returns() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(breaker.state(), State::Closed);
    open(&breaker);
    assert_eq!(breaker.state(), State::Open, "it is back once");
}

#[test]
fn its_state_has_a_word_and_its_force_is_shown() {
    let words =
        [State::Closed, State::Open, State::HalfOpen, State::ForcedClosed, State::ForcedOpen].map(State::as_str);
    assert_eq!(words, ["closed", "open", "half_open", "forced_closed", "forced_open"]);
    let (mut machine, now) = machine(settings());
    assert_eq!(machine.forced(), None);
    machine.force(Some(Force::Open), now);
    assert_eq!(machine.forced(), Some(Force::Open));
    let epoch = machine.epoch();
    machine.force(None, now);
    assert_eq!(machine.forced(), None);
    assert!(machine.epoch() > epoch, "it is another state");
}

#[test]
fn calls_that_say_nothing_are_no_calls() {
    let (mut machine, now) = machine(settings());
    calls(&mut machine, now, 10, Verdict::Nothing);
    calls(&mut machine, now, 19, Verdict::Fails);
    assert_eq!(machine.state(), State::Closed);
    calls(&mut machine, now, 1, Verdict::Fails);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn failures_leave_a_window_of_time_with_their_second() {
    let (mut machine, now) = machine(Settings { window: Window::Time(seconds(10)), ..settings() });
    calls(&mut machine, now, 9, Verdict::Fails);
    let later = now + seconds(11);
    calls(&mut machine, later, 11, Verdict::Works);
    calls(&mut machine, later, 9, Verdict::Fails);
    assert_eq!(machine.state(), State::Closed, "nine of twenty");
    calls(&mut machine, later, 2, Verdict::Fails);
    assert_eq!(machine.state(), State::Open, "eleven of twenty-two");
}
