//! Rules of the source that no lint knows.

use std::fs;
use std::path::Path;

/// Longest source file, in lines before its tests.
const LINES_MAX: usize = 500;
/// Marks of work left undone. Written in two parts, so that this file is tidy too.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK:"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];
/// What the engine must not name: time and entropy are its arguments.
const FORBIDDEN_IN_CORE: [&str; 6] =
    ["std::time", "SystemTime", "thread::sleep", "tokio", "HashMap", "getrandom"];

/// What is wrong with one source file; `path` is relative to the workspace.
fn findings(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let is_test_file = path.split('/').any(|part| part == "tests") || path.ends_with("tests.rs");
    let code_lines = lines_before_tests(text);
    if !is_test_file && code_lines > LINES_MAX {
        findings.push(format!("{path}: {code_lines} lines without tests, more than {LINES_MAX}; split it"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        for mark in UNFINISHED.iter().filter(|mark| line.contains(**mark)) {
            findings.push(format!("{path}:{number}: {mark}: do it, or leave it out"));
        }
        let in_core = path.starts_with("core/src/") && number <= code_lines;
        let is_comment = line.trim_start().starts_with("//");
        for name in FORBIDDEN_IN_CORE.iter().filter(|name| in_core && !is_comment && line.contains(**name)) {
            findings.push(format!(
                "{path}:{number}: {name} in the engine, which gets time and entropy as arguments"
            ));
        }
    }
    findings
}

/// Lines before the module of tests; a test-only import further up does not begin it.
fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ") && pair[1].ends_with('{')
    });
    tests.unwrap_or(lines.len())
}

fn visit(root: &Path, folder: &Path, findings_so_far: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            visit(root, &path, findings_so_far);
        } else if name.ends_with(".rs") {
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            findings_so_far.extend(findings(&relative, &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_repository_is_tidy() {
    let mut found = Vec::new();
    visit(crate::root(), crate::root(), &mut found);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn each_rule_finds_its_fault() {
    let long = "// line\n".repeat(LINES_MAX + 1);
    assert_eq!(findings("a/src/b.rs", &long).len(), 1);
    assert_eq!(findings("a/tests/b.rs", &long).len(), 0);
    let tests = format!("#[cfg(test)]\nuse x;\nfn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(findings("a/src/b.rs", &tests).len(), 0);
    assert_eq!(findings("a/src/b.rs", concat!("// TO", "DO: later")).len(), 1);
    assert_eq!(findings("core/src/b.rs", "use std::time::Instant;").len(), 1);
    assert_eq!(findings("core/src/b.rs", "// std::time is not used").len(), 0);
    assert_eq!(findings("bond/src/b.rs", "use std::time::Instant;").len(), 0);
}
