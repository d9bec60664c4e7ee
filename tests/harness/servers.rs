//! Real servers that tests use as apps.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use super::{Folder, Process, eventually, free_address};

/// A real nginx with this `server` block, on a free port. Its address replaces `LISTEN` in the block.
pub(crate) struct Nginx {
    pub process: Process,
    pub address: SocketAddr,
    pub folder: Folder,
}

impl Nginx {
    pub(crate) fn serving(server: &str) -> Nginx {
        // A port that was free may be taken by now, so several are tried.
        for _ in 0..10 {
            let address = free_address();
            let folder = Folder::new();
            let config = format!(
                "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};\n\
                 uwsgi_temp_path {0}; scgi_temp_path {0}; {1} }}\n",
                folder.0.display(),
                server
                    .replace("LISTEN", &address.to_string())
                    .replace("FOLDER", &folder.0.display().to_string()),
            );
            let path = folder.write("nginx.conf", config);
            let child = Command::new("nginx")
                .arg("-c")
                .arg(path)
                .arg("-p")
                .arg(&folder.0)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx is installed by tests/run");
            let mut process = Process(child);
            let up = eventually("nginx listens", || {
                if process.0.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                TcpStream::connect(address).is_ok().then_some(true)
            });
            if up {
                return Nginx { process, address, folder };
            }
        }
        panic!("nginx found no port");
    }

    /// Starts the server again on the same address, after it was killed.
    pub(crate) fn restart(&mut self) {
        self.process = Process(
            Command::new("nginx")
                .arg("-c")
                .arg(self.folder.path("nginx.conf"))
                .arg("-p")
                .arg(&self.folder.0)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx is installed by tests/run"),
        );
    }
}

/// Starts httpbin, a real third-party app, behind gunicorn. `tests/run` installs it.
pub(crate) fn httpbin() -> (Process, SocketAddr) {
    let gunicorn = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/httpbin/bin/gunicorn");
    let address = free_address();
    let mut command = Command::new(gunicorn);
    command.args(["--bind", &address.to_string(), "--threads", "4", "httpbin:app"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process(command.spawn().expect("tests/run installs httpbin"));
    eventually("httpbin listens", || TcpStream::connect(address).ok());
    (process, address)
}

/// Returns the next connection that sends anything. Pillion also connects without sending a byte to check that the app
/// is there.
pub(crate) async fn accept(
    listener: &tokio::net::TcpListener,
) -> std::io::Result<(tokio::net::TcpStream, std::net::SocketAddr)> {
    loop {
        let (tcp, peer) = listener.accept().await?;
        if !matches!(tcp.peek(&mut [0]).await, Ok(0)) {
            return Ok((tcp, peer));
        }
    }
}
