//! When a node stops: the first signal drains it, a second Ctrl-C ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Context, Result};

/// The signals since it was created, so that none is missed while the node starts.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Replaces the default action, which ends the process.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context(|| "listen for signals".to_owned());
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for a signal. Returns its name.
    pub async fn first(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Makes another Ctrl-C end the process at once. Its orphans are ended at the next start.
    pub fn exit_on_second(mut self) {
        actix_rt::spawn(async move {
            if self.interrupt.recv().await.is_some() {
                eprintln!("ended at once; what was left running is ended at the next start");
                std::process::exit(130);
            }
        });
    }
}
