//! Test with a real app that has two workers, each of which serves one request at a time: they must not wait for slow
//! clients. `PILLION_ACCEPTANCE=1` runs it at full length: 1 KiB/s, 200 seconds, and strict times for the fast client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::harness::holding::Raise;
use crate::harness::{Folder, Pillion, Process, connect, eventually, free_address, now};

const APP: &str = r#"
def app(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    if environ["PATH_INFO"] == "/big":
        content = b"x" * (200 * 1024)
    else:
        content = str(len(body)).encode()
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(content)))])
    return [content]
"#;

const CLIENTS: usize = 100;
const STREAMS: usize = 128;
const UPLOAD: usize = 32 * 1024;
const DOWNLOAD: usize = 200 * 1024;
/// Pause between two requests of the fast client.
const PAUSE: Duration = Duration::from_millis(20);
/// Interval in which a slow client sends or reads something.
const TICK: Duration = Duration::from_millis(250);

fn gunicorn(folder: &Folder) -> (Process, SocketAddr) {
    folder.write("slowapp.py", APP);
    let command = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/httpbin/bin/gunicorn");
    let address = free_address();
    let child = Command::new(command)
        .args(["--workers", "2", "--bind", &address.to_string(), "slowapp:app"])
        .current_dir(&folder.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tests/run installs gunicorn");
    let process = Process(child);
    eventually("gunicorn listens", || TcpStream::connect(address).ok());
    (process, address)
}

/// The duration of the slow clients, and the time limits of the fast one.
struct Extent {
    slow: Duration,
    p90: Duration,
    p99: Duration,
}

impl Extent {
    fn ticks(&self) -> usize {
        usize::try_from(self.slow.as_millis() / TICK.as_millis()).unwrap()
    }

    /// Returns the ticks of an upload: at least 1 KiB/s, because `min_body_rate` would end it below 240 bytes.
    fn upload_ticks(&self) -> usize {
        self.ticks().min(UPLOAD / 1024 * 4)
    }
}

fn extent() -> Extent {
    if std::env::var_os("PILLION_ACCEPTANCE").is_some() {
        let limit = Duration::from_millis(50);
        return Extent { slow: Duration::from_secs(200), p90: limit, p99: limit };
    }
    // Other tests keep the machine busy. A gunicorn worker that waits for a client would wait for seconds.
    Extent { slow: Duration::from_secs(16), p90: Duration::from_millis(150), p99: Duration::from_secs(1) }
}

struct Scene {
    _gunicorn: Process,
    pillion: Pillion,
    _folder: Folder,
}

fn scene() -> Scene {
    let folder = Folder::new();
    let (gunicorn, address) = gunicorn(&folder);
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[upstream]\nurl = \"http://{address}\"\n\
         [cache]\nenabled = false\n"
    ));
    Scene { _gunicorn: gunicorn, pillion, _folder: folder }
}

/// Returns the response times of a fast client until it is stopped.
fn fast_client(address: SocketAddr, stop: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut tcp = connect(address);
    while !stop.load(Ordering::SeqCst) {
        let since: Instant = now();
        tcp.write_all(b"GET /fast HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = crate::harness::read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text()), (200, "0".to_owned()));
        // Includes requests that would have been sent during this wait and would have waited too.
        let mut waited = since.elapsed();
        times.push(waited);
        while waited > PAUSE {
            waited -= PAUSE;
            times.push(waited);
        }
        std::thread::sleep(PAUSE);
    }
    times.sort();
    times
}

fn judge(times: &[Duration], extent: &Extent) {
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    let (p90, p99) = (at(0.90), at(0.99));
    println!("fast client: {} requests, p50 {:?}, p90 {p90:?}, p99 {p99:?}", times.len(), at(0.5));
    assert!(times.len() > 100, "{} requests", times.len());
    assert!(p90 < extent.p90 && p99 < extent.p99, "p90 {p90:?}, p99 {p99:?} of {} requests", times.len());
}

#[test]
fn n3_4_slow_clients_of_http_1_do_not_hold_two_sync_workers() {
    let (scene, extent) = (scene(), extent());
    let address = scene.pillion.http;
    let stop = AtomicBool::new(false);
    let (ticks, upload_ticks) = (extent.ticks(), extent.upload_ticks());
    let upload = move || {
        let mut tcp = connect(address);
        let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n");
        tcp.write_all(head.as_bytes()).unwrap();
        for piece in vec![b'u'; UPLOAD].chunks(UPLOAD.div_ceil(upload_ticks)) {
            tcp.write_all(piece).unwrap();
            std::thread::sleep(TICK);
        }
        let answer = crate::harness::read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text()), (200, UPLOAD.to_string()));
    };
    let download = move || {
        let mut tcp = connect(address);
        tcp.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut came = Vec::new();
        let mut piece = vec![0u8; DOWNLOAD.div_ceil(ticks)];
        loop {
            match tcp.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => came.extend_from_slice(&piece[..count]),
                Err(error) => panic!("{error} after {} bytes", came.len()),
            }
            std::thread::sleep(TICK);
        }
        assert_eq!(crate::harness::Answer::parse(&came).body.len(), DOWNLOAD);
    };
    std::thread::scope(|scope| {
        let _raise = Raise(&stop);
        let fast = scope.spawn(|| fast_client(address, &stop));
        let slow: Vec<_> = (0..CLIENTS).flat_map(|_| [scope.spawn(upload), scope.spawn(download)]).collect();
        let failed = slow.into_iter().map(|thread| thread.join()).filter(Result::is_err).count();
        stop.store(true, Ordering::SeqCst);
        let times = fast.join().unwrap();
        assert_eq!(failed, 0, "slow clients without a whole answer");
        judge(&times, &extent);
    });
}

async fn from_second_address(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let tcp = socket.connect(address).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(4096)
        .initial_connection_window_size(1 << 20)
        .handshake(tcp)
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n3_4_nor_do_those_of_http_2() {
    let (scene, extent) = (scene(), extent());
    let address = scene.pillion.http;
    let stop = Arc::new(AtomicBool::new(false));
    let ending = stop.clone();
    let fast = std::thread::spawn(move || fast_client(address, &ending));
    let raise = Raise(&stop);
    let (ticks, upload_ticks) = (extent.ticks(), extent.upload_ticks());
    let mut slow = tokio::task::JoinSet::new();
    let mut uploads = from_second_address(address).await;
    for _ in 0..STREAMS {
        uploads = uploads.ready().await.unwrap();
        let request = http::Request::post("http://a.test/upload").header("content-length", UPLOAD);
        let (answer, mut body) = uploads.send_request(request.body(()).unwrap(), false).unwrap();
        slow.spawn(async move {
            let content = Bytes::from(vec![b'u'; UPLOAD]);
            let piece = UPLOAD.div_ceil(upload_ticks);
            for start in (0..UPLOAD).step_by(piece) {
                let end = (start + piece).min(UPLOAD);
                body.send_data(content.slice(start..end), end == UPLOAD).unwrap();
                tokio::time::sleep(TICK).await;
            }
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(super::tools::h2_body(answer.body_mut()).await, UPLOAD.to_string().as_bytes());
        });
    }
    let mut downloads = from_second_address(address).await;
    for _ in 0..STREAMS {
        downloads = downloads.ready().await.unwrap();
        let request = http::Request::get("http://a.test/big").body(()).unwrap();
        let (answer, _) = downloads.send_request(request, true).unwrap();
        slow.spawn(async move {
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = answer.body_mut();
            let (mut came, piece) = (0, DOWNLOAD.div_ceil(ticks));
            let mut owed = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap_or_else(|error| panic!("{error} after {came} bytes"));
                came += data.len();
                owed += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
                while owed >= piece {
                    owed -= piece;
                    tokio::time::sleep(TICK).await;
                }
            }
            assert_eq!(came, DOWNLOAD);
        });
    }
    while let Some(result) = slow.join_next().await {
        result.expect("a whole answer");
    }
    drop(raise);
    judge(&fast.join().unwrap(), &extent);
}
