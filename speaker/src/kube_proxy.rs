//! Whether kube-proxy on this node has written its rules, by what it tells of its health
//! (`pkg/proxy/healthcheck/proxy_health.go` in Kubernetes).

use std::time::Duration;

use anyhow::{Context as _, bail};
use herald_speaker_core::Input;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// Between two questions.
const EVERY: Duration = Duration::from_millis(100);
/// How long one may take.
const ANSWER: Duration = Duration::from_secs(1);
/// If nothing answered for so long there is nothing to wait for: another program does kube-proxy's work.
const PATIENCE: Duration = Duration::from_mins(1);
const LONGEST_ANSWER: usize = 64 * 1_024;

/// Where to ask; `None`: not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Healthz(pub(crate) Option<Uri>);

/// Reads `http://IP:PORT/PATH`, or nothing.
pub(crate) fn healthz(text: &str) -> Result<Healthz, String> {
    if text.is_empty() {
        return Ok(Healthz(None));
    }
    let wrong = || format!("{text:?} is not http://IP:PORT/PATH, nor empty");
    let uri: Uri = text.parse().map_err(|_no_uri| wrong())?;
    let has_port = uri.authority().is_some_and(|it| it.port_u16().is_some());
    if uri.scheme_str() != Some("http") || !has_port {
        return Err(wrong());
    }
    Ok(Healthz(Some(uri)))
}

/// Asks until the rules are written, or nothing has answered for a minute, and says so.
pub(crate) async fn wait(url: Uri, inputs: UnboundedSender<Input>) {
    let began = Instant::now();
    let mut has_answered = false;
    loop {
        match timeout(ANSWER, ask(&url)).await {
            Ok(Ok(true)) => {
                info!("kube-proxy has written its rules");
                break;
            }
            Ok(Ok(false)) => has_answered = true,
            Ok(Err(error)) => debug!("asking kube-proxy at {url}: {error:#}"),
            Err(_elapsed) => debug!("asking kube-proxy at {url}: no answer in {ANSWER:?}"),
        }
        if !has_answered && began.elapsed() > PATIENCE {
            warn!(
                "nothing has answered at {url} for {PATIENCE:?}: not waiting for kube-proxy's rules; \
                 see --kube-proxy-healthz"
            );
            break;
        }
        sleep(EVERY).await;
    }
    drop(inputs.send(Input::RulesWritten));
}

async fn ask(url: &Uri) -> anyhow::Result<bool> {
    let authority = url.authority().context("no host in the URL")?;
    let stream = TcpStream::connect(authority.as_str()).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with `sender`.
    drop(tokio::spawn(connection));
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    // A server that knows no such page is no kube-proxy, and is never waited for longer than silence is.
    if !matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
        bail!("the answer is {status}");
    }
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect();
    let body = body.await.map_err(anyhow::Error::from_boxed)?;
    Ok(status == StatusCode::OK && is_written(&body.to_bytes()))
}

/// What of kube-proxy's answer counts.
#[derive(Deserialize)]
struct Health {
    /// Said by those only that tell of families, too.
    healthy: Option<bool>,
    /// One entry for each IP family whose rules have been written.
    #[serde(default)]
    status: serde_json::Map<String, serde_json::Value>,
}

/// Whether the answer of a kube-proxy that is well says that rules are written. One that tells of no
/// families is taken at its word; of other programs' answers nothing is known but that they are well.
fn is_written(body: &[u8]) -> bool {
    let Ok(health) = serde_json::from_slice::<Health>(body) else {
        return true;
    };
    health.healthy.is_none() || !health.status.is_empty()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    const STARTING: &str =
        r#"{"lastUpdated":"2026-11-30T11:50:31Z","nodeEligible":true,"healthy":true}"#;
    const WRITTEN: &str = r#"{"lastUpdated":"2026-11-30T11:50:31Z","nodeEligible":true,"healthy":true,
        "status":{"IPv4":{"lastUpdated":"2026-11-30T11:48:08Z","healthy":true}}}"#;
    const OLD: &str = r#"{"lastUpdated":"2026-11-30T11:50:31Z","nodeEligible":true}"#;

    #[test]
    fn one_that_tells_of_families_has_written_the_rules_of_those_it_names() {
        assert!(!is_written(STARTING.as_bytes()));
        assert!(is_written(WRITTEN.as_bytes()));
    }

    #[test]
    fn one_that_does_not_is_taken_at_its_word() {
        assert!(is_written(OLD.as_bytes()));
        assert!(is_written(b"ok"));
    }

    #[test]
    fn url_is_checked() {
        assert_eq!(healthz(""), Ok(Healthz(None)));
        for good in ["http://127.0.0.1:10256/healthz", "http://[::1]:10256/"] {
            assert_eq!(healthz(good), Ok(Healthz(Some(good.parse().unwrap()))));
        }
        for wrong in [
            "127.0.0.1:10256",
            "https://127.0.0.1:1/",
            "http://127.0.0.1/healthz",
        ] {
            let error = healthz(wrong).unwrap_err();
            assert_eq!(
                error,
                format!("{wrong:?} is not http://IP:PORT/PATH, nor empty")
            );
        }
    }

    #[tokio::test]
    async fn it_is_asked_until_it_has_written_them() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let (sender, mut inputs) = unbounded_channel();
        tokio::spawn(wait(url.parse().unwrap(), sender));
        for (status, body) in [
            ("503 Service Unavailable", WRITTEN),
            ("200 OK", STARTING),
            ("200 OK", WRITTEN),
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(inputs.try_recv().is_err(), "not written yet");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        assert_eq!(inputs.recv().await, Some(Input::RulesWritten));
    }

    #[tokio::test]
    async fn a_server_that_knows_no_such_page_counts_as_none() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let url = url.parse().unwrap();
        let (answer, ()) = tokio::join!(ask(&url), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        });
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("404"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_answers_it_is_not_waited_for_longer_than_a_minute() {
        let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/", unused.local_addr().unwrap());
        drop(unused);
        let (sender, mut inputs) = unbounded_channel();
        let began = Instant::now();
        tokio::spawn(wait(url.parse().unwrap(), sender));
        assert_eq!(inputs.recv().await, Some(Input::RulesWritten));
        assert!(began.elapsed() > PATIENCE);
    }
}
