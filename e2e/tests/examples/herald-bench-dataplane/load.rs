//! What the client does: connections, questions, a stream; and what all that costs the machine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use herald_e2e::inside::inside;
use herald_e2e::wait::go_on;
use herald_lab::Lab;
use socket2::SockRef;

use herald_e2e::bench::stage::CLIENT;

/// After this long without an answer an attempt has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// A datagram that is not answered after this long is lost.
const UDP_PATIENCE: Duration = Duration::from_millis(200);
/// Datagrams that a socket has under way.
const WINDOW: usize = 16;
/// The echo server takes lines of less than 64 KiB.
const LINE_BYTES: usize = 60_000;
/// Ticks of `/proc/stat` in a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a run of new connections has shown.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(crate) per_second: f64,
    /// From the start to the server's greeting.
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) failed: usize,
    /// Processor time of all hosts, kernel and programs, for one.
    pub(crate) cpu_each: Duration,
}

/// Has so many threads connect one time after the other to each of these addresses in turn. Each waits for
/// the greeting and resets the connection, so that none is left waiting for its port. `stranger` is a node
/// that must not greet.
pub(crate) fn connections(
    lab: &Lab,
    to: &[SocketAddr],
    stranger: &str,
    threads: usize,
    time: Duration,
) -> Result<Connections> {
    go_on()?;
    let stranger = format!("node={stranger} ");
    let before = busy_seconds()?;
    let began = Instant::now();
    let until = began + time;
    let work = |number: usize| -> Result<(Vec<Duration>, usize)> {
        let mut times = Vec::new();
        let mut failed = 0;
        for address in to.iter().cycle().skip(number) {
            let at = Instant::now();
            if at >= until {
                break;
            }
            match greeting(*address) {
                Ok(greeting) => {
                    ensure!(!greeting.contains(&stranger), "greeted with {greeting:?}");
                    times.push(at.elapsed());
                }
                Err(_) => failed += 1,
            }
        }
        Ok((times, failed))
    };
    let all = inside(lab, CLIENT, || at_once(threads, work))?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = busy_seconds()? - before;
    let failed = all.iter().map(|(_, failed)| failed).sum();
    let mut times: Vec<Duration> = all.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_unstable();
    let last = times.len().checked_sub(1).context("no connection at all")?;
    let at = |percent: usize| times.get(last * percent / 100).copied().unwrap_or_default();
    let count = f64::from(u32::try_from(times.len())?);
    Ok(Connections {
        per_second: count / seconds,
        median: at(50),
        p99: at(99),
        failed,
        cpu_each: Duration::from_secs_f64(cpu_seconds / count),
    })
}

/// Runs a job on several threads of this network namespace.
fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        all.into_iter()
            .map(|it| it.join().map_err(|_panic| anyhow!("a thread panicked"))?)
            .collect()
    })
}

fn greeting(to: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0; 256];
    let mut length = 0;
    while !greeting[..length].contains(&b'\n') {
        let read = stream.read(&mut greeting[length..])?;
        ensure!(read > 0, "closed without a greeting");
        length += read;
    }
    Ok(String::from_utf8_lossy(&greeting[..length]).into_owned())
}

/// Datagrams answered in a second: so many sockets, each with some under way.
pub(crate) fn datagrams(
    lab: &Lab,
    to: &[SocketAddr],
    sockets: usize,
    time: Duration,
) -> Result<f64> {
    go_on()?;
    let began = Instant::now();
    let until = began + time;
    let work = |number: usize| -> Result<u32> {
        let to = to.get(number % to.len()).context("no address")?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(UDP_PATIENCE))?;
        let mut answered = 0;
        let mut answer = [0; 512];
        while Instant::now() < until {
            for _ in 0..WINDOW {
                socket.send(b"?")?;
            }
            for _ in 0..WINDOW {
                if socket.recv(&mut answer).is_err() {
                    break;
                }
                answered += 1;
            }
        }
        Ok(answered)
    };
    let answered: u32 = inside(lab, CLIENT, || at_once(sockets, work))?
        .into_iter()
        .sum();
    Ok(f64::from(answered) / began.elapsed().as_secs_f64())
}

/// Bytes a second of one stream that the server gives back, as they come back.
pub(crate) fn bulk(lab: &Lab, to: SocketAddr, time: Duration) -> Result<f64> {
    go_on()?;
    let transfer = || -> Result<f64> {
        let mut writing = TcpStream::connect_timeout(&to, PATIENCE)?;
        writing.set_write_timeout(Some(PATIENCE))?;
        let mut reading = writing.try_clone()?;
        reading.set_read_timeout(Some(PATIENCE))?;
        let done = AtomicBool::new(false);
        let mut line = vec![b'x'; LINE_BYTES];
        line.push(b'\n');
        thread::scope(|scope| {
            scope.spawn(|| {
                // It ends when the reader closes both directions, at the latest.
                while !done.load(Ordering::Relaxed) {
                    if writing.write_all(&line).is_err() {
                        break;
                    }
                }
            });
            let began = Instant::now();
            let mut read_bytes = 0;
            let mut buffer = vec![0; 1 << 16];
            let read = loop {
                match reading.read(&mut buffer) {
                    Ok(0) => break Err(anyhow!("the stream ended")),
                    Ok(bytes) => read_bytes += bytes,
                    Err(error) => break Err(error.into()),
                }
                if began.elapsed() >= time {
                    break Ok(());
                }
            };
            let seconds = began.elapsed().as_secs_f64();
            done.store(true, Ordering::Relaxed);
            reading.shutdown(std::net::Shutdown::Both).ok();
            read?;
            Ok(f64::from(u32::try_from(read_bytes / 1000)?) * 1000.0 / seconds)
        })
    };
    inside(lab, CLIENT, transfer)
}

/// Processor time that all hosts have used so far: they all are on this machine.
fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    busy_ticks(&text)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .context("no processor in /proc/stat")
}

/// All but idle, waiting for disks, and what the hypervisor took: proc(5).
fn busy_ticks(stat: &str) -> Option<f64> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<f64> = times
        .split_whitespace()
        .map_while(|it| it.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = times.as_slice() else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_all_but_idle_and_stolen() {
        let ticks = busy_ticks("cpu  1 2 4 1000 1000 8 16 1000 0 0\ncpu0 1 1 1 1\n");
        assert_eq!(ticks, Some(31.0));
        assert_eq!(busy_ticks("intr 1\n"), None);
    }
}
