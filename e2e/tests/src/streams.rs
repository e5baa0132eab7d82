//! TCP connections that carry data both ways all the time, every byte of it checked.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use herald_lab::Lab;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::inside::{ahead_of_others, inside};

/// How often each connection says something, and is answered with the same.
pub const PERIOD: Duration = Duration::from_millis(50);
/// Connections are looked after in turns, so that they don't all speak at once: one turn each millisecond.
const TURNS: usize = 50;
/// Answers that a connection may lack and still be with a node that is gone: those on their way.
const ON_THE_WAY: u32 = 4;
/// What a connection may take for its last answers once it has nothing more to say.
const LAST_ANSWERS: Duration = Duration::from_secs(15);
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// How a connection fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// The node whose pod it was with.
    pub node: String,
    /// How many lines it has sent, and got back as they were.
    pub lines: u32,
    /// The longest time between two answers.
    pub longest: Duration,
    /// When each answer came.
    pub answers: Vec<Instant>,
    /// Why it did not come to its end; `None` if it did.
    pub broken: Option<String>,
}

/// Connections that speak until [`Streams::finish`].
#[derive(Debug)]
pub struct Streams {
    /// Says which nodes are gone.
    stop: Sender<Vec<String>>,
    speaking: Option<JoinHandle<Vec<Fate>>>,
}

impl Streams {
    /// Opens so many at a place that is no node, towards an echo server of the lab.
    ///
    /// # Errors
    ///
    /// If one is not accepted, or not greeted as an echo server does.
    pub fn start(lab: &Lab, place: &str, to: SocketAddr, count: usize) -> Result<Self> {
        let mut streams = inside(lab, place, || {
            (0..count)
                .map(|number| Stream::open(to, u64::try_from(number)?))
                .collect::<Result<Vec<_>>>()
        })?;
        let (stop, stopped) = mpsc::channel();
        let speaking = thread::spawn(move || {
            ahead_of_others();
            let gone = speak(&mut streams, &stopped);
            end(&mut streams, &gone);
            streams.into_iter().map(Stream::fate).collect()
        });
        Ok(Self {
            stop,
            speaking: Some(speaking),
        })
    }

    /// Lets each say its last, hear its last, and end. Those that are with a pod on a node that is `gone`
    /// and have not been answered are not waited for.
    ///
    /// # Errors
    ///
    /// If their thread has panicked.
    pub fn finish(mut self, gone: &[&str]) -> Result<Vec<Fate>> {
        let gone = gone.iter().map(|&node| node.to_owned()).collect();
        self.stop.send(gone).ok();
        let speaking = self.speaking.take().context("it is finished once")?;
        speaking
            .join()
            .map_err(|_panic| anyhow!("the thread of the streams has panicked"))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.send(Vec::new()).ok();
        if let Some(speaking) = self.speaking.take() {
            drop(speaking.join());
        }
    }
}

/// One connection. Its lines can be made again when they come back, so none need be kept.
#[derive(Debug)]
struct Stream {
    socket: TcpStream,
    number: u64,
    node: String,
    sent: u32,
    received: u32,
    /// Of a line that has come in part.
    part: Vec<u8>,
    /// Of a line that has gone in part.
    rest: Vec<u8>,
    opened: Instant,
    answers: Vec<Instant>,
    ended: bool,
    broken: Option<String>,
}

impl Stream {
    fn open(to: SocketAddr, number: u64) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&to, CONNECT_TIME)?;
        socket.set_read_timeout(Some(CONNECT_TIME))?;
        let mut greeting = String::new();
        BufReader::new(&socket).read_line(&mut greeting)?;
        let node = greeting
            .split_whitespace()
            .find_map(|field| field.strip_prefix("node="))
            .with_context(|| format!("no greeting of an echo server: {greeting:?}"))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            node: node.to_owned(),
            socket,
            number,
            sent: 0,
            received: 0,
            part: Vec::new(),
            rest: Vec::new(),
            opened: Instant::now(),
            answers: Vec::new(),
            ended: false,
            broken: None,
        })
    }

    fn is_open(&self) -> bool {
        !self.ended && self.broken.is_none()
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.broken.get_or_insert_with(|| format!("{error:#}"));
    }

    fn say(&mut self) -> Result<()> {
        self.rest.extend(line(self.number, self.sent));
        self.sent += 1;
        match self.socket.write(&self.rest) {
            Ok(length) => drop(self.rest.drain(..length)),
            // The buffers are full while nothing is acknowledged.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("sending"),
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    let (sent, received) = (self.sent, self.received);
                    ensure!(sent == received, "ended after {received} of {sent} lines");
                    return Ok(());
                }
                Ok(length) => {
                    self.part.extend(buffer.iter().take(length));
                    self.check()?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }

    fn check(&mut self) -> Result<()> {
        while let Some(end) = self.part.iter().position(|byte| *byte == b'\n') {
            let came: Vec<u8> = self.part.drain(..=end).collect();
            ensure!(
                self.received < self.sent && came == line(self.number, self.received),
                "line {} is not what was sent: {:?}",
                self.received,
                String::from_utf8_lossy(&came)
            );
            self.received += 1;
            self.answers.push(Instant::now());
        }
        Ok(())
    }

    fn fate(self) -> Fate {
        let broken = match self.broken {
            None if !self.ended => Some(format!(
                "{} of {} lines came back",
                self.received, self.sent
            )),
            other => other,
        };
        let since = std::iter::once(&self.opened).chain(&self.answers);
        let waits = since.zip(&self.answers).map(|(before, at)| *at - *before);
        Fate {
            node: self.node,
            lines: self.received,
            longest: waits.max().unwrap_or_default(),
            answers: self.answers,
            broken,
        }
    }
}

/// What a connection says, different from what all others say and from what it says at other times.
fn line(stream: u64, number: u32) -> Vec<u8> {
    // splitmix64, https://prng.di.unimi.it/splitmix64.c
    let mut state = (stream << 32) | u64::from(number);
    let mut text = format!("{number:08x}");
    for _ in 0..3 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Writing to a String cannot fail.
        write!(text, "{:016x}", mixed ^ (mixed >> 31)).ok();
    }
    text.push('\n');
    text.into_bytes()
}

/// Speaks until it is told to stop: which nodes are gone.
fn speak(streams: &mut [Stream], stop: &Receiver<Vec<String>>) -> Vec<String> {
    let pause = PERIOD / u32::try_from(TURNS).unwrap_or(1);
    let mut due = Instant::now();
    let mut turn = 0;
    loop {
        match stop.try_recv() {
            Ok(gone) => return gone,
            Err(TryRecvError::Disconnected) => return Vec::new(),
            Err(TryRecvError::Empty) => {}
        }
        let mine = streams.iter_mut().skip(turn % TURNS).step_by(TURNS);
        for stream in mine.filter(|stream| stream.is_open()) {
            if let Err(error) = stream.say() {
                stream.fail(&error);
            }
        }
        turn += 1;
        // What was missed is not made up for: that would be a burst.
        due = (due + pause).max(Instant::now());
        while let Some(rest) = due.checked_duration_since(Instant::now()) {
            hear_all(streams, rest);
        }
    }
}

fn end(streams: &mut [Stream], gone: &[String]) {
    let unanswered = |it: &&mut Stream| it.sent - it.received > ON_THE_WAY;
    let gone = streams.iter_mut().filter(|it| gone.contains(&it.node));
    for stream in gone.filter(unanswered) {
        stream.fail(&anyhow!("its node is gone"));
    }
    let deadline = Instant::now() + LAST_ANSWERS;
    let mut said_all = vec![false; streams.len()];
    while Instant::now() < deadline && streams.iter().any(Stream::is_open) {
        for (stream, said_all) in streams.iter_mut().zip(&mut said_all) {
            if stream.is_open() && !*said_all && stream.sent == stream.received {
                *said_all = true;
                if let Err(error) = stream.socket.shutdown(Shutdown::Write) {
                    stream.fail(&anyhow!(error).context("ending"));
                }
            }
            // The rest of a line that has gone in part.
            if stream.is_open()
                && !stream.rest.is_empty()
                && let Ok(length) = stream.socket.write(&stream.rest)
            {
                drop(stream.rest.drain(..length));
            }
        }
        hear_all(streams, PERIOD);
    }
}

/// Takes what comes, for so long at most.
fn hear_all(streams: &mut [Stream], limit: Duration) {
    let open: Vec<_> = (0..streams.len())
        .filter(|index| streams.get(*index).is_some_and(Stream::is_open))
        .collect();
    let ready: Vec<_> = {
        let mut fds: Vec<_> = open
            .iter()
            .filter_map(|index| streams.get(*index))
            .map(|stream| PollFd::new(stream.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        // Rounded up: a poll of no time at all would be a busy loop.
        let limit = u16::try_from(limit.as_millis()).unwrap_or(1000) + 1;
        poll(&mut fds, PollTimeout::from(limit)).ok();
        fds.iter().map(|fd| fd.any().unwrap_or_default()).collect()
    };
    for (index, ready) in open.into_iter().zip(ready) {
        if let Some(stream) = streams.get_mut(index).filter(|_| ready)
            && let Err(error) = stream.hear()
        {
            stream.fail(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let greet = thread::spawn(move || {
            let (mut other, _) = listener.accept().expect("a connection");
            other.write_all(b"pod=a node=node2\n").expect("greets");
            other
        });
        let stream = Stream::open(address, 7).expect("greeted");
        (stream, greet.join().expect("accepts"))
    }

    fn hear_until(stream: &mut Stream, done: impl Fn(&Stream) -> bool) -> Result<()> {
        while !done(stream) {
            stream.hear()?;
            thread::yield_now();
        }
        Ok(())
    }

    #[test]
    fn lines_that_come_back_whole_and_in_order_are_right() {
        let (mut stream, mut other) = pair();
        assert_eq!(stream.node, "node2");
        for _ in 0..3 {
            stream.say().expect("sent");
        }
        for number in 0..3 {
            let line = line(7, number);
            let (first, second) = line.split_at(20);
            other.write_all(first).expect("sent");
            other.write_all(second).expect("sent");
        }
        hear_until(&mut stream, |it| it.received == 3).expect("right");
        other.shutdown(Shutdown::Write).expect("ends");
        hear_until(&mut stream, |it| it.ended).expect("right");
        assert_eq!(stream.fate().broken, None);
    }

    #[test]
    fn a_line_that_is_another_breaks_the_stream() {
        let (mut stream, mut other) = pair();
        stream.say().expect("sent");
        stream.say().expect("sent");
        other.write_all(&line(7, 1)).expect("sent");
        let error = hear_until(&mut stream, |it| it.received > 0).expect_err("wrong");
        assert!(error.to_string().starts_with("line 0 is not"), "{error}");
    }

    #[test]
    fn an_end_before_all_has_come_back_breaks_the_stream() {
        let (mut stream, other) = pair();
        stream.say().expect("sent");
        other.shutdown(Shutdown::Write).expect("ends");
        hear_until(&mut stream, |it| it.ended).expect_err("too early");
    }

    #[test]
    fn no_two_lines_are_the_same() {
        assert_ne!(line(1, 0), line(0, 1));
        assert_ne!(line(1, 1), line(1, 2));
    }
}
