//! Tests with a real gRPC client and a real gRPC app.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use http::uri::PathAndQuery;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::tools::{Authority, TLS, h2_client, local, tls_connector};
use crate::harness::{PATIENCE, Pillion, absent_app};

#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
}

fn note(text: impl Into<String>) -> Note {
    Note { text: text.into() }
}

/// Returns notes: `Say` responds to one with one, `Chat` to many with as many.
#[derive(Clone)]
struct Notes;

impl tonic::server::NamedService for Notes {
    const NAME: &'static str = "test.Notes";
}

impl tower::Service<http::Request<tonic::body::Body>> for Notes {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Note, Note>::default());
            Ok(match request.uri().path() {
                "/test.Notes/Say" => grpc.unary(tower::service_fn(say), request).await,
                _ => grpc.streaming(tower::service_fn(chat), request).await,
            })
        })
    }
}

async fn say(request: tonic::Request<Note>) -> Result<tonic::Response<Note>, Status> {
    match request.get_ref().text.as_str() {
        "refuse" => Err(Status::failed_precondition("not now")),
        text => Ok(tonic::Response::new(note(format!("heard {text}")))),
    }
}

async fn chat(
    request: tonic::Request<Streaming<Note>>,
) -> Result<tonic::Response<impl futures_util::Stream<Item = Result<Note, Status>> + Send + 'static>, Status>
{
    Ok(tonic::Response::new(request.into_inner().map(|heard| match heard?.text.as_str() {
        "break off" => Err(Status::aborted("broken off")),
        text => Ok(note(format!("heard {text}"))),
    })))
}

async fn grpc_app() -> SocketAddr {
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(Server::builder().add_service(Notes).serve_with_incoming(incoming));
    address
}

/// Makes a unary call, a refused call, and a conversation in which each note waits for the previous response.
async fn converse(endpoint: tonic::transport::Channel) {
    let mut grpc = tonic::client::Grpc::new(endpoint);
    let codec = ProstCodec::<Note, Note>::default;
    let say = || PathAndQuery::from_static("/test.Notes/Say");
    grpc.ready().await.unwrap();
    let answer = grpc.unary(tonic::Request::new(note("one")), say(), codec()).await.unwrap();
    assert_eq!(answer.into_inner().text, "heard one");
    grpc.ready().await.unwrap();
    let refused: Result<tonic::Response<Note>, Status> =
        grpc.unary(tonic::Request::new(note("refuse")), say(), codec()).await;
    let refused = refused.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not now"));

    for end in ["", "break off"] {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Note>(1);
        let outgoing = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let note = receiver.recv().await?;
            Some((note, receiver))
        });
        grpc.ready().await.unwrap();
        let chat = PathAndQuery::from_static("/test.Notes/Chat");
        let answer = grpc.streaming(tonic::Request::new(outgoing), chat, codec()).await.unwrap();
        let mut incoming = answer.into_inner();
        for at in 0..20 {
            sender.send(note(at.to_string())).await.unwrap();
            assert_eq!(incoming.message().await.unwrap().unwrap().text, format!("heard {at}"));
        }
        if end.is_empty() {
            drop(sender);
            assert_eq!(incoming.message().await.unwrap(), None, "grpc-status 0");
        } else {
            sender.send(note(end)).await.unwrap();
            assert_eq!(incoming.message().await.unwrap_err().code(), Code::Aborted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_h2c_unary_and_both_ways() {
    let app = grpc_app().await;
    // Streams outlive the silence limits of ordinary bodies, and take none of their connections.
    let pillion = Pillion::with(&local(&format!(
        "body_timeout = \"300ms\"\n[upstream]\nurl = \"h2c://{app}\"\nmax_connections = 1\nbody_timeout = \"300ms\"\nresponse_timeout = \"300ms\"\n"
    )));
    let endpoint = Endpoint::from_shared(pillion.url("")).unwrap();
    tokio::time::timeout(PATIENCE, async {
        converse(endpoint.connect().await.unwrap()).await;
    })
    .await
    .unwrap();
    pillion
        .access("a conversation", |line| line["path"] == "/test.Notes/Chat" && line["protocol"] == "HTTP/2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_may_be_silent_for_longer_than_an_ordinary_one() {
    let app = grpc_app().await;
    let pillion = Pillion::with(&local(&format!(
        "body_timeout = \"200ms\"\n[upstream]\nurl = \"h2c://{app}\"\nbody_timeout = \"200ms\"\nresponse_timeout = \"200ms\"\n"
    )));
    let mut grpc =
        tonic::client::Grpc::new(Endpoint::from_shared(pillion.url("")).unwrap().connect().await.unwrap());
    grpc.ready().await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Note>(1);
    let outgoing = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let note = receiver.recv().await?;
        Some((note, receiver))
    });
    let chat = PathAndQuery::from_static("/test.Notes/Chat");
    let answer = grpc
        .streaming(tonic::Request::new(outgoing), chat, ProstCodec::<Note, Note>::default())
        .await
        .unwrap();
    let mut incoming = answer.into_inner();
    for text in ["before", "after"] {
        sender.send(note(text)).await.unwrap();
        assert_eq!(incoming.message().await.unwrap().unwrap().text, format!("heard {text}"));
        // This silence is what the test is about.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_grpc_messages_pass_both_ways() {
    let app = grpc_app().await;
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\n"));
    let mut grpc =
        tonic::client::Grpc::new(Endpoint::from_shared(pillion.url("")).unwrap().connect().await.unwrap());
    let text = "long ".repeat(700_000);
    for _ in 0..3 {
        grpc.ready().await.unwrap();
        let say = PathAndQuery::from_static("/test.Notes/Say");
        let call = grpc.unary(tonic::Request::new(note(&text)), say, ProstCodec::<Note, Note>::default());
        let answer: tonic::Response<Note> = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        assert_eq!(answer.into_inner().text.len(), text.len() + "heard ".len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_tls() {
    let app = grpc_app().await;
    let authority = Authority::new();
    let folder = authority.folder();
    let pillion =
        Pillion::in_folder(folder.clone(), &local(&format!("{TLS}[upstream]\nurl = \"h2c://{app}\"\n")));
    let address = pillion.https.unwrap();
    let connector = tls_connector(&authority, b"h2");
    let endpoint =
        Endpoint::from_static("http://pillion.test").origin("https://pillion.test".parse().unwrap());
    let channel = endpoint.connect_with_connector(tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let stream = connector.connect("pillion.test".try_into().unwrap(), tcp).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    }));
    tokio::time::timeout(PATIENCE, async {
        converse(channel.await.unwrap()).await;
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_to_an_app_that_is_gone_says_unavailable() {
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{}\"\n", absent_app()));
    let mut grpc =
        tonic::client::Grpc::new(Endpoint::from_shared(pillion.url("")).unwrap().connect().await.unwrap());
    grpc.ready().await.unwrap();
    let say = PathAndQuery::from_static("/test.Notes/Say");
    let answer: Result<tonic::Response<Note>, Status> =
        grpc.unary(tonic::Request::new(note("hello?")), say, ProstCodec::<Note, Note>::default()).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}

/// Sends a message when it is dropped.
struct Tell(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_cancelled_at_the_app() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (tcp, _) = crate::harness::accept(&listener).await.unwrap();
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let tell = Tell(sender.clone());
            tokio::spawn(async move {
                let answer =
                    http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut stream = respond.send_response(answer, false).unwrap();
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
                assert!(reason.is_ok());
                drop(tell);
            });
        }
    });
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\n"));
    let mut client = h2_client(pillion.http).await;
    let request = http::Request::post("http://a.test/x")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    body.send_reset(h2::Reason::CANCEL);
    drop(answer);
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("the app hears of it").unwrap();
}
