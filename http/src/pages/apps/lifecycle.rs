//! What is done with an app that is there: deploy again, restart, stop, scale, delete.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use callboard_messages::{
    deploy::{ListInstances, Redeploy, Restart, Scale, Stop},
    project::DeleteProject,
};

use super::{address, deployments};
use crate::{
    pages::{confirm::Confirm, form, request::PageRequest},
    problem::Problem,
};

/// Builds the source of an earlier deployment again.
pub(crate) async fn redeploy(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let project = request.project().await?;
    let deployment_id = deployments::of_project(&request, project.id).await?.id;
    match request.ask_once(&form, Redeploy { deployment_id }).await {
        Ok(deployment) => {
            let to = address(&project.name, &format!("deployments/{}", deployment.id));
            Ok(request.done(&to, "Deploying the same source again."))
        }
        refused => request.acted(refused, &address(&project.name, ""), ""),
    }
}

/// Replaces every instance.
pub(crate) async fn restart(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let project = request.project().await?;
    match request.ask_once(&form, Restart { project_id: project.id }).await {
        Ok(deployment) => {
            let to = address(&project.name, &format!("deployments/{}", deployment.id));
            Ok(request.done(&to, "Restarting: new instances start before the old ones end."))
        }
        refused => request.acted(refused, &address(&project.name, ""), ""),
    }
}

/// Asks before the app is stopped.
pub(crate) async fn confirm_stop(request: PageRequest) -> Result<HttpResponse, Problem> {
    let project = request.project().await?;
    let running = request.ask(ListInstances { project_id: project.id }).await?;
    let name = &project.name;
    Confirm::of(format!("Stop {name}?"), address(name, "stop"), "Stop the app")
        .goes(match running.items.len() {
            1 => "Its one instance ends; visitors are told that the app has been stopped.".to_owned(),
            count => format!("Its {count} instances end; visitors are told that the app has been stopped."),
        })
        .note("Its releases, variables and logs stay. Starting it again takes as long as a restart.")
        .back(address(name, ""))
        .show(&request)
        .await
}

/// Stops every instance.
pub(crate) async fn stop(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let project = request.project().await?;
    let outcome = request.ask(Stop { project_id: project.id }).await;
    request.acted(outcome, &address(&project.name, ""), "The app is stopped.")
}

/// Sets the number of instances of process types: a field for each, by its name, and `step` for the buttons that add or
/// take one away.
pub(crate) async fn scale(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let project = request.project().await?;
    let to = address(&project.name, "");
    let process = form.text("process").to_owned();
    let step = form.number::<i64>("step", "a whole number")?;
    let count = form.number::<i64>("count", "a whole number from 0 to 100");
    let wanted = match (count, step) {
        (Err(problem), _) => return request.acted::<()>(Err(problem), &to, ""),
        (Ok(count), step) => count.unwrap_or(0).saturating_add(step.unwrap_or(0)),
    };
    let Ok(wanted) = u32::try_from(wanted) else {
        return request.acted::<()>(Err(Problem::invalid("there can't be fewer than no instances")), &to, "");
    };
    let processes = BTreeMap::from([(process.clone(), wanted)]);
    let outcome = request.ask(Scale { project_id: project.id, processes }).await;
    let sentence = match wanted {
        0 => format!("No instance of {process} is wanted any more."),
        1 => format!("One instance of {process} is wanted."),
        wanted => format!("{wanted} instances of {process} are wanted."),
    };
    request.acted(outcome, &to, sentence)
}

fn confirm_deletion(name: &str, version: i64) -> Confirm {
    Confirm::of(format!("Delete {name}?"), address(name, "delete"), "Delete the app")
        .goes("Everything that runs of it, at once; its address answers nothing any more.")
        .goes("Every release, so that nothing can be rolled back to.")
        .goes("Every variable and secret, every deployment and all logs.")
        .note("This can't be undone. Stopping the app keeps all of it.")
        .field("version", version.to_string())
        .typed(name)
        .back(address(name, "settings"))
}

/// Asks before the app is deleted.
pub(crate) async fn confirm_delete(request: PageRequest) -> Result<HttpResponse, Problem> {
    let project = request.project().await?;
    confirm_deletion(&project.name, project.version).show(&request).await
}

/// Deletes the app, once its name was typed.
pub(crate) async fn delete(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    let form = request.form(form::SHORT).await?;
    let project = request.project().await?;
    let if_match = form.number("version", "a whole number")?;
    let outcome = if form.text("typed").trim() == project.name {
        request.ask(DeleteProject { project_id: project.id, if_match }).await
    } else {
        Err(Problem::invalid(format!("`typed`: type {} to delete it", project.name)))
    };
    match outcome {
        Ok(None) => Ok(request.done("/", format!("The app {} is deleted.", project.name))),
        Ok(Some(_)) => Ok(request.done("/", format!("The app {} is being deleted.", project.name))),
        Err(problem) => {
            let view = |problem: Problem| Confirm {
                form: form.refused(&problem, None),
                ..confirm_deletion(&project.name, project.version)
            };
            request.again(problem, "confirm.html", view).await
        }
    }
}
