//! What a client on the LAN asks, and what it is answered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use herald_lab::Lab;

use crate::capture::{Capture, Frame};
use crate::wait::{LONG, eventually};

/// Who answered one question, and whom it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The pod that answered.
    pub pod: String,
    /// The node it runs on.
    pub node: String,
    /// The address it took for the client's.
    pub client: String,
}

impl Reply {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = BTreeMap::new();
        for field in line.split(' ') {
            let (name, value) = field.split_once('=')?;
            fields.insert(name, value.to_owned());
        }
        Some(Self {
            pod: fields.remove("pod")?,
            node: fields.remove("node")?,
            client: fields.remove("client")?,
        })
    }
}

/// An address as a URL and a socket address want it.
pub fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A client of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    lab: &'a Lab,
    place: &'a str,
}

impl<'a> Client<'a> {
    /// The one at this place.
    pub fn at(lab: &'a Lab, place: &'a str) -> Self {
        Self { lab, place }
    }

    /// Asks over HTTP so many times, each over a connection of its own.
    ///
    /// # Errors
    ///
    /// If one of them is not answered in time.
    pub fn http(self, address: IpAddr, port: u16, count: usize) -> Result<Vec<Reply>> {
        let url = format!("http://{}:{port}/", host(address));
        let count = count.to_string();
        self.ask([
            "lab-echo",
            "get",
            "--count",
            &count,
            "--timeout",
            "3s",
            &url,
        ])
    }

    /// Asks over "tcp" or "udp" so many times; `from` is the source port, 0 any.
    ///
    /// # Errors
    ///
    /// If one of them is not answered in time.
    pub fn echo(
        self,
        protocol: &str,
        address: IpAddr,
        port: u16,
        from: u16,
        count: usize,
    ) -> Result<Vec<Reply>> {
        let to = format!("{}:{port}", host(address));
        let (from, count) = (from.to_string(), count.to_string());
        self.ask([
            "lab-echo",
            protocol,
            "--from",
            &from,
            "--count",
            &count,
            "--timeout",
            "3s",
            &to,
        ])
    }

    /// Sends datagrams of so many bytes, each of which comes back in the answer.
    ///
    /// # Errors
    ///
    /// If one of them does not come back whole in time.
    pub fn datagrams(
        self,
        address: IpAddr,
        port: u16,
        bytes: usize,
        count: usize,
    ) -> Result<Vec<Reply>> {
        let to = format!("{}:{port}", host(address));
        let (count, text) = (count.to_string(), "x".repeat(bytes));
        let command = ["lab-echo", "udp", "--count", &count, "--timeout", "3s"];
        let command = command.into_iter().chain([to.as_str(), &text]);
        let said = self.lab.exec(self.place, command)?.ok()?;
        let parse = |line: &str| {
            ensure!(line.ends_with(&text), "the answer is {line:?}");
            Reply::parse(line).with_context(|| format!("the answer is {line:?}"))
        };
        said.lines().map(parse).collect()
    }

    fn ask<const N: usize>(self, argv: [&str; N]) -> Result<Vec<Reply>> {
        let said = self.lab.exec(self.place, argv)?.ok()?;
        Ok(said.lines().filter_map(Reply::parse).collect())
    }

    /// That a TCP connection is not answered in any way: neither accepted nor refused.
    ///
    /// # Errors
    ///
    /// If it is.
    pub fn ignored(self, address: IpAddr, port: u16) -> Result<()> {
        let to = format!("{}:{port}", host(address));
        let output = self
            .lab
            .exec(self.place, ["lab-echo", "tcp", "--timeout", "2s", &to])?;
        ensure!(
            !output.success() && output.stderr.contains("i/o timeout"),
            "{to} answers {} with {}{}",
            self.place,
            output.stdout,
            output.stderr
        );
        Ok(())
    }

    /// Runs `ip` there.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn ip(self, args: &str) -> Result<String> {
        let command = ["ip"].into_iter().chain(args.split(' '));
        Ok(self.lab.exec(self.place, command)?.ok()?)
    }

    /// Forgets what it knows of a neighbour.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn forget(self, address: IpAddr) -> Result<()> {
        self.ip(&format!("neigh flush to {address} dev eth0"))
            .map(drop)
    }

    /// The MAC address it has for a neighbour, if any.
    ///
    /// # Errors
    ///
    /// If `ip` fails.
    pub fn neighbour(self, address: IpAddr) -> Result<Option<String>> {
        let shown = self.ip(&format!("neigh show {address} dev eth0"))?;
        let mut fields = shown.split_whitespace();
        let found = fields.by_ref().any(|field| field == "lladdr");
        Ok(found.then(|| fields.next().unwrap_or_default().to_owned()))
    }

    /// Asks the LAN who has this address: the MAC addresses that answer within a second, each once. One
    /// that answers more often than it was asked is there as often as it answers.
    ///
    /// # Errors
    ///
    /// If the question can't be asked.
    pub fn who_has(self, address: IpAddr) -> Result<Vec<String>> {
        let capture = Capture::start(self.lab, self.place)?;
        self.forget(address)?;
        // An unanswered question is no failure of the asking.
        match address {
            IpAddr::V4(address) => {
                let text = address.to_string();
                self.lab.exec(
                    self.place,
                    ["arping", "-c", "1", "-w", "1", "-i", "eth0", &text],
                )?
            }
            IpAddr::V6(address) => {
                let text = address.to_string();
                self.lab.exec(
                    self.place,
                    ["ping", "-6", "-c", "1", "-W", "1", "-I", "eth0", &text],
                )?
            }
        };
        let frames = self.all_until_now(&capture)?;
        let mut answers: Vec<String> = frames
            .iter()
            .filter(|frame| frame.answers(address))
            .map(|frame| frame.source.clone())
            .collect();
        // The client's own kernel may ask besides.
        let questions = frames.iter().filter(|frame| frame.asks(address)).count();
        if answers.len() <= questions {
            answers.sort();
            answers.dedup();
        }
        Ok(answers)
    }

    /// What a capture saw, with everything that was on the LAN before this call: it may be late. A
    /// question about the gateway comes last.
    fn all_until_now(self, capture: &Capture) -> Result<Vec<Frame>> {
        let marker = IpAddr::from([172, 30, 0, 1]);
        let asked = |frames: &[Frame]| frames.iter().filter(|it| it.asks(marker)).count();
        let before = asked(&capture.frames());
        let text = marker.to_string();
        let question = [
            "arping", "-c", "1", "-C", "1", "-w", "1", "-i", "eth0", &text,
        ];
        self.lab.exec(self.place, question)?;
        eventually("the capture has caught up", LONG, || {
            let frames = capture.frames();
            ensure!(asked(&frames) > before, "it saw {} frames", frames.len());
            Ok(frames)
        })
    }

    /// That exactly one node answers for this address, once per question: its MAC address.
    ///
    /// # Errors
    ///
    /// If it is otherwise.
    pub fn one_answer(self, address: IpAddr) -> Result<String> {
        let mut answers = self.who_has(address)?;
        ensure!(
            answers.len() == 1,
            "{address} is answered for by {answers:?}"
        );
        answers.pop().context("there is one")
    }
}

/// How many replies there are of each value.
pub fn shares(replies: &[Reply], of: impl Fn(&Reply) -> &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for reply in replies {
        *shares.entry(of(reply).to_owned()).or_default() += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_who_answered_and_skips_the_rest() {
        let reply = Reply::parse("pod=a node=n1 client=172.30.0.11 port=4711").expect("a reply");
        assert_eq!((reply.pod.as_str(), reply.node.as_str()), ("a", "n1"));
        assert_eq!(Reply::parse("GET / host=172.30.64.0"), None);
    }
}
