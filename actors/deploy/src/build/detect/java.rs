//! Java apps, by their `pom.xml` or `build.gradle`.

use std::path::PathBuf;

use super::{
    App, Command, DetectError, Language, OWN, Plan, Scene, Told,
    version::{Asked, choose, require},
};
use crate::{WEB, build::tools::Tool};

/// The archive that runs.
const JAR: &str = ".callboard/app.jar";

/// Adds what the app's files say to the plan.
pub(super) fn plan(scene: &Scene<'_>, plan: &mut Plan) -> Result<Told, DetectError> {
    let app = scene.app;
    let Some(file) = app.first(&["pom.xml", "build.gradle", "build.gradle.kts"]) else { return Ok(Told::Nothing) };
    if plan.processes.contains_key(WEB) && !scene.has_processes {
        return Ok(Told::Nothing);
    }
    plan.say(format!("{file} makes it a Java app"));
    plan.language = Language::Java;
    let by_file = asked(app, file);
    let (java, sentences) = choose(scene.tools, Tool::Java, file, scene.asked("java").or(by_file).as_ref())?;
    plan.reasons.extend(sentences);
    plan.depends_on(&format!("Java {}", java.version));
    if let Some(digest) = app.digest(file)? {
        plan.depends_on(&format!("{file} {digest}"));
    }
    let maven = file == "pom.xml";
    let (wrapper, tool) = if maven { ("mvnw", Tool::Maven) } else { ("gradlew", Tool::Gradle) };
    let has_wrapper = app.has(wrapper);
    if !has_wrapper {
        require(scene.tools, tool, file)?;
    }
    let wrapper = format!("./{wrapper}");
    let program: Vec<&str> = if has_wrapper { vec!["sh", &wrapper] } else { vec![tool.program()] };
    let arguments: &[&str] = if maven {
        &["--batch-mode", "--no-transfer-progress", "-DskipTests", "package"]
    } else {
        &["--no-daemon", "--console=plain", "build", "-x", "test"]
    };
    let argv: Vec<&str> = program.iter().chain(arguments).copied().collect();
    plan.step("Building", Command::exec(&argv));
    let built = if maven { "target" } else { "build/libs" };
    if scene.has_processes {
        return Ok(Told::Planned);
    }
    let text = app.glance(file).unwrap_or_default();
    if text.contains("quarkus") {
        plan.say("Quarkus makes a runner");
        let runner = if maven { "target/quarkus-app" } else { "build/quarkus-app" };
        let line =
            format!("java -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port=$PORT -jar {runner}/quarkus-run.jar");
        plan.processes.insert(WEB.to_owned(), Command::Shell(line));
        return Ok(Told::Planned);
    }
    // The one with its dependencies is the largest.
    let choose = format!(
        "mkdir -p {OWN} && jar=$(ls -S {built}/*.jar 2>/dev/null | grep -v -e '-sources.jar$' -e '-javadoc.jar$' -e \
         '-plain.jar$' | head -n 1) && [ -n \"$jar\" ] && cp \"$jar\" {JAR} || {{ echo 'the build made no .jar in {built}' \
         >&2; exit 1; }}"
    );
    plan.step("Choosing what runs", Command::Shell(choose));
    plan.say(format!("the largest .jar in {built}/ is what runs"));
    let line = format!("java -Dserver.port=$PORT -Dserver.address=127.0.0.1 -jar {JAR}");
    plan.processes.insert(WEB.to_owned(), Command::Shell(line));
    plan.environment.path.extend(java.path.parent().filter(|_| !java.is_default).map(PathBuf::from));
    Ok(Told::Planned)
}

/// The Java that a build file asks for: at least that.
fn asked(app: &App, file: &str) -> Option<Asked> {
    let text = app.glance(file)?;
    let between = |start: &str, end: &str| Some(text.split_once(start)?.1.split(end).next()?.trim().to_owned());
    let version = if file == "pom.xml" {
        between("<java.version>", "<").or_else(|| between("<maven.compiler.release>", "<"))
    } else {
        between("JavaLanguageVersion.of(", ")")
    }?;
    let number: u64 = version.trim_start_matches("1.").parse().ok()?;
    Asked::new(format!("`{file}`"), format!(">={number}"))
}
