//! README's first section as it is written: two fresh hosts, its commands, and its addresses.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use bondwire_bench::namespace::Namespace;

use crate::pair::{page, serve_on, serve_page};
use crate::recipe::{README, blocks, pasted};
use crate::tools::{able, run};
use crate::user::{PROGRAM, Running, User};

/// Bytes of the page that the server serves.
const PAGE_BYTES: usize = 300_000;

/// A host that nobody has used before, with a name and a network of its own.
struct Host {
    name: &'static str,
    namespace: Namespace,
    user: User,
}

impl Host {
    fn new(name: &'static str) -> Self {
        Self { name, namespace: Namespace::create().unwrap(), user: User::new() }
    }

    /// What a shell of this host's user would run.
    fn shell(&self, command: &str) -> Command {
        let mut shell = self.user.command(Path::new("ip"));
        let folder = Path::new(PROGRAM).parent().unwrap().display();
        shell
            .env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap()))
            // As on a new machine. The folder of sockets stays: both hosts have one file system.
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .args(["netns", "exec", self.namespace.name(), "unshare", "--uts", "sh", "-c"])
            .arg(format!("echo {} > /proc/sys/kernel/hostname && exec {command}", self.name))
            .stdin(Stdio::null());
        shell
    }
}

/// A server with an address on each of two networks, a laptop on both, and a web server at port 80 of the server.
fn hosts() -> [Host; 2] {
    let (server, laptop) = (Host::new("server"), Host::new("laptop"));
    for (device, network) in [("eth0", "192.168.1"), ("eth1", "10.0.0")] {
        let other = laptop.namespace.name();
        server
            .namespace
            .ip(&format!("link add {device} type veth peer name {device} netns {other}"))
            .unwrap();
        for (host, number) in [(&server, 5), (&laptop, 9)] {
            host.namespace.ip(&format!("addr add {network}.{number}/24 dev {device}")).unwrap();
            host.namespace.ip(&format!("link set {device} up")).unwrap();
        }
    }
    let web = server.namespace.run(|| Ok(TcpListener::bind("127.0.0.1:80")?)).unwrap();
    serve_on(web, |stream| serve_page(stream, PAGE_BYTES));
    [server, laptop]
}

/// What goes on between the blocks: both programs of one block end before the next one.
#[derive(Default)]
struct Story {
    running: Vec<Running>,
    /// The line to paste, once the listener has printed it.
    printed: Option<String>,
    /// The command that shows that it works.
    check: Option<String>,
}

impl Story {
    /// Does what one line says, and waits until it has happened.
    fn step(&mut self, host: &Host, command: &str) {
        let command = pasted(command, self.printed.as_deref());
        if command.starts_with("bondwire ") {
            let mut running = Running::start(&mut host.shell(&command));
            if command.starts_with("bondwire listen ") {
                running.wait_for("listening on tcp ");
                if command.contains(" --pair") {
                    self.printed = Some(running.output_line());
                }
            } else {
                running.wait_for("forwarding ");
            }
            self.running.push(running);
        } else {
            assert!(
                run(&mut host.shell(&format!("{command} --silent --show-error"))).stdout == page(PAGE_BYTES)
            );
            self.check = Some(command);
        }
    }

    fn end_of_block(&mut self) {
        for running in self.running.drain(..).rev() {
            running.signal(rustix::process::Signal::INT);
            running.wait().assert_code(130);
        }
    }
}

#[test]
fn two_machines_in_one_minute() {
    let blocks = blocks(README, "Two machines in one minute");
    assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2], "{blocks:?}");
    if !able(&["ip", "unshare", "curl"], true) {
        return;
    }
    let hosts @ [_, laptop] = &hosts();
    let mut story = Story::default();
    for block in &blocks {
        let start = Instant::now();
        for step in block {
            let host = hosts.iter().find(|host| host.name == step.host);
            story.step(host.unwrap_or_else(|| panic!("no such host: {step:?}")), step.command);
        }
        // The last block has no command of its own to show that it works.
        if block.iter().all(|step| step.command.starts_with("bondwire ")) {
            let check = story.check.clone().unwrap();
            story.step(laptop, &check);
        }
        println!("{} commands to a page that came through: {:.2?}", block.len(), start.elapsed());
        story.end_of_block();
    }
}
