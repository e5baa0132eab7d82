//! `/livez`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use herald_speaker_core::Overview;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, oneshot};
use tracing::{debug, warn};

use crate::forward;
use crate::io::{layer2, settings};
use crate::metrics::{Page, Takeovers};

/// A client that does not finish its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the pages are made of.
pub(crate) struct Admin {
    pub(crate) node: String,
    /// Why the speaker is not ready; empty: it is.
    pub(crate) waiting_for: Arc<ArcSwap<Vec<String>>>,
    pub(crate) core: AskCore,
    pub(crate) layer2: Arc<layer2::Handle>,
    pub(crate) data_plane: forward::Handle,
    pub(crate) takeovers: Takeovers,
}

/// Asks the core what there is to say of this node. With thousands of addresses that takes milliseconds of a thread
/// that must not be late: it is not done for each decision, and not more often than it is of use.
pub(crate) struct AskCore {
    questions: UnboundedSender<oneshot::Sender<Overview>>,
    last: Mutex<Option<(Instant, Arc<Overview>)>>,
    last_words: LastWords,
}

/// What the core said of this node when it ended: a speaker whose node was retired is still asked.
pub(crate) type LastWords = Arc<OnceLock<Overview>>;

impl AskCore {
    /// What was said last is said again for so long.
    const FRESH: Duration = Duration::from_millis(100);

    pub(crate) fn new(
        questions: UnboundedSender<oneshot::Sender<Overview>>,
        last_words: LastWords,
    ) -> Self {
        Self {
            questions,
            last: Mutex::new(None),
            last_words,
        }
    }

    /// `None`: the core has ended without a word.
    async fn overview(&self) -> Option<Arc<Overview>> {
        let mut last = self.last.lock().await;
        if let Some((when, overview)) = &*last
            && when.elapsed() < Self::FRESH
        {
            return Some(Arc::clone(overview));
        }
        let overview = match self.ask().await {
            Some(overview) => overview,
            None => self.last_words.get()?.clone(),
        };
        let overview = Arc::new(overview);
        *last = Some((Instant::now(), Arc::clone(&overview)));
        Some(overview)
    }

    async fn ask(&self) -> Option<Overview> {
        let (question, answer) = oneshot::channel();
        self.questions.send(question).ok()?;
        answer.await.ok()
    }
}

/// Binds the address, so that a port that is taken ends the program at once. Where the kernel has
/// no IPv6, all addresses are those of IPv4.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == Ipv6Addr::UNSPECIFIED
                && error.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _client)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection to the admin port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%error, "a connection to the admin port broke");
            }
        });
    }
}

impl Admin {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is allowed\n".into(),
            );
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics().await,
            _other => text(
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz and /metrics\n".into(),
            ),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let waiting_for = self.waiting_for.load();
        if waiting_for.is_empty() {
            return text(StatusCode::OK, "ok\n".into());
        }
        let mut page = String::from("waiting for:\n");
        for item in waiting_for.iter() {
            page.push_str("- ");
            page.push_str(item);
            page.push('\n');
        }
        text(StatusCode::SERVICE_UNAVAILABLE, page)
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let Some(overview) = self.core.overview().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the speaker ends\n".into());
        };
        let (layer2, counted, rings) = tokio::join!(
            self.layer2.counts(),
            self.data_plane.counted(),
            self.layer2.ring_status()
        );
        let settings = settings::read(&overview.uplinks);
        let page = Page {
            node: &self.node,
            overview: &overview,
            settings: &settings,
            layer2: &layer2,
            data_plane: counted.as_ref(),
            rings: &rings,
            takeovers: &self.takeovers,
        };
        match page.render() {
            Ok(page) => {
                let mut response = text(StatusCode::OK, page);
                response.headers_mut().insert(
                    CONTENT_TYPE,
                    hyper::header::HeaderValue::from_static(
                        "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    ),
                );
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
