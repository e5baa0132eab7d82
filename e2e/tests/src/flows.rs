//! UDP flows that ask an echo server all the time: which of them is answered, when, and from where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use herald_lab::Lab;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::inside::{ahead_of_others, inside};

/// How many flows there are: source ports, one socket each.
pub const FLOWS: usize = 64;
const FIRST_PORT: u16 = 20_000;
/// Between two questions, whichever flow's: each flow asks every [`FLOWS`] of these.
pub const PERIOD: Duration = Duration::from_millis(1);
/// A question that is not answered after this long never is.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// One question. Number `n` is asked by flow `n % FLOWS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// When it was sent.
    pub at: Instant,
    /// When it was answered, and the node whose pod did.
    pub answer: Option<(Instant, Arc<str>)>,
}

/// All questions of some flows until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// In the order they were sent.
    pub questions: Vec<Question>,
    /// The moment.
    pub until: Instant,
}

/// Asks until it is dropped.
#[derive(Debug)]
pub struct Flows {
    questions: Arc<Mutex<Vec<Question>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flows {
    /// Starts at a place that is no node, towards an echo server of the lab.
    ///
    /// # Errors
    ///
    /// If a source port is taken there.
    pub fn start(lab: &Lab, place: &str, to: SocketAddr) -> Result<Self> {
        let any: IpAddr = if to.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let sockets = inside(lab, place, || {
            (0..FLOWS)
                .map(|flow| {
                    let port = FIRST_PORT + u16::try_from(flow)?;
                    let socket = UdpSocket::bind((any, port))
                        .with_context(|| format!("binding UDP port {port}"))?;
                    socket.connect(to)?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })
                .collect::<Result<Vec<_>>>()
        })?;
        let sockets = Arc::new(sockets);
        let questions = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let ask = {
            let (sockets, questions, stop) = (
                Arc::clone(&sockets),
                Arc::clone(&questions),
                Arc::clone(&stop),
            );
            thread::spawn(move || {
                ahead_of_others();
                ask(&sockets, &questions, &stop);
            })
        };
        let listen = {
            let (questions, stop) = (Arc::clone(&questions), Arc::clone(&stop));
            thread::spawn(move || {
                ahead_of_others();
                listen(&sockets, &questions, &stop);
            })
        };
        Ok(Self {
            questions,
            stop,
            threads: vec![ask, listen],
        })
    }

    /// All until now.
    pub fn record(&self) -> Record {
        Record {
            questions: lock(&self.questions).clone(),
            until: Instant::now(),
        }
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn lock(questions: &Mutex<Vec<Question>>) -> std::sync::MutexGuard<'_, Vec<Question>> {
    questions.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask(sockets: &[UdpSocket], questions: &Mutex<Vec<Question>>, stop: &AtomicBool) {
    let mut due = Instant::now();
    for number in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        lock(questions).push(Question { at, answer: None });
        let text = number.to_string();
        if let Some(socket) = sockets.get(number % FLOWS)
            // The first error may be an earlier question's.
            && socket.send(text.as_bytes()).is_err()
        {
            drop(socket.send(text.as_bytes()));
        }
        // What was missed is not made up for: that would be a burst.
        due = at.max(due) + PERIOD;
    }
}

fn listen(sockets: &[UdpSocket], questions: &Mutex<Vec<Question>>, stop: &AtomicBool) {
    let mut buffer = [0; 512];
    let mut nodes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut ready: Vec<_> = sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        if poll(&mut ready, PollTimeout::from(100_u8)).is_err() {
            continue;
        }
        let at = Instant::now();
        for (socket, ready) in sockets.iter().zip(ready) {
            if !ready.any().unwrap_or_default() {
                continue;
            }
            // An error was some question's, and has been taken note of by reading it.
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                let Some((number, node)) = parse(&text) else {
                    continue;
                };
                if let Some(question) = lock(questions).get_mut(number)
                    && question.answer.is_none()
                {
                    question.answer = Some((at, Arc::clone(known(&mut nodes, node))));
                }
            }
        }
    }
}

/// A name that many answers share.
fn known<'a>(names: &'a mut Vec<Arc<str>>, name: &str) -> &'a Arc<str> {
    let index = names.iter().position(|known| **known == *name);
    let index = index.unwrap_or_else(|| {
        names.push(name.into());
        names.len() - 1
    });
    &names[index]
}

/// The number and the node in an answer of the echo server.
fn parse(answer: &str) -> Option<(usize, &str)> {
    let field = |name: &str| {
        answer
            .split_whitespace()
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    Some((field("data")?.parse().ok()?, field("node")?))
}

impl Record {
    fn of<'a>(&'a self, flows: &'a BTreeSet<usize>) -> impl Iterator<Item = &'a Question> {
        let numbered = self.questions.iter().enumerate();
        numbered
            .filter(|(number, _)| flows.contains(&(number % FLOWS)))
            .map(|(_, question)| question)
    }

    /// The flows whose last answer before a moment is a pod's on one of the nodes that `is` says.
    pub fn answered_by(&self, before: Instant, is: impl Fn(&str) -> bool) -> BTreeSet<usize> {
        let last = |flow: usize| {
            let asked = self.questions.iter().skip(flow).step_by(FLOWS);
            asked
                .filter_map(|question| question.answer.as_ref())
                .rfind(|(at, _)| *at < before)
        };
        (0..FLOWS)
            .filter(|flow| last(*flow).is_some_and(|(_, node)| is(node)))
            .collect()
    }

    /// How many flows each node's pods answered last, before a moment.
    pub fn by_node(&self, before: Instant) -> BTreeMap<String, usize> {
        let answers = self.questions.iter().filter_map(|it| it.answer.as_ref());
        let nodes: BTreeSet<&str> = answers.map(|(_, node)| &**node).collect();
        nodes
            .into_iter()
            .map(|node| {
                (
                    node.to_owned(),
                    self.answered_by(before, |by| by == node).len(),
                )
            })
            .collect()
    }

    /// The longest time in which none of the flows had an answer, of what lies between two moments.
    pub fn silence(&self, flows: &BTreeSet<usize>, from: Instant, to: Instant) -> Duration {
        let mut times: Vec<_> = self
            .of(flows)
            .filter_map(|question| question.answer.as_ref())
            .map(|(at, _)| *at)
            .filter(|at| (from..to).contains(at))
            .collect();
        times.sort();
        let ends = times.iter().copied().chain([to]);
        std::iter::once(from)
            .chain(times.iter().copied())
            .zip(ends)
            .map(|(before, after)| after.saturating_duration_since(before))
            .max()
            .unwrap_or_default()
    }

    /// How many questions of the flows were never answered, of those since a moment.
    pub fn lost(&self, flows: &BTreeSet<usize>, since: Instant) -> usize {
        self.unanswered(flows, since).count()
    }

    fn unanswered<'a>(
        &'a self,
        flows: &'a BTreeSet<usize>,
        since: Instant,
    ) -> impl Iterator<Item = &'a Question> {
        self.of(flows)
            .filter(move |question| question.at >= since && question.answer.is_none())
            .filter(|question| self.until.saturating_duration_since(question.at) >= PATIENCE)
    }

    /// How long after a moment each of the flows had an answer to each of its questions again; `None`
    /// if that is not so yet.
    pub fn settled(&self, flows: &BTreeSet<usize>, since: Instant) -> Option<Duration> {
        let Some(lost) = self.unanswered(flows, since).last() else {
            return Some(Duration::ZERO);
        };
        let after = lost.at.saturating_duration_since(since);
        // One round without a loss behind it.
        let round = PERIOD * u32::try_from(FLOWS).unwrap_or(u32::MAX);
        (self.until.saturating_duration_since(lost.at) >= PATIENCE + round * 2).then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// A question each millisecond, of which `answer` says whether and by whom it is answered, at once.
    fn record(count: u64, answer: impl Fn(u64) -> Option<&'static str>) -> (Instant, Record) {
        let began = Instant::now();
        let question = |number| {
            let at = began + ms(number);
            let answer = answer(number).map(|node| (at, node.into()));
            Question { at, answer }
        };
        let questions = (0..count).map(question).collect();
        let until = began + ms(count);
        (began, Record { questions, until })
    }

    #[test]
    fn reads_number_and_node_of_an_answer() {
        let answer = "pod=a node=node2 client=172.30.0.100 port=20001 data=4711\n";
        assert_eq!(parse(answer), Some((4711, "node2")));
        assert_eq!(parse("pod=a node=node2 client=172.30.0.100"), None);
    }

    #[test]
    fn silence_is_the_longest_time_without_an_answer_and_ends_with_the_record() {
        let all = (0..FLOWS).collect();
        let (began, seen) = record(1000, |at| (!(300..450).contains(&at)).then_some("node1"));
        let (from, to) = (began + ms(100), began + ms(1000));
        assert_eq!(seen.silence(&all, from, to), ms(151));
        let (began, seen) = record(1000, |at| (at < 700).then_some("node1"));
        assert_eq!(seen.silence(&all, began, began + ms(1000)), ms(301));
    }

    #[test]
    fn only_the_flows_asked_about_count() {
        let (began, seen) = record(2000, |at| {
            let even = (at % 2) == 0;
            (even || at < 500).then_some(if even { "node1" } else { "node2" })
        });
        let even = seen.answered_by(began + ms(500), |node| node == "node1");
        let odd = seen.answered_by(began + ms(500), |node| node == "node2");
        assert_eq!((even.len(), odd.len()), (FLOWS / 2, FLOWS / 2));
        assert_eq!(seen.settled(&even, began + ms(500)), Some(Duration::ZERO));
        assert_eq!(seen.settled(&odd, began + ms(500)), None);
    }

    #[test]
    fn settled_is_when_the_last_question_was_lost() {
        let all = (0..FLOWS).collect();
        // Back for a moment, then gone again.
        let lost = |at| (600..700).contains(&at) || (750..800).contains(&at);
        let (began, seen) = record(3000, |at| (!lost(at)).then_some("node1"));
        assert_eq!(seen.settled(&all, began + ms(590)), Some(ms(209)));
        assert_eq!(seen.lost(&all, began + ms(590)), 150);
    }
}
