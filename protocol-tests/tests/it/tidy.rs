//! The house's own rules, read off its text: sizes, pure modules, one-way imports, words, error codes, the ledger.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// All Rust files below a folder of the repository, with their text, paths relative to the root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if path.is_dir() && !hidden && !path.ends_with("target") {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(folder), &mut files);
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    let mut files: Vec<_> =
        files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect();
    files.sort();
    assert!(!files.is_empty(), "no Rust file below {folder}");
    files
}

fn all_files() -> Vec<(String, String)> {
    ["src", "protocol-tests", "benches", "fuzz"]
        .into_iter()
        .filter(|folder| root().join(folder).exists())
        .flat_map(rust_files)
        .collect()
}

/// Without its tests and comments: what runs.
fn running(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn is_test_file(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap();
    file.contains("tests") || file == "fixture.rs" || path.contains("/tests/")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

#[track_caller]
fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let long = all_files().into_iter().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > 600).then(|| format!("{path}: {lines}"))
    });
    assert_none("too long", long.collect());
}

#[test]
fn every_module_opens_with_what_it_owns() {
    let files = rust_files("src").into_iter().filter(|(path, _)| !is_test_file(path));
    let bare = files.filter_map(|(path, text)| {
        let first = text.lines().next().unwrap_or_default();
        (!first.starts_with("//!") && path != "src/main.rs").then_some(path)
    });
    assert_none("no opening words", bare.collect());
}

#[test]
fn nothing_is_left_to_do() {
    let markers = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("dbg", "!"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    let left = all_files().into_iter().filter_map(|(path, text)| {
        let found: Vec<_> = markers.iter().filter(|marker| text.contains(**marker)).collect();
        (!found.is_empty()).then(|| format!("{path}: {found:?}"))
    });
    assert_none("left to do", left.collect());
}

#[test]
fn no_test_is_ignored_or_sleeps() {
    let ignore = concat!("#[ign", "ore");
    let lazy = all_files().into_iter().filter(|(path, text)| {
        let sleeps = path.starts_with("protocol-tests/tests/")
            && text.contains(concat!("thread::", "sleep"));
        text.contains(ignore) || sleeps
    });
    assert_none("ignored or sleeping tests", lazy.map(|(path, _)| path).collect());
}

#[test]
fn wire_is_pure() {
    let forbidden =
        ["tokio", "std::time", "std::net", "std::thread", "std::fs", "tracing", "crate::env"];
    let impure = rust_files("src/wire").into_iter().filter(|(path, _)| !is_test_file(path));
    let impure = impure.filter_map(|(path, text)| {
        let code = running(&text);
        let found: Vec<_> = forbidden.iter().filter(|module| code.contains(**module)).collect();
        (!found.is_empty()).then(|| format!("{path}: {found:?}"))
    });
    assert_none("wire/ knows the world", impure.collect());
}

/// What each module may import of the others. `error`, `limits` are everyone's; `env` everyone's but wire's.
const IMPORTS: [(&str, &[&str]); 11] = [
    ("wire", &[]),
    ("config", &[]),
    ("connection", &["wire", "config"]),
    ("cluster", &["wire", "config", "connection"]),
    ("engine", &["wire", "config", "connection", "cluster"]),
    ("lane", &["wire", "config", "connection", "cluster", "engine"]),
    ("fleet", &["wire", "config", "connection", "cluster", "engine"]),
    ("link", &["wire", "config", "connection", "cluster", "engine", "lane", "fleet"]),
    ("admin", &["wire", "config", "connection", "engine"]),
    ("embedded", &["wire", "connection"]),
    (
        "cli",
        &[
            "wire",
            "config",
            "connection",
            "cluster",
            "engine",
            "lane",
            "fleet",
            "link",
            "admin",
            "embedded",
        ],
    ),
];

#[test]
fn imports_go_one_way() {
    let modules: Vec<&str> = IMPORTS.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (module, allowed) in IMPORTS {
        if !root().join("src").join(module).exists() {
            continue;
        }
        for (path, text) in rust_files(&format!("src/{module}")) {
            if is_test_file(&path) {
                continue;
            }
            let code = running(&text);
            let used = code.match_indices("crate::").map(|(at, found)| {
                words(&code[at + found.len()..]).next().unwrap_or_default().to_owned()
            });
            let used: BTreeSet<String> = used.collect();
            let foreign = used.iter().filter(|name| {
                name.as_str() != module
                    && modules.contains(&name.as_str())
                    && !allowed.contains(&name.as_str())
            });
            wrong.extend(foreign.map(|name| format!("{path} imports {name}")));
        }
    }
    assert_none("imports against the flow", wrong);
}

#[test]
fn sides_are_called_source_and_target() {
    let files = rust_files("src").into_iter().filter(|(path, _)| !is_test_file(path));
    let wrong = files.flat_map(|(path, text)| {
        let code = running(&text);
        let bad = words(&code).filter(|word| {
            word.split('_').any(|part| ["src", "dst", "upstream", "downstream"].contains(&part))
        });
        bad.map(|word| format!("{path}: {word}")).collect::<Vec<_>>()
    });
    assert_none("other words for source and target", wrong.collect());
}

#[test]
fn nothing_switches_certificate_checks_off() {
    let word = concat!("dange", "rous");
    // The one place where tests plant such a bug, which no release build holds.
    let planted = "src/connection/planted.rs";
    let bad = rust_files("src")
        .into_iter()
        .filter(|(path, text)| path != planted && words(text).any(|w| w == word));
    assert_none("certificate checks", bad.map(|(path, _)| path).collect());
    for (path, text) in rust_files("src/connection") {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let uses = |line: &str| line == "mod planted;" || line.starts_with("super::planted::");
        let bare =
            lines.windows(2).filter(|two| uses(two[1]) && two[0] != "#[cfg(debug_assertions)]");
        assert_eq!(bare.count(), 0, "{path}: in a release build too");
    }
}

#[test]
fn no_machine_is_named() {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/tmp/str", "ait/"),
        concat!("/ho", "me/"),
    ];
    let named =
        all_files().into_iter().filter(|(_, text)| places.iter().any(|place| text.contains(place)));
    assert_none("paths of one machine", named.map(|(path, _)| path).collect());
}

#[test]
fn every_code_in_use_is_explained() {
    let explained = strait::error_codes::EXPLANATIONS;
    let mut unknown = BTreeSet::new();
    for (path, text) in rust_files("src").into_iter().filter(|(path, _)| !is_test_file(path)) {
        for part in running(&text).split("Code(").skip(1) {
            let number: Result<u16, _> = part.split(')').next().unwrap().parse();
            // `ErrorCode(..)` and patterns are no numbers of ours above 0.
            if let Ok(number @ 1..) = number
                && !explained.iter().any(|explanation| explanation.code == number)
                && !path.ends_with("error_code.rs")
            {
                unknown.insert(format!("{path}: ST-{number:03}"));
            }
        }
    }
    assert_none("codes that `strait explain` does not know", unknown.into_iter().collect());
    let codes: Vec<u16> = explained.iter().map(|explanation| explanation.code).collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
}

/// Names of all tests in the suites and in the sources.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in all_files() {
        for part in text.split("test]\n").skip(1) {
            let declaration = part.lines().find(|line| line.contains("fn "));
            if let Some(name) = declaration.and_then(|line| line.split("fn ").nth(1)) {
                names.insert(name.split(['(', '<']).next().unwrap().trim().to_owned());
            }
        }
    }
    names
}

#[test]
fn the_ledger_names_only_tests_that_exist_and_all_rules() {
    let ledger = fs::read_to_string(root().join("protocol-tests/LEDGER.md")).unwrap();
    let names = test_names();
    let quoted: BTreeSet<&str> = ledger.split('`').skip(1).step_by(2).collect();
    let unknown = quoted.iter().filter(|name| {
        name.contains('_')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !names.contains(**name)
    });
    assert_none(
        "the ledger names tests that do not exist",
        unknown.map(ToString::to_string).collect(),
    );
    let missing =
        names.iter().filter(|name| name.starts_with("rule_") && !quoted.contains(name.as_str()));
    assert_none("tests of rules that the ledger leaves out", missing.cloned().collect());
}
