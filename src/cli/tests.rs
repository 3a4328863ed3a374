//! What can be typed, and what comes back.

use super::*;
use clap::CommandFactory;

/// Runs a command line in a directory that holds `good.yaml` and `bad.yaml`.
fn strait(line: &str) -> (Exit, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let good = include_str!("samples/one-way.yaml");
    std::fs::write(directory.path().join("good.yaml"), good).unwrap();
    let bad = good.replace("bootstrap", "bootstap");
    std::fs::write(directory.path().join("bad.yaml"), bad).unwrap();
    run_in(directory.path(), line)
}

/// Runs a command line in which `@` stands for the directory.
pub(super) fn run_in(directory: &std::path::Path, line: &str) -> (Exit, String, String) {
    let line = line.replace("@", &format!("{}/", directory.display()));
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{e}"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen =
        Screen { out: Box::new(&mut out), err: Box::new(&mut err), color: false, live: false };
    let exit = execute(cli, &mut screen);
    drop(screen);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_fits_a_terminal_and_documents_exit_codes() {
    let mut command = Cli::command();
    let help = command.render_long_help().to_string();
    for words in ["Exit codes:", "78  the configuration is wrong", "STRAIT_CONFIG"] {
        assert!(help.contains(words), "{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}

#[test]
fn usage_errors_are_two() {
    for line in ["strait", "strait rnu", "strait check --online", "strait version -o xml"] {
        let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_bad_configuration_is_78_for_every_verb_that_needs_one() {
    for line in [
        "check -c @bad.yaml",
        "check --offline -c @bad.yaml -o json",
        "config show -c @bad.yaml",
        "-c @none.yaml check",
    ] {
        let (exit, out, err) = strait(&format!("strait {line}"));
        assert_eq!(exit, Exit::BadConfig, "{line}");
        let said = out + &err;
        assert!(said.contains("bootstap") || said.contains("cannot be read"), "{line}: {said}");
    }
}

#[test]
fn links_that_hurt_each_other_are_78_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let fan_in = include_str!("samples/fan-in.yaml").replace("naming: prefix", "naming: identity");
    std::fs::write(directory.path().join("c.yaml"), fan_in).unwrap();
    let (exit, out, _) = run_in(directory.path(), "strait check --offline -c @c.yaml");
    assert_eq!(exit, Exit::BadConfig);
    let line = out.lines().find(|line| line.contains("both write topic `alarms`")).unwrap();
    assert!(line.contains("c.yaml:21:3: "), "{out}");
    let (exit, _, err) = run_in(directory.path(), "strait run -c @c.yaml");
    assert_eq!(exit, Exit::BadConfig, "{err}");
}

#[test]
fn offline_check_of_a_good_file_is_zero() {
    let (exit, out, _) = strait("strait check --offline -c @good.yaml");
    assert_eq!(exit, Exit::Ok);
    assert!(out.contains("0 errors"), "{out}");
}

#[test]
fn json_has_a_schema() {
    for line in [
        "version -o json",
        "config show -c @good.yaml -o json",
        "check --offline -c @good.yaml -o json",
    ] {
        let (exit, out, _) = strait(&format!("strait {line}"));
        assert_eq!(exit, Exit::Ok, "{line}");
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(document["schema"].as_str().unwrap().starts_with("strait."), "{out}");
    }
}

#[test]
fn shells_get_their_script() {
    for shell in ["bash", "zsh", "fish"] {
        let (exit, out, _) = strait(&format!("strait completions {shell}"));
        assert_eq!(exit, Exit::Ok);
        assert!(out.contains("strait"), "{out}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    struct Gone;
    impl io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    for line in ["strait version", "strait completions bash", "strait config generate fan-in"] {
        let mut err = Vec::new();
        let mut screen =
            Screen { out: Box::new(Gone), err: Box::new(&mut err), color: false, live: false };
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(execute(cli, &mut screen), Exit::Ok, "{line}");
        drop(screen);
        assert!(err.is_empty());
    }
}

const README: &str = include_str!("../../README.md");

/// The first code block of a language.
fn block(language: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_readme_shows_a_configuration_that_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let around = crate::config::Surroundings {
        directory: directory.path(),
        variable: &|name| (name == "WEST_PASSWORD").then(|| "secret".to_owned()),
    };
    let loaded = crate::config::parse(block("yaml"), "README.md", &around).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_readme_names_every_verb_and_metric_and_no_other() {
    let listed = README.split_once("## Commands").unwrap().1;
    for verb in Cli::command().get_subcommands() {
        assert!(listed.contains(&format!("`{}", verb.get_name())), "{}", verb.get_name());
    }
    let board = crate::engine::stats::Board::default();
    let exposed = crate::admin::metrics(&board);
    let exposed =
        exposed.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exposed = exposed.filter(|name| name.starts_with("strait_"));
    let mut exposed = exposed.collect::<Vec<_>>();
    let words = README.split('`').filter(|word| {
        word.starts_with("strait_") && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    });
    let mut named = words.collect::<Vec<_>>();
    for list in [&mut exposed, &mut named] {
        list.sort_unstable();
        list.dedup();
    }
    assert_eq!(named, exposed);
}
