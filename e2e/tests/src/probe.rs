//! A client that asks all the time, to see how long nobody answers.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use herald_lab::Lab;
use nix::sched::{CloneFlags, setns};

use crate::client::Reply;

/// Between the beginnings of two requests, unless one takes longer.
const PERIOD: Duration = Duration::from_millis(20);
/// A request that takes longer counts as unanswered, where it is about how long nobody answers.
const IMPATIENCE: Duration = Duration::from_millis(250);
/// The same where it is about single packets: a SYN that was lost is repeated after a second, and only then
/// (`TCP_TIMEOUT_INIT`, include/net/tcp.h). What is answered later than usual, as the machine is busy, is
/// answered.
const PATIENCE: Duration = Duration::from_millis(900);

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When it was sent.
    pub at: Instant,
    /// Who answered, or why nobody did.
    pub reply: Result<Reply, String>,
}

/// Asks over HTTP until it is dropped, each time over a new connection.
#[derive(Debug)]
pub struct Probe {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

impl Probe {
    /// Starts at a place that is no node, to see how long nobody answers.
    ///
    /// # Errors
    ///
    /// If the place can't be entered.
    pub fn start(lab: &Lab, place: &str, address: IpAddr, port: u16) -> Result<Self> {
        Self::with_patience(lab, place, SocketAddr::new(address, port), IMPATIENCE)
    }

    /// The same, to see whether a single packet is lost.
    ///
    /// # Errors
    ///
    /// If the place can't be entered.
    pub fn for_losses(lab: &Lab, place: &str, address: IpAddr, port: u16) -> Result<Self> {
        Self::with_patience(lab, place, SocketAddr::new(address, port), PATIENCE)
    }

    fn with_patience(lab: &Lab, place: &str, to: SocketAddr, patience: Duration) -> Result<Self> {
        let namespace = lab.network_namespace(place)?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let (entered, result) = mpsc::channel();
        let asking = thread::spawn(move || {
            let inside = enter(&namespace);
            let failed = inside.is_err();
            drop(entered.send(inside));
            while !failed && !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                let reply = ask(to, patience).map_err(|error| format!("{error:#}"));
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Asked { at, reply });
                thread::sleep(PERIOD.saturating_sub(at.elapsed()));
            }
        });
        result.recv()??;
        Ok(Self {
            asked,
            stop,
            asking: Some(asking),
        })
    }

    /// All requests until now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The longest time between two answers, and how many requests were lost.
    pub fn outage(&self) -> (Duration, usize) {
        let asked = self.asked();
        let lost = asked.iter().filter(|asked| asked.reply.is_err()).count();
        let answered: Vec<Instant> = asked
            .iter()
            .filter(|asked| asked.reply.is_ok())
            .map(|asked| asked.at)
            .collect();
        let longest = answered
            .windows(2)
            .filter_map(|pair| Some(pair.get(1)?.duration_since(*pair.first()?)))
            .max();
        (longest.unwrap_or_default(), lost)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(asking) = self.asking.take() {
            drop(asking.join());
        }
    }
}

fn enter(namespace: &PathBuf) -> Result<()> {
    let file =
        File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
}

fn ask(to: SocketAddr, patience: Duration) -> Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer
        .lines()
        .find_map(Reply::parse)
        .with_context(|| format!("no reply of an echo pod: {answer:?}"))
}
