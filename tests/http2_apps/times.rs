//! Their times, and the requests they say they did not process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{connect, read_answer};
use crate::tools::{app, echo, over_h2c, post, serve_all};

#[tokio::test(flavor = "multi_thread")]
async fn the_response_timeout_runs_from_the_last_byte_of_the_request() {
    let app = app(|connection, _| serve_all(connection)).await;
    let pillion = over_h2c(app, "response_timeout = \"300ms\"\n");
    tokio::task::block_in_place(|| {
        let mut tcp = connect(pillion.http);
        let write =
            |tcp: &mut std::net::TcpStream, bytes: &[u8]| std::io::Write::write_all(tcp, bytes).unwrap();
        write(&mut tcp, b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
        for byte in b"hello" {
            // A slow upload: each pause is shorter than the timeout, the whole is longer.
            std::thread::sleep(Duration::from_millis(120));
            write(&mut tcp, &[*byte]);
        }
        let answer = read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_answers_is_504_and_so_is_one_that_takes_nothing() {
    let app = app(|mut connection, _| async move {
        let mut held = Vec::new();
        // Windows are never opened again: large requests are not taken to their end.
        while let Some(Ok(stream)) = connection.accept().await {
            held.push(stream);
        }
    })
    .await;
    let pillion = over_h2c(app, "response_timeout = \"300ms\"\nbody_timeout = \"500ms\"\nretries = 0\n");
    tokio::task::block_in_place(|| {
        assert_eq!(pillion.get("/").status, 504);
        assert_eq!(post(&pillion, &"x".repeat(1_000_000)).status, 504);
    });
}

/// RFC 9113 8.7: a refused stream was not processed, so even a POST is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_the_app_refused_unread_is_sent_again() {
    let (seen, refused): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let counts = (seen.clone(), refused.clone());
    let app = app(move |mut connection, number| {
        let (seen, refused) = counts.clone();
        async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if number == 0 {
                    refused.fetch_add(1, Ordering::SeqCst);
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    continue;
                }
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(request, respond));
            }
        }
    })
    .await;
    let pillion = over_h2c(app, "");
    let answer = tokio::task::block_in_place(|| post(&pillion, "once"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "once"));
    assert!(refused.load(Ordering::SeqCst) > 0);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "processed once");
}

/// An app that leaves with GOAWAY, as gRPC servers do after a while, loses nobody's POST.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_goes_away_gracefully_loses_no_post() {
    let seen: Arc<AtomicUsize> = Arc::default();
    let count = seen.clone();
    let app = app(move |mut connection, _| {
        let seen = count.clone();
        async move {
            // Five requests each, then it says good-bye.
            for _ in 0..5 {
                let Some(Ok((request, respond))) = connection.accept().await else { return };
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(request, respond));
            }
            connection.graceful_shutdown();
            while let Some(Ok((request, respond))) = connection.accept().await {
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(request, respond));
            }
        }
    })
    .await;
    let pillion = over_h2c(app, "");
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(post(&pillion, "once").status, 200)));
            }
        });
    });
    assert_eq!(seen.load(Ordering::SeqCst), 200, "each of them once");
}
