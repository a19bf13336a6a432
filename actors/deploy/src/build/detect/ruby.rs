//! Ruby apps, by their `Gemfile`.

use std::path::PathBuf;

use super::{
    Command, DetectError, Language, Plan, Scene, Told,
    version::{Asked, choose, require},
};
use crate::{WEB, build::tools::Tool};

/// Where gems are installed to.
const GEMS: &str = "vendor/bundle";

/// Adds what the app's files say to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let Some(gemfile) = app.read("Gemfile")? else { return Ok(Told::Nothing) };
    plan.say("Gemfile makes it a Ruby app");
    plan.language = Language::Ruby;
    let by_gemfile = gemfile.lines().find_map(|line| {
        let version = line.trim().strip_prefix("ruby ")?.trim().trim_matches(['"', '\'']);
        version.starts_with(|letter: char| letter.is_ascii_digit()).then(|| version.to_owned())
    });
    let by_file = app.read(".ruby-version")?.map(|text| text.trim().trim_start_matches("ruby-").to_owned());
    let asked = scene.asked("ruby");
    let asked =
        asked.or_else(|| Asked::new("`.ruby-version`", by_file?)).or_else(|| Asked::new("Gemfile", by_gemfile?));
    let (ruby, sentences) = choose(scene.tools, Tool::Ruby, "Gemfile", asked.as_ref())?;
    plan.reasons.extend(sentences);
    require(scene.tools, Tool::Bundler, "Gemfile")?;
    if !ruby.is_default {
        plan.environment.path.extend(ruby.path.parent().map(PathBuf::from));
    }
    plan.depends_on(&format!("Ruby {}", ruby.version));
    let digest = app.digest("Gemfile.lock")?;
    let variables = &mut plan.environment.variables;
    for (name, value) in [
        ("BUNDLE_PATH", GEMS),
        ("BUNDLE_WITHOUT", "development:test"),
        ("BUNDLE_DEPLOYMENT", if digest.is_some() { "true" } else { "false" }),
        ("RACK_ENV", "production"),
        ("RAILS_ENV", "production"),
        ("RAILS_LOG_TO_STDOUT", "1"),
        ("RAILS_SERVE_STATIC_FILES", "1"),
    ] {
        variables.insert(name.to_owned(), value.to_owned());
    }
    match digest {
        Some(digest) => {
            plan.say("Gemfile.lock fixes the versions");
            plan.depends_on(&format!("Gemfile.lock {digest}"));
        }
        None => plan.say("there is no Gemfile.lock: Bundler chooses the versions"),
    }
    plan.step("Installing gems", Command::exec(&["bundle", "install", "--jobs", "4"]));
    let lock = app.read("Gemfile.lock")?.unwrap_or_default();
    let has_gem = |name: &str| {
        let quoted = [format!("gem \"{name}\""), format!("gem '{name}'")];
        quoted.iter().any(|gem| gemfile.contains(gem))
            || lock.lines().any(|line| line.trim_start().starts_with(&format!("{name} (")))
    };
    let is_rails = app.has("bin/rails") && app.has("config/application.rb");
    if is_rails && (has_gem("sprockets-rails") || has_gem("propshaft")) {
        plan.say("Rails has assets, which are compiled");
        let line = "SECRET_KEY_BASE_DUMMY=1 exec bundle exec rails assets:precompile";
        plan.step("Compiling assets", Command::Shell(line.to_owned()));
    }
    if scene.has_processes {
        return Ok(Told::Planned);
    }
    let sinatra = ["app.rb", "main.rb", "server.rb"].into_iter().find(|file| app.has(file));
    let (line, reason) = if is_rails {
        ("bundle exec rails server --binding 127.0.0.1 --port $PORT".to_owned(), "Rails serves it".to_owned())
    } else if app.has("config.ru") && has_gem("puma") {
        ("bundle exec puma --bind tcp://127.0.0.1:$PORT".to_owned(), "config.ru is served by puma".to_owned())
    } else if app.has("config.ru") && (has_gem("rackup") || has_gem("rack")) {
        let line = "bundle exec rackup --host 127.0.0.1 --port $PORT".to_owned();
        (line, "config.ru is served by rackup".to_owned())
    } else if let Some(file) = sinatra.filter(|_| has_gem("sinatra")) {
        (
            format!("bundle exec ruby {file} -o 127.0.0.1 -p $PORT"),
            format!("{file} is an app of Sinatra, which serves itself"),
        )
    } else {
        return Ok(Told::NoProcess(
            "Gemfile does not say what to run; add a config.ru and the gem `puma`, or a Procfile with a `web` line such as \
             `web: bundle exec puma -p $PORT`"
                .to_owned(),
        ));
    };
    plan.say(reason);
    plan.processes.insert(WEB.to_owned(), Command::Shell(line));
    Ok(Told::Planned)
}
