//! A plain client of the lab's API server, through `kubectl proxy` on a Unix socket: tests ask often,
//! and a process per question would cost more than the cluster itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use herald_lab::Lab;
use serde_json::Value;

use crate::wait::{LONG, eventually};

/// No answer takes that long; a watch is told when to end.
const ANSWER_TIME: Duration = Duration::from_secs(20);
const MANAGER: &str = "herald-e2e";

/// The API server, asked as administrator.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
    answer_time: Duration,
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What came with it.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that says yes.
    ///
    /// # Errors
    ///
    /// What the API server said, if it did not.
    pub fn ok(self) -> Result<Value> {
        ensure!(
            (200..300).contains(&self.status),
            "the API server answers {}: {}",
            self.status,
            self.body["message"].as_str().unwrap_or("no message")
        );
        Ok(self.body)
    }
}

impl Api {
    /// Starts the proxy. It ends with this process or with the lab.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn connect(lab: &Lab) -> Result<Self> {
        Self::connect_from(lab, "cp", ANSWER_TIME)
    }

    /// The same with a proxy at another place, whose way to the API server may be cut: what takes
    /// longer than `answer_time` has failed.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn connect_from(lab: &Lab, place: &str, answer_time: Duration) -> Result<Self> {
        let socket = lab
            .folder()
            .join(format!("proxy-{place}-{}.sock", std::process::id()));
        let kubectl = lab.folder().join("bin/kubectl");
        let option = format!("--unix-socket={}", socket.display());
        // The kernel sends the signal when the thread that started the process ends, hence a thread
        // that stays.
        let mut command = lab.command(
            place,
            [
                Path::new("setpriv").as_os_str(),
                "--pdeathsig".as_ref(),
                "KILL".as_ref(),
                "--".as_ref(),
                kubectl.as_os_str(),
                "proxy".as_ref(),
                option.as_ref(),
            ],
        )?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (started, result) = mpsc::channel();
        thread::spawn(move || match command.spawn() {
            Ok(mut child) => {
                drop(started.send(Ok(())));
                drop(child.wait());
            }
            Err(error) => drop(started.send(Err(error))),
        });
        result.recv()?.context("cannot start kubectl proxy")?;
        let api = Self {
            socket,
            answer_time,
        };
        eventually("kubectl proxy answers", Duration::from_secs(20), || {
            api.get("/version")
        })?;
        Ok(api)
    }

    fn open(
        &self,
        method: &str,
        path: &str,
        content: Option<(&str, &[u8])>,
    ) -> Result<(u16, BufReader<UnixStream>)> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("cannot connect to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(self.answer_time))?;
        let (kind, body) = content.unwrap_or(("application/json", b""));
        // HTTP/1.0: the body ends where the connection does.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("no HTTP status in {line:?}"))?;
        while !line.trim().is_empty() {
            line.clear();
            reader.read_line(&mut line)?;
        }
        Ok((status, reader))
    }

    /// Any request. 429 means "not now", as of an API server that reads its store after a restart; then it
    /// is asked again.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        content: Option<(&str, &[u8])>,
    ) -> Result<Answer> {
        eventually("the API server has time", LONG, || {
            let answer = self.ask(method, path, content);
            // Whatever else goes wrong is the caller's business, at once.
            if let Ok(answer) = &answer {
                ensure!(answer.status != 429, "{}", answer.body);
            }
            Ok(answer)
        })?
    }

    fn ask(&self, method: &str, path: &str, content: Option<(&str, &[u8])>) -> Result<Answer> {
        let (status, mut reader) = self.open(method, path, content)?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok(Answer { status, body })
    }

    /// The object at a path.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None)?
            .ok()
            .with_context(|| format!("getting {path}"))
    }

    /// The object at a path, if there is one.
    ///
    /// # Errors
    ///
    /// If the API server says something else than yes or "not found".
    pub fn find(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.request("GET", path, None)?;
        if answer.status == 404 {
            return Ok(None);
        }
        answer
            .ok()
            .map(Some)
            .with_context(|| format!("getting {path}"))
    }

    /// The objects of a list.
    ///
    /// # Errors
    ///
    /// If it can't be had.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        match self.get(path)?["items"].take() {
            Value::Array(items) => Ok(items),
            other => bail!("{path} is no list: {other}"),
        }
    }

    /// Server-side apply; unknown fields are refused.
    ///
    /// # Errors
    ///
    /// What the API server said, if it refused.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        let path = path_of(object)?;
        let url = format!("{path}?fieldManager={MANAGER}&force=true&fieldValidation=Strict");
        let body = serde_json::to_vec(object)?;
        self.request("PATCH", &url, Some(("application/apply-patch+yaml", &body)))?
            .ok()
            .with_context(|| format!("applying {path}"))
    }

    /// JSON merge patch.
    ///
    /// # Errors
    ///
    /// What the API server said, if it refused.
    pub fn merge(&self, path: &str, change: &Value) -> Result<Value> {
        let url = format!("{path}?fieldManager={MANAGER}");
        let body = serde_json::to_vec(change)?;
        self.request("PATCH", &url, Some(("application/merge-patch+json", &body)))?
            .ok()
            .with_context(|| format!("patching {path}"))
    }

    /// Deletes, without waiting for the end of it; something that is not there is as good.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub fn delete(&self, path: &str) -> Result<()> {
        let answer = self.request("DELETE", path, None)?;
        if answer.status != 404 {
            answer.ok().with_context(|| format!("deleting {path}"))?;
        }
        Ok(())
    }

    /// Records every state of the objects of a list from now on, the present one included, until the
    /// recording is stopped or the API server goes.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub fn record(&self, path: &str) -> Result<Recording> {
        self.record_from(path, "")
    }

    /// The same for what has changed since a version of the list.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub fn record_from(&self, path: &str, version: &str) -> Result<Recording> {
        let url = format!("{path}?watch=1&resourceVersion={version}");
        let (status, reader) = self.open("GET", &url, None)?;
        ensure!(status == 200, "watching {path} is answered with {status}");
        let stream = reader.get_ref().try_clone()?;
        // Silence is no error.
        stream.set_read_timeout(None)?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&events);
        let thread = thread::spawn(move || {
            for line in reader.lines() {
                let Ok(event) = line
                    .map_err(drop)
                    .and_then(|line| serde_json::from_str::<Value>(&line).map_err(drop))
                else {
                    break;
                };
                record
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(event);
            }
        });
        Ok(Recording {
            stream,
            seen: events,
            reading: Some(thread),
        })
    }
}

/// A watch whose events are kept.
#[derive(Debug)]
pub struct Recording {
    stream: UnixStream,
    seen: Arc<Mutex<Vec<Value>>>,
    reading: Option<thread::JoinHandle<()>>,
}

impl Recording {
    /// Each object as it was, in order, with the kind of the event.
    pub fn events(&self) -> Vec<Value> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether it has recorded without a gap until now.
    pub fn is_live(&self) -> bool {
        self.reading.as_ref().is_some_and(|it| !it.is_finished())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        drop(self.stream.shutdown(std::net::Shutdown::Both));
        if let Some(reading) = self.reading.take() {
            drop(reading.join());
        }
    }
}

/// Where an object of ours is.
fn path_of(object: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]);
    let version = text(&object["apiVersion"]);
    let plural = match kind.as_str() {
        "IPPool" => "ippools".to_owned(),
        "VirtualIP" => "virtualips".to_owned(),
        "L2Advertisement" => "l2advertisements".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    let root = if version.contains('/') {
        format!("/apis/{version}")
    } else {
        format!("/api/{version}")
    };
    let name = text(&object["metadata"]["name"]);
    ensure!(
        !kind.is_empty() && !name.is_empty(),
        "neither kind nor name may lack: {object}"
    );
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("{root}/{plural}/{name}"),
    })
}

/// Path of the cluster-scoped objects of Herald's, or of one of them.
pub fn herald(plural: &str, name: &str) -> String {
    let slash = if name.is_empty() { "" } else { "/" };
    format!("/apis/heraldlb.io/v1alpha1/{plural}{slash}{name}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_those_of_the_api_server() {
        let pool = json!({"apiVersion": "heraldlb.io/v1alpha1", "kind": "IPPool", "metadata": {"name": "a"}});
        assert_eq!(
            path_of(&pool).expect("complete"),
            "/apis/heraldlb.io/v1alpha1/ippools/a"
        );
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}});
        assert_eq!(
            path_of(&service).expect("complete"),
            "/api/v1/namespaces/n/services/a"
        );
    }
}
