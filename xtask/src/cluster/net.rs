//! A network of its own for a cluster: each node in a network namespace, all of them and the clients
//! on one bridge. What goes from one to another can be made to vanish, in one direction or both,
//! as on a wire that was cut: nobody is told.
//!
//! Packets are cut where they leave, by an address of the link that nobody has: routes, sockets and
//! the other directions do not notice. All of it ends with the processes that hold the namespaces.

use crate::Result;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Where the clients are, and the tools: the namespace of this process.
pub const CLIENTS: i32 = 0;

pub struct Net {
    /// The bridge is in there.
    switch: Holder,
    nodes: BTreeMap<i32, Holder>,
    /// The clients' end.
    device: String,
    /// The third part of the addresses.
    group: u32,
}

/// A process that keeps a network namespace, until its input ends.
struct Holder(Child);

impl Holder {
    fn start() -> Result<Holder> {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c"])
            .arg("ip link set lo up && echo up && read end")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("no network namespaces here: unshare: {e}"))?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let holder = Holder(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if line.trim() != "up" {
            return Err("no network namespaces may be made here".into());
        }
        Ok(holder)
    }

    /// What a command line begins with that runs in there.
    fn prefix(&self) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.0.id());
        vec!["nsenter".into(), namespace, "--".into()]
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Net {
    pub fn open() -> Result<Net> {
        let net = Net {
            switch: Holder::start()?,
            nodes: BTreeMap::new(),
            device: format!("klamm{}", std::process::id()),
            group: std::process::id() % 250,
        };
        let (device, switch) = (&net.device, net.switch.0.id());
        ip(
            None,
            &format!("link add {device} type veth peer name clients netns {switch}"),
        )?;
        let within = Some(&net.switch);
        ip(within, "link add bridge type bridge")?;
        ip(within, "link set bridge up")?;
        ip(within, "link set clients master bridge up")?;
        net.raise(CLIENTS)?;
        Ok(net)
    }

    /// Makes the place of a node, unless it is there.
    pub fn add(&mut self, id: i32) -> Result<()> {
        if self.nodes.contains_key(&id) {
            return Ok(());
        }
        let holder = Holder::start()?;
        let within = Some(&self.switch);
        let peer = holder.0.id();
        ip(
            within,
            &format!("link add n{id} type veth peer name eth0 netns {peer}"),
        )?;
        ip(within, &format!("link set n{id} master bridge up"))?;
        let others: Vec<i32> = self.nodes.keys().copied().chain([CLIENTS]).collect();
        self.nodes.insert(id, holder);
        self.raise(id)?;
        for other in others {
            self.join(id, other)?;
            self.join(other, id)?;
        }
        Ok(())
    }

    fn raise(&self, id: i32) -> Result<()> {
        let (device, address, link) = (self.device(id), self.address(id), link(id));
        ip(
            self.holder(id),
            &format!("link set {device} address {link}"),
        )?;
        ip(
            self.holder(id),
            &format!("addr add {address}/24 dev {device}"),
        )?;
        ip(self.holder(id), &format!("link set {device} up"))
    }

    fn holder(&self, id: i32) -> Option<&Holder> {
        self.nodes.get(&id)
    }

    fn device(&self, id: i32) -> &str {
        if id == CLIENTS { &self.device } else { "eth0" }
    }

    pub fn address(&self, id: i32) -> String {
        format!("10.221.{}.{}", self.group, id + 1)
    }

    /// What the command line of a node begins with.
    pub fn prefix(&self, id: i32) -> Vec<String> {
        self.holder(id).map_or_else(Vec::new, Holder::prefix)
    }

    fn send_to(&self, from: i32, to: i32, link: &str) -> Result<()> {
        let (address, device) = (self.address(to), self.device(from));
        let told = format!("neigh replace {address} lladdr {link} dev {device} nud permanent");
        ip(self.holder(from), &told)
    }

    /// From now on nothing gets from one to the other; the way back stays.
    pub fn cut(&self, from: i32, to: i32) -> Result<()> {
        self.send_to(from, to, "02:00:00:00:ff:ff")
    }

    fn join(&self, from: i32, to: i32) -> Result<()> {
        self.send_to(from, to, &link(to))
    }

    /// All can reach all.
    pub fn heal(&self) -> Result<()> {
        let places: Vec<i32> = self.nodes.keys().copied().chain([CLIENTS]).collect();
        for from in &places {
            for to in places.iter().filter(|to| *to != from) {
                self.join(*from, *to)?;
            }
        }
        Ok(())
    }
}

fn link(id: i32) -> String {
    format!("02:00:00:00:00:{id:02x}")
}

fn ip(within: Option<&Holder>, arguments: &str) -> Result<()> {
    let mut words = within.map_or_else(Vec::new, Holder::prefix);
    words.push("ip".into());
    words.extend(arguments.split(' ').map(String::from));
    let out = Command::new(&words[0]).args(&words[1..]).output();
    let out = out.map_err(|e| format!("{}: {e}", words[0]))?;
    if out.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&out.stderr);
    Err(format!("ip {arguments}: {}", error.trim()).into())
}
