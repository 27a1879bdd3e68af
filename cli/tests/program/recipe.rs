//! README's commands, as they are written there.

pub(crate) const README: &str = include_str!("../../../README.md");
/// What stands for a token in README.
const TOKEN: &str = "bwpair1...";

/// One command, and the host that README runs it on.
#[derive(Debug, PartialEq)]
pub(crate) struct Step<'a> {
    pub(crate) host: &'a str,
    pub(crate) command: &'a str,
}

impl<'a> Step<'a> {
    /// A line such as `laptop$ bondwire devices   # shows them`.
    fn parse(line: &'a str) -> Self {
        // A user's prompt, or root's.
        let prompt = line.find(['$', '#']).unwrap_or_else(|| panic!("no host in {line:?}"));
        let command = line[prompt + 1..].split(" #").next().unwrap();
        Self { host: &line[..prompt], command: command.trim() }
    }
}

/// The blocks of commands below the heading `title`, up to the next heading.
pub(crate) fn blocks<'a>(text: &'a str, title: &str) -> Vec<Vec<Step<'a>>> {
    let mut lines = text.lines().skip_while(|line| line.trim_start_matches('#').trim_start() != title);
    assert!(lines.next().is_some_and(|line| line.starts_with('#')), "no heading {title:?}");
    let mut blocks = Vec::new();
    let mut fence = None;
    for line in lines {
        match (fence, line.strip_prefix("```")) {
            (None, Some(language)) => {
                fence = Some(language);
                if language == "sh" {
                    blocks.push(Vec::new());
                }
            }
            (Some(_), Some(_)) => fence = None,
            (Some("sh"), None) => blocks.last_mut().unwrap().push(Step::parse(line)),
            (None, None) if line.starts_with('#') => break,
            _ => {}
        }
    }
    blocks
}

/// `command` with the token that `listen --pair` printed, where README has one. What was printed must be what README shows.
pub(crate) fn pasted(command: &str, printed: Option<&str>) -> String {
    let Some((shown, _)) = command.split_once(TOKEN) else { return command.to_owned() };
    let token = printed.and_then(|line| line.strip_prefix(shown));
    let token = token.unwrap_or_else(|| panic!("README shows {shown:?}, printed was {printed:?}"));
    let prefix = TOKEN.trim_end_matches('.');
    assert!(token.starts_with(prefix) && !token.contains(' '), "{token:?} stands for {TOKEN:?}");
    command.replace(TOKEN, token)
}

#[test]
fn commands_are_found_below_a_heading() {
    let text = "# T\n\n## A\n\n```sh\nno$ x\n```\n\n### B\nWords\n```sh\na$ one two  # why\nb#  three\n```\nand\n```text\n# z\n```\n\
                ```sh\nc$ four\n```\n## C\n```sh\nno$ x\n```\n";
    let step = |host, command| Step { host, command };
    let expected = [vec![step("a", "one two"), step("b", "three")], vec![step("c", "four")]];
    assert_eq!(blocks(text, "B"), expected);
}
