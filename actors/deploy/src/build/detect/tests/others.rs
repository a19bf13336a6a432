use super::*;

#[test]
fn go_apps_are_one_binary() {
    let go = with(&[(Tool::Go, "1.22.3")]);
    let files = [("go.mod", "module example.com/shop/v2\n\ngo 1.21\n"), ("main.go", "package main\n"), ("go.sum", "x")];
    let found = plan_by(&files, &go).unwrap();
    assert_eq!(commands(&found), ["go build -trimpath -o .callboard/bin/shop ."]);
    assert_eq!(web(&found), ".callboard/bin/shop");
    assert_eq!(found.environment.variables["GOTOOLCHAIN"], "local");
    assert!(found.cache.key.contains("Go 1.22.3; go.sum "));
    let files =
        [("go.mod", "module x\n"), ("cmd/server/main.go", "package main\n"), ("cmd/tool/main.go", "package main\n")];
    let found = plan_by(&files, &go).unwrap();
    assert_eq!((web(&found).as_str(), found.steps.len()), (".callboard/bin/server", 2));
    let files = [("go.mod", "module x\n"), ("cmd/a/main.go", "package main\n"), ("cmd/b/main.go", "package main\n")];
    let error = plan_by(&files, &go).unwrap_err().to_string();
    assert!(
        error.contains("several programs (./cmd/a, ./cmd/b)") && error.contains("`web: .callboard/bin/a`"),
        "{error}"
    );
    let files = [("go.mod", "module x\n\ngo 1.23\n"), ("main.go", "package main\n")];
    let error = plan_by(&files, &go).unwrap_err().to_string();
    assert!(error.contains("go.mod asks for Go 1.23, and this node has 1.22.3"), "{error}");
}

#[test]
fn rust_apps_leave_the_compilers_files_out_of_the_release() {
    let cargo = with(&[(Tool::Cargo, "1.95.0")]);
    let package = "[package]\nname = 'shop'\nversion = '0.1.0'\n";
    let found = plan_by(&[("Cargo.toml", package), ("src/main.rs", ""), ("Cargo.lock", "")], &cargo).unwrap();
    let step = &commands(&found)[0];
    assert!(step.starts_with("cargo install --path '.' --root .callboard --locked"), "{step}");
    assert!(step.contains("--target-dir \"${CARGO_HOME:-$HOME/.cargo}/callboard-target\""), "{step}");
    assert_eq!(web(&found), ".callboard/bin/shop");
    let several = [("Cargo.toml", package), ("src/main.rs", ""), ("src/bin/other.rs", "")];
    let error = plan_by(&several, &cargo).unwrap_err().to_string();
    assert!(error.contains("several programs (shop, other)") && error.contains("default-run"), "{error}");
    let named = format!("{package}default-run = 'other'\n");
    let found = plan_by(&[("Cargo.toml", &named), ("src/main.rs", ""), ("src/bin/other.rs", "")], &cargo).unwrap();
    assert_eq!(web(&found), ".callboard/bin/other");
    let workspace = [
        ("Cargo.toml", "[workspace]\nmembers = ['crates/*']\n"),
        ("crates/core/Cargo.toml", "[package]\nname = 'core'\n"),
        ("crates/core/src/lib.rs", ""),
        ("crates/web/Cargo.toml", "[package]\nname = 'web'\n"),
        ("crates/web/src/main.rs", ""),
    ];
    let found = plan_by(&workspace, &cargo).unwrap();
    assert!(commands(&found)[0].contains("--path 'crates/web'"), "{:?}", commands(&found));
    let library = [("Cargo.toml", package), ("src/lib.rs", "")];
    assert!(plan_by(&library, &cargo).unwrap_err().to_string().contains("without a program"));
}

#[test]
fn ruby_apps_are_served_by_what_they_bring() {
    let ruby = with(&[(Tool::Ruby, "3.1.2"), (Tool::Bundler, "2.3.15")]);
    for (gemfile, files, runs) in [
        ("gem 'puma'\ngem 'sinatra'", &[("config.ru", "")][..], "bundle exec puma --bind tcp://127.0.0.1:$PORT"),
        ("gem \"sinatra\"", &[("app.rb", "")], "bundle exec ruby app.rb -o 127.0.0.1 -p $PORT"),
        (
            "gem 'rails'\ngem 'propshaft'",
            &[("bin/rails", ""), ("config/application.rb", "")],
            "bundle exec rails server --binding 127.0.0.1 --port $PORT",
        ),
    ] {
        let found = plan_by(&[&[("Gemfile", gemfile)], files].concat(), &ruby).unwrap();
        assert_eq!(web(&found), runs);
        assert_eq!(found.environment.variables["BUNDLE_PATH"], "vendor/bundle");
        assert_eq!(found.steps.len(), if gemfile.contains("propshaft") { 2 } else { 1 });
    }
    let error = plan_by(&[("Gemfile", "ruby \"3.3.0\"\n")], &ruby).unwrap_err().to_string();
    assert!(error.contains("Gemfile asks for Ruby 3.3.0, and this node has 3.1.2"), "{error}");
    assert!(plan_by(&[("Gemfile", "")], &ruby).unwrap_err().to_string().contains("add a config.ru"));
}

#[test]
fn phps_server_for_developers_never_goes_public() {
    let php = with(&[(Tool::Php, "8.2.7"), (Tool::Composer, "2.5.0")]);
    let error = plan_by(&[("index.php", "")], &php).unwrap_err().to_string();
    assert!(error.contains("`php -S` is for developers") && error.contains("FrankenPHP"), "{error}");
    let franken = with(&[(Tool::Php, "8.2.7"), (Tool::Composer, "2.5.0"), (Tool::FrankenPhp, "1.3.0")]);
    let files = [("composer.json", r#"{"require":{"php":"^8.1","slim/slim":"4"}}"#), ("public/index.php", "")];
    let found = plan_by(&files, &franken).unwrap();
    assert_eq!(web(&found), "frankenphp php-server --listen 127.0.0.1:$PORT --root public");
    assert!(commands(&found)[0].starts_with("composer install --no-dev"));
    let found = plan_by(&[&files[..], &[("Procfile", "web: php artisan octane:start")]].concat(), &php).unwrap();
    assert_eq!(web(&found), "php artisan octane:start");
}

#[test]
fn deno_apps_start_by_task_or_program() {
    let deno = with(&[(Tool::Deno, "2.1.4")]);
    let config = "{\n  // ours\n  \"tasks\": { \"start\": \"deno run -A main.ts\" }\n}";
    let found = plan_by(&[("deno.json", config), ("main.ts", "")], &deno).unwrap();
    assert_eq!(
        (commands(&found), web(&found)),
        (vec!["DENO_DIR=.callboard/deno exec deno cache main.ts".to_owned()], "deno task start".to_owned())
    );
    assert_eq!(found.environment.folders["DENO_DIR"], Path::new(".callboard/deno"));
    let found = plan_by(&[("deno.json", "{}"), ("main.ts", "export default { fetch() {} }")], &deno).unwrap();
    assert_eq!(web(&found), "deno serve --allow-all --host 127.0.0.1 --port $PORT main.ts");
    assert_eq!(web(&plan_by(&[("deno.json", "{}"), ("main.ts", "")], &deno).unwrap()), "deno run --allow-all main.ts");
}

#[test]
fn java_apps_are_built_by_their_wrapper_or_the_nodes_tool() {
    let java = with(&[(Tool::Java, "17.0.19"), (Tool::Maven, "3.8.7")]);
    let pom = "<project><properties><java.version>17</java.version></properties></project>";
    let found = plan_by(&[("pom.xml", pom)], &java).unwrap();
    assert_eq!(commands(&found)[0], "mvn --batch-mode --no-transfer-progress -DskipTests package");
    assert_eq!(web(&found), "java -Dserver.port=$PORT -Dserver.address=127.0.0.1 -jar .callboard/app.jar");
    let found = plan_by(&[("pom.xml", pom), ("mvnw", "")], &java).unwrap();
    assert!(commands(&found)[0].starts_with("sh ./mvnw "));
    let found = plan_by(&[("build.gradle", ""), ("gradlew", "")], &java).unwrap();
    assert!(commands(&found)[0].starts_with("sh ./gradlew --no-daemon"));
    let error = plan_by(&[("build.gradle.kts", "")], &java).unwrap_err().to_string();
    assert_eq!(error, "`build.gradle.kts`: Gradle is not installed on this node; `apt-get install gradle`");
    let error = plan_by(&[("pom.xml", &pom.replace("17", "21"))], &java).unwrap_err().to_string();
    assert!(error.contains("asks for Java >=21, and this node has 17.0.19"), "{error}");
}

#[test]
fn a_language_that_is_not_installed_is_refused_with_how_to_get_it() {
    for (file, sentence) in [
        ("Gemfile", "`Gemfile`: Ruby is not installed on this node; `apt-get install ruby-full`"),
        ("go.mod", "`go.mod`: Go is not installed on this node; `apt-get install golang-go`"),
        ("Cargo.toml", "`Cargo.toml`: Rust is not installed on this node; `apt-get install cargo`"),
        ("index.php", "`index.php`: PHP is not installed on this node; `apt-get install php-cli`"),
        ("deno.lock", "`deno.lock`: Deno is not installed on this node; `npm install --global deno`"),
        ("pom.xml", "`pom.xml`: Java is not installed on this node; `apt-get install default-jdk-headless`"),
    ] {
        assert_eq!(refusal(&[(file, "")]), sentence);
    }
}
