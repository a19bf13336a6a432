//! Scale, stop, restart, crash.

use std::cell::Cell;

use callboard_messages::{CallError, Code, deploy::*};

use super::fixture::on_node;

#[actix_rt::test]
async fn a_project_that_is_being_deleted_says_so() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.projects.begin_deleting(app.id);
        let refused = bench.scale(&app, &[("web", 1)]).await.unwrap_err();
        assert_eq!(refused, CallError::Refused(DeployError::Deleting));
    })
    .await;
}

#[actix_rt::test]
async fn an_app_scales_up_down_to_zero_and_back() {
    on_node(async |bench| {
        let app = bench.create("shop");
        assert_eq!(bench.scale(&app, &[("web", 1)]).await.unwrap_err(), CallError::Refused(DeployError::NoRelease));
        bench.release(&app, "one").await;
        let formation = bench.scale(&app, &[("web", 3), ("worker", 1)]).await.unwrap();
        assert_eq!(formation.processes, [("web".to_owned(), 3), ("worker".to_owned(), 1)].into());
        let web = bench.healthy(&app, "web", 3).await;
        assert_eq!(web.iter().map(|instance| instance.index).collect::<Vec<_>>(), [1, 2, 3]);
        bench.healthy(&app, "worker", 1).await;
        // An instance is told healthy a moment before visitors are led to it.
        let led = || bench.routes.get("shop").is_some_and(|route| route.backends().len() == 3);
        bench.until("all three take visitors", async || led().then_some(())).await;

        bench.scale(&app, &[("web", 1)]).await.unwrap();
        let left = bench.healthy(&app, "web", 1).await;
        assert_eq!(left[0].id, web[0].id, "the first one stays");
        bench.healthy(&app, "worker", 1).await;

        bench.scale(&app, &[("web", 0), ("worker", 0)]).await.unwrap();
        bench.until("nothing runs", async || bench.instances(&app).await.is_empty().then_some(())).await;
        assert_eq!(
            bench.get(&app, "/").await.unwrap_err(),
            "It has been stopped, scaled to zero instances, or released without a web process."
        );
        bench.release(&app, "two").await;
        assert_eq!(bench.instances(&app).await, [], "zero stays zero");

        bench.scale(&app, &[("web", 1)]).await.unwrap();
        bench.healthy(&app, "web", 1).await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "two");
        assert_eq!(bench.scale(&app, &[("clock", 1)]).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(bench.scale(&app, &[("web", 101)]).await.unwrap_err().code(), Code::Invalid);
        assert_eq!(bench.scale(&app, &[]).await.unwrap_err().code(), Code::Invalid);
    })
    .await;
}

#[actix_rt::test]
async fn a_stopped_app_starts_again_with_its_formation() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.scale(&app, &[("web", 2)]).await.unwrap();
        bench.healthy(&app, "web", 2).await;
        let stopped = bench.ask(&app.owner, Stop { project_id: app.id }).await.unwrap();
        assert!(stopped.processes.values().all(|count| *count == 0));
        bench.until("nothing runs", async || bench.instances(&app).await.is_empty().then_some(())).await;
        let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await.unwrap();
        assert_eq!(bench.ended(&app, restart.id).await.status, DeploymentStatus::Completed);
        bench.healthy(&app, "web", 2).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_restart_and_a_deployment_drop_no_request() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.scale(&app, &[("web", 2)]).await.unwrap();
        let before = bench.healthy(&app, "web", 2).await;
        let done = Cell::new(false);
        let visitor = async {
            let mut answers = 0;
            while !done.get() {
                for path in ["/", "/slow"] {
                    let answer = bench.get(&app, path).await.unwrap();
                    assert!(["one", "two"].contains(&answer.as_str()), "{answer}");
                    answers += 1;
                }
            }
            answers
        };
        let changes = async {
            let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await.unwrap();
            assert_eq!(bench.ended(&app, restart.id).await.status, DeploymentStatus::Completed);
            bench.release(&app, "two").await;
            bench.scale(&app, &[("web", 1)]).await.unwrap();
            let after = bench.healthy(&app, "web", 1).await;
            assert!(before.iter().all(|instance| instance.id != after[0].id));
            done.set(true);
        };
        let (answers, ()) = futures_util::join!(visitor, changes);
        assert!(answers > 0);
    })
    .await;
}

#[actix_rt::test]
async fn a_crashed_instance_is_started_again_with_growing_waits() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        for crash in 1..=3 {
            assert!(bench.get(&app, "/crash").await.is_err());
            bench
                .until("the instance is back", async || {
                    let instances = bench.instances(&app).await;
                    let back =
                        |instance: &Instance| instance.restarts == crash && instance.status == InstanceStatus::Healthy;
                    instances.iter().all(back).then_some(())
                })
                .await;
        }
        let instance = bench.instances(&app).await.remove(0);
        let last_exit = instance.last_exit.unwrap();
        assert!(last_exit.contains("status 7") && last_exit.contains("crashing on purpose"), "{last_exit}");
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        let logs = bench.ask(&app.owner, GetLogs { project_id: app.id, after: None, limit: None }).await.unwrap().items;
        let waits: Vec<f64> = logs
            .iter()
            .filter(|line| line.from == "platform")
            .filter_map(|line| line.text.rsplit_once("starting again in ")?.1.strip_suffix(" s")?.parse().ok())
            .collect();
        assert!(waits.len() == 3 && waits.is_sorted_by(|a, b| a < b), "{waits:?}");
        assert!(logs.is_sorted_by(|a, b| a.id < b.id));
    })
    .await;
}

#[actix_rt::test]
async fn an_unhealthy_instance_gets_no_requests_and_is_started_again() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.get(&app, "/sick").await.unwrap();
        bench.until("it gets no more requests", async || bench.get(&app, "/").await.is_err().then_some(())).await;
        bench
            .until("it was started again", async || {
                let instance = bench.instances(&app).await.remove(0);
                (instance.status == InstanceStatus::Healthy && instance.restarts >= 1).then_some(())
            })
            .await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
    })
    .await;
}

#[actix_rt::test]
async fn the_threads_for_archives_and_logs_show_in_the_metrics() {
    on_node(async |bench| {
        let shown = bench.pools();
        assert!(shown.contains("deploy-archives") && shown.contains("deploy-logs"), "{shown:?}");
    })
    .await;
}
