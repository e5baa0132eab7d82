//! Two clients and three nodes on one LAN; the nodes run the programs and plain servers on their
//! `NodePorts`. Who holds the VIP is set in everybody's neighbour tables: no speaker runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use herald_dataplane::{
    Compiled, Counters, Desired, DesiredNode, DesiredPod, DesiredService, DesiredVip, Event,
    Forwarding, Holder, MapContents, MapName, MapOp, ServiceCounters, Spread, Targets, compile,
    diff,
};
use herald_e2e::netns::{Host, Lan};
use herald_model::{InterfaceName, NodeName, Protocol, ServiceKey};
use herald_speaker::io::bpf::{DataPlane, Hook, Options};
use ipnet::IpNet;

pub(crate) const VIP4: &str = "192.0.2.100";
pub(crate) const VIP6: &str = "2001:db8::100";
pub(crate) const PORT: u16 = 80;
pub(crate) const NODE_PORT: u16 = 30_080;
const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

/// The whole scene. Host 0 is the client, hosts 1 to 3 are the nodes, host 4 is another client.
pub(crate) struct World {
    planes: Vec<Loaded>,
    hooks: Vec<Hook>,
    pub(crate) wish: Wish,
    holder: usize,
    /// When the nodes hear of what is new; the origin: long ago.
    pub(crate) now: herald_model::Instant,
    // Dropped last: the namespaces go.
    pub(crate) lan: Lan,
}

struct Loaded {
    data_plane: DataPlane,
    contents: MapContents,
    compiled: Compiled,
}

/// What may differ from test to test; the rest of [`Desired`] follows from the LAN.
#[derive(Clone)]
pub(crate) struct Wish {
    /// The addresses that the node holds.
    pub(crate) vips: Vec<&'static str>,
    /// Nodes that are targets, by number.
    pub(crate) targets: Vec<usize>,
    /// Nodes whose pods keep their connections and get no new ones, by number.
    pub(crate) draining: Vec<usize>,
    pub(crate) source_ranges: Vec<IpNet>,
    pub(crate) mode: Mode,
    /// Nodes that have no speaker on the segment, by number.
    pub(crate) far: Vec<usize>,
    pub(crate) spread: Spread,
    pub(crate) node_port: u16,
    /// Nodes that are mistaken about the holder.
    pub(crate) mistaken: BTreeMap<usize, usize>,
    /// Nodes whose tables lead to this one alone.
    pub(crate) astray: BTreeMap<usize, usize>,
    /// Whether nobody knows which MAC addresses are nodes'.
    pub(crate) strangers: bool,
}

/// How the Service is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Left to the stack.
    Off,
    NodePort,
    Direct,
    /// As `Direct`, to a node that the client's address alone chooses.
    ByAddress,
    /// To the node's server as if it were a pod: one in the node's own network.
    Pods,
}

impl World {
    /// Everything set up; node 1 holds the VIPs.
    pub(crate) fn new() -> Result<Self> {
        Self::on(&[Hook::Tcx, Hook::Clsact])
    }

    /// The same, forwarding in this mode; where that needs kube-proxy to translate, it does.
    pub(crate) fn by(mode: Mode) -> Result<Self> {
        let mut world = Self::new()?;
        world.wish.mode = mode;
        world.program()?;
        if mode == Mode::Direct {
            world.translate()?;
        }
        Ok(world)
    }

    /// The same on the first of these hooks that takes the programs.
    pub(crate) fn on(hooks: &[Hook]) -> Result<Self> {
        let lan = Lan::new(5)?;
        let folder = lan.bpf_folder()?;
        let mut planes = Vec::new();
        for number in 1..=NODES {
            let host = &lan.hosts[number];
            serve(host, &format!("n{number}"))?;
            let options = Options {
                pin_root: folder.join(format!("n{number}")),
                flows: 4_096,
                hooks: hooks.to_vec(),
            };
            let data_plane = host.run(|| {
                let mut data_plane = DataPlane::open(&options)?;
                let hook = data_plane.attach(host.index, &InterfaceName::from("eth0"))?;
                assert_eq!(hook, hooks[0]);
                Ok(data_plane)
            })?;
            let contents = data_plane.read()?;
            planes.push(Loaded {
                data_plane,
                contents,
                compiled: Compiled::default(),
            });
        }
        let mut world = Self {
            planes,
            hooks: hooks.to_vec(),
            wish: Wish {
                vips: vec![VIP4, VIP6],
                targets: vec![1, 2, 3],
                draining: Vec::new(),
                source_ranges: Vec::new(),
                mode: Mode::NodePort,
                far: Vec::new(),
                spread: Spread::Cluster,
                node_port: NODE_PORT,
                mistaken: BTreeMap::new(),
                astray: BTreeMap::new(),
                strangers: false,
            },
            holder: 1,
            now: herald_model::Instant::ORIGIN,
            lan,
        };
        world.hold(1)?;
        Ok(world)
    }

    pub(crate) fn client(&self) -> &Host {
        &self.lan.hosts[0]
    }

    pub(crate) fn other_client(&self) -> &Host {
        &self.lan.hosts[4]
    }

    /// The VIPs move to this node, in every table and neighbour cache.
    pub(crate) fn hold(&mut self, node: usize) -> Result<()> {
        self.holder = node;
        self.program()?;
        for host in &self.lan.hosts {
            self.point_neighbour(host, node)?;
        }
        Ok(())
    }

    /// One host's neighbour entries of the VIPs lead to this node.
    pub(crate) fn point_neighbour(&self, host: &Host, node: usize) -> Result<()> {
        let mac = self.lan.hosts[node].mac;
        let commands: Vec<String> = self
            .wish
            .vips
            .iter()
            .map(|vip| format!("neighbour replace {vip} lladdr {mac} dev eth0 nud permanent"))
            .collect();
        host.ip_batch(&commands)
    }

    /// Brings every node's maps to the wish, and checks that reading them back says so.
    pub(crate) fn program(&mut self) -> Result<()> {
        self.program_only(&[1, 2, 3])
    }

    /// The same, but the others have not heard of it yet.
    pub(crate) fn program_only(&mut self, nodes: &[usize]) -> Result<()> {
        for &number in nodes {
            let desired = self.desired(number);
            let plane = &mut self.planes[number - 1];
            let compiled = compile(&plane.contents, &desired, self.now);
            assert_eq!(compiled.refused, []);
            plane
                .data_plane
                .apply(&diff(&plane.contents, &compiled.contents))?;
            plane.contents = plane.data_plane.read()?;
            assert_eq!(plane.contents, compiled.contents);
            plane.compiled = compiled;
        }
        Ok(())
    }

    /// Starts a node's data plane anew, as another process would.
    pub(crate) fn restart(&mut self, node: usize) -> Result<()> {
        let host = &self.lan.hosts[node];
        let options = Options {
            pin_root: self.pins(node)?,
            flows: 4_096,
            hooks: self.hooks.clone(),
        };
        let plane = &mut self.planes[node - 1];
        plane.data_plane = host.run(|| Ok(DataPlane::open(&options)?))?;
        plane.contents = plane.data_plane.read()?;
        // The maps come first, as with the speaker: a program finds what it is to do.
        self.program()?;
        let host = &self.lan.hosts[node];
        let data_plane = &mut self.planes[node - 1].data_plane;
        let eth0 = InterfaceName::from("eth0");
        let hook = host.run(|| Ok(data_plane.attach(host.index, &eth0)?))?;
        assert_eq!(hook, self.hooks[0]);
        Ok(())
    }

    /// Starts a node's data plane anew, as one of another layout, whose maps and programs replace the older ones.
    pub(crate) fn upgrade(&mut self, node: usize) -> Result<()> {
        let pins = self.pins(node)?;
        let layout = only_name(&pins)?;
        fs::rename(pins.join(&layout), pins.join("v0"))?;
        self.restart(node)?;
        ensure!(
            only_name(&pins)? == layout,
            "the older layout is still there"
        );
        Ok(())
    }

    /// Where a node's maps and links are pinned.
    pub(crate) fn pins(&self, node: usize) -> Result<PathBuf> {
        Ok(self.lan.bpf_folder()?.join(format!("n{node}")))
    }

    /// Takes a node's programs off its uplink.
    pub(crate) fn detach(&mut self, node: usize) -> Result<()> {
        let host = &self.lan.hosts[node];
        let plane = &mut self.planes[node - 1];
        host.run(|| {
            Ok(plane
                .data_plane
                .detach(host.index, &InterfaceName::from("eth0"))?)
        })
    }

    /// Has a node look whether its programs are where it attached them; whether they were not.
    pub(crate) fn reattach(&mut self, node: usize) -> Result<bool> {
        let host = &self.lan.hosts[node];
        let plane = &mut self.planes[node - 1];
        host.run(|| {
            Ok(plane
                .data_plane
                .reattach(host.index, &InterfaceName::from("eth0"))?)
        })
    }

    /// The map in which a node misses an entry.
    pub(crate) fn missing(&self, node: usize) -> Result<Option<MapName>> {
        let plane = &self.planes[node - 1];
        let of = |map: MapName| {
            let entries = plane.contents.entries(map);
            entries.map(move |(key, value)| (map, key, value))
        };
        Ok(plane
            .data_plane
            .missing(MapName::ALL.into_iter().flat_map(of))?)
    }

    /// Somebody removes an entry of a node's map: in which the node then misses one.
    pub(crate) fn lose_entry(&mut self, node: usize, map: MapName) -> Result<Option<MapName>> {
        let plane = &mut self.planes[node - 1];
        let first = plane.contents.entries(map).next();
        let key = first.context("there is no entry")?.0.to_vec();
        plane.data_plane.apply(&[MapOp::Delete { map, key }])?;
        let missing = self.missing(node)?;
        let plane = &mut self.planes[node - 1];
        plane.contents = plane.data_plane.read()?;
        Ok(missing)
    }

    pub(crate) fn desired(&self, me: usize) -> Desired {
        let interface = self.lan.hosts[me].index;
        let nodes = (1..=NODES).map(|number| {
            let host = &self.lan.hosts[number];
            let node = DesiredNode {
                ipv4: Some(host.ipv4),
                ipv6: Some(host.ipv6),
                is_self: number == me,
                interface: None,
                macs: if self.wish.strangers {
                    BTreeSet::new()
                } else {
                    BTreeSet::from([host.mac])
                },
                links: if self.wish.far.contains(&number) {
                    BTreeMap::new()
                } else {
                    BTreeMap::from([(interface, host.mac)])
                },
            };
            (name(number), node)
        });
        let astray = self.wish.astray.get(&me).map(std::slice::from_ref);
        let targets = Arc::new(Targets {
            spread: self.wish.spread,
            weights: astray
                .unwrap_or(&self.wish.targets)
                .iter()
                .map(|&number| (name(number), 1))
                .chain(self.wish.draining.iter().map(|&number| (name(number), 0)))
                .collect(),
        });
        let services = |vip: IpAddr| -> Vec<DesiredService> {
            [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .map(|protocol| DesiredService {
                    service: ServiceKey::new("default", "web"),
                    protocol,
                    port: PORT,
                    forwarding: self.forwarding(&targets, me, vip),
                    source_ranges: self.wish.source_ranges.clone().into(),
                })
                .collect()
        };
        let vips = self.wish.vips.iter().map(|vip| {
            let vip: IpAddr = vip.parse().unwrap();
            let number = *self.wish.mistaken.get(&me).unwrap_or(&self.holder);
            let holder = &self.lan.hosts[number];
            let holder = match vip {
                _ if number == me => Holder::Me,
                IpAddr::V4(_) => Holder::Peer {
                    address: holder.ipv4.into(),
                },
                IpAddr::V6(_) => Holder::Peer {
                    address: holder.ipv6.into(),
                },
            };
            let vip_wish = DesiredVip {
                holders: BTreeMap::from([(interface, holder)]),
                services: services(vip),
            };
            (vip, vip_wish)
        });
        Desired {
            seed: 42,
            ignores_echo: false,
            interfaces: BTreeMap::from([(interface, self.lan.hosts[me].mac)]),
            nodes: nodes.collect(),
            vips: vips.collect(),
        }
    }

    /// The server of a node as its pod.
    fn pods(&self, node: usize, vip: IpAddr) -> Arc<[DesiredPod]> {
        let takes_new = self.wish.targets.contains(&node);
        let is_there = takes_new || self.wish.draining.contains(&node);
        let address = SocketAddr::new(local(&self.lan.hosts[node], vip), self.wish.node_port);
        let pod = is_there.then_some(DesiredPod { address, takes_new });
        pod.into_iter().collect()
    }

    fn forwarding(&self, targets: &Arc<Targets>, me: usize, vip: IpAddr) -> Forwarding {
        let by_address = self.wish.mode == Mode::ByAddress;
        match self.wish.mode {
            Mode::Off => Forwarding::Off,
            Mode::Pods => Forwarding::Pod {
                targets: Arc::clone(targets),
                by_address: false,
                pods: self.pods(me, vip),
            },
            Mode::NodePort => Forwarding::NodePort {
                node_port: self.wish.node_port,
                targets: Arc::clone(targets),
            },
            Mode::Direct | Mode::ByAddress => Forwarding::Dsr {
                targets: Arc::clone(targets),
                by_address,
                node_port: (!by_address).then_some(self.wish.node_port),
            },
        }
    }

    /// What kube-proxy does on every node: VIP and port become those of its server.
    pub(crate) fn translate(&self) -> Result<()> {
        for host in &self.lan.hosts[1..=NODES] {
            let families = [
                ("ip", VIP4, IpAddr::from(host.ipv4)),
                ("ip6", VIP6, host.ipv6.into()),
            ];
            for (family, vip, server) in families {
                let server = SocketAddr::new(server, NODE_PORT);
                host.exec(&["nft", &format!("add table {family} proxy")])?;
                host.exec(&[
                    "nft",
                    &format!(
                        "add chain {family} proxy prerouting {{ type nat hook prerouting priority \
                         dstnat; }}"
                    ),
                ])?;
                host.exec(&[
                    "nft",
                    &format!(
                        "add rule {family} proxy prerouting {family} daddr {vip} meta l4proto \
                         {{ tcp, udp }} th dport {PORT} dnat to {server}"
                    ),
                ])?;
            }
        }
        Ok(())
    }

    pub(crate) fn counters(&self, node: usize) -> Result<Counters> {
        Ok(self.planes[node - 1].data_plane.counters()?)
    }

    /// The Service's counters on a node.
    pub(crate) fn service(&self, node: usize) -> Result<ServiceCounters> {
        let plane = &self.planes[node - 1];
        let id = plane.compiled.service_ids[&ServiceKey::new("default", "web")];
        Ok(self.counters(node)?.services[&id])
    }

    /// How often something happened on a node.
    pub(crate) fn event(&self, node: usize, event: Event) -> Result<u64> {
        Ok(self.counters(node)?.events[&event])
    }

    /// Waits until something happened so often on a node: frames take their time.
    pub(crate) fn await_event(&self, node: usize, event: Event, times: u64) -> Result<()> {
        let start = Instant::now();
        while self.event(node, event)? < times {
            ensure!(
                start.elapsed() < PATIENCE,
                "{event} {times} times: {:?}",
                self.counters(node)?
            );
            thread::yield_now();
        }
        assert_eq!(self.event(node, event)?, times);
        Ok(())
    }

    /// A TCP connection from the client, from this port if it is not 0.
    pub(crate) fn connect(&self, vip: &str, port: u16, from: u16) -> Result<Talk> {
        connect_from(self.client(), vip, port, from)
    }

    /// Has the server of a node send a datagram, from its `NodePort`.
    pub(crate) fn have_send(&self, node: usize, to: SocketAddr) -> Result<()> {
        let host = &self.lan.hosts[node];
        host.run(|| {
            let server = SocketAddr::new(local(host, to.ip()), NODE_PORT);
            let socket = UdpSocket::bind(SocketAddr::new(server.ip(), 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(format!("to {to}").as_bytes(), server)?;
            // The answer comes after the datagram was sent.
            socket.recv(&mut [0; 64])?;
            Ok(())
        })
    }

    /// One datagram from the client and the answer.
    pub(crate) fn ask(&self, vip: &str, from: u16) -> Result<Answer> {
        ask_from(self.client(), vip, from)
    }
}

/// Tries to connect, and gives up soon.
pub(crate) fn is_refused(host: &Host, vip: &str, port: u16) -> Result<bool> {
    let to = SocketAddr::new(vip.parse()?, port);
    host.run(|| Ok(TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_err()))
}

pub(crate) fn connect_from(host: &Host, vip: &str, port: u16, from: u16) -> Result<Talk> {
    let stream = host
        .run(|| tcp(host, SocketAddr::new(vip.parse()?, port), from))
        .with_context(|| format!("cannot connect to {vip} port {port}"))?;
    Talk::new(stream)
}

pub(crate) fn ask_from(host: &Host, vip: &str, from: u16) -> Result<Answer> {
    let vip: IpAddr = vip.parse()?;
    let socket = host.run(|| Ok(UdpSocket::bind(SocketAddr::new(local(host, vip), from))?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((vip, PORT))?;
    socket.send(b"hello\n")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    Answer::parse(std::str::from_utf8(&buffer[..length])?)
}

/// One datagram of so many bytes from the client, which the answer repeats.
pub(crate) fn ask_much(host: &Host, vip: &str, bytes: usize) -> Result<Answer> {
    let vip: IpAddr = vip.parse()?;
    let socket = host.run(|| Ok(UdpSocket::bind(SocketAddr::new(local(host, vip), 0))?))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((vip, PORT))?;
    let said: Vec<u8> = (b'a'..=b'z').cycle().take(bytes).collect();
    socket.send(&said)?;
    let mut buffer = vec![0; 2 * bytes];
    let length = socket.recv(&mut buffer)?;
    let answer = std::str::from_utf8(&buffer[..length])?;
    let (line, repeated) = answer.split_once('\n').context("no line")?;
    ensure!(repeated.as_bytes() == said, "it was changed on its way");
    Answer::parse(line)
}

/// What a server says: who it is and whom it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) node: String,
    pub(crate) peer: SocketAddr,
}

impl Answer {
    fn parse(line: &str) -> Result<Self> {
        let (node, peer) = line.trim().split_once(' ').context("not an answer")?;
        Ok(Self {
            node: node.to_owned(),
            peer: peer.parse()?,
        })
    }
}

/// An open TCP connection to a server, which says one line for each line it gets.
pub(crate) struct Talk {
    reader: BufReader<TcpStream>,
}

impl Talk {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    pub(crate) fn ask(&mut self) -> Result<Answer> {
        self.say("hello")?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Answer::parse(&line)
    }

    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        self.reader
            .get_mut()
            .write_all(format!("{text}\n").as_bytes())?;
        Ok(())
    }

    /// Sends many bytes in one line, and gets the number of bytes that came.
    pub(crate) fn upload(&mut self, bytes: usize) -> Result<usize> {
        self.say(&"x".repeat(bytes))?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    /// Has the server send so many bytes.
    pub(crate) fn download(&mut self, bytes: usize) -> Result<usize> {
        self.say(&format!("send {bytes}"))?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim().len())
    }
}

/// The name of the one thing in a folder.
pub(crate) fn only_name(folder: &Path) -> Result<OsString> {
    let names: Vec<OsString> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    let [name] = names.as_slice() else {
        bail!("in {}: {names:?}", folder.display());
    };
    Ok(name.clone())
}

fn name(number: usize) -> NodeName {
    NodeName::from(format!("n{number}"))
}

fn local(host: &Host, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => host.ipv4.into(),
        IpAddr::V6(_) => host.ipv6.into(),
    }
}

fn tcp(host: &Host, to: SocketAddr, from: u16) -> Result<TcpStream> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(local(host, to.ip()), from).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// Servers on the node's `NodePort`, both protocols, both families, until the process ends.
fn serve(host: &Host, node: &str) -> Result<()> {
    for address in [IpAddr::from(host.ipv4), IpAddr::from(host.ipv6)] {
        let (listener, socket) = host.run(|| {
            let at = SocketAddr::new(address, NODE_PORT);
            Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?))
        })?;
        let name = node.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let name = name.clone();
                thread::spawn(move || converse(&stream, &name));
            }
        });
        let name = node.to_owned();
        thread::spawn(move || {
            let mut buffer = [0; 16_384];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                if let Some(to) = text.strip_prefix("to ") {
                    drop(socket.send_to(b"stray", to));
                }
                let mut answer = format!("{name} {peer}\n");
                if length > 512 {
                    answer.push_str(&text);
                }
                drop(socket.send_to(answer.as_bytes(), peer));
            }
        });
    }
    Ok(())
}

fn converse(stream: &TcpStream, name: &str) -> Result<()> {
    let peer = stream.peer_addr()?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let answer = if let Some(bytes) = line.strip_prefix("send ") {
            "y".repeat(bytes.parse()?)
        } else if line.starts_with('x') {
            line.len().to_string()
        } else {
            format!("{name} {peer}")
        };
        let mut writer = stream;
        writer.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}
