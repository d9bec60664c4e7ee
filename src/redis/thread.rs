//! The thread on which all work for Redis runs.

use std::future::Future;
use std::io;
use std::sync::Arc;

use super::link::{Link, Role, log_key};
use super::settings::Settings;

/// The links of a process.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub log: Arc<Link>,
    pub reader: Arc<Link>,
    /// The link for stored responses; `None` if they are not shared.
    pub copies: Option<Arc<Link>>,
}

impl Links {
    /// Creates the links, which connect once they run. `copies`: where stored responses are, if they are shared.
    pub(crate) fn new(settings: &Settings, copies: Option<&Settings>) -> Links {
        let key = log_key(&settings.prefix);
        let link = |role, settings: &Settings| Arc::new(Link::new(role, settings.clone(), key.clone()));
        Links {
            log: link(Role::Log, settings),
            reader: link(Role::Reader, settings),
            copies: copies.map(|settings| link(Role::Copies, settings)),
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Link>> {
        [&self.log, &self.reader].into_iter().chain(&self.copies)
    }

    /// Starts the thread. It keeps the links connected, and runs what `begin` returns.
    pub(crate) fn start<F>(&self, begin: impl FnOnce() -> F + Send + 'static) -> io::Result<()>
    where
        F: Future<Output = ()> + 'static,
    {
        let links = self.clone();
        let run = move || {
            // Resolving names and purging run beside it.
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().max_blocking_threads(4).build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(%error, "the thread for Redis has no runtime; Redis is not used");
                    return;
                }
            };
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let of_copies = async {
                    match &links.copies {
                        Some(link) => link.run().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = links.log.run() => {}
                    () = links.reader.run() => {}
                    () = of_copies => {}
                    () = begin() => {}
                }
            });
        };
        std::thread::Builder::new().name("pillion-redis".to_owned()).spawn(run).map(drop)
    }
}
