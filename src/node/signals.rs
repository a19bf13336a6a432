//! When a node stops: the first signal drains it, a second Ctrl-C ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Context, Result};

/// Listens from the moment it is made, so that no signal is missed while the node starts.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes over from the default, which is to die.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context(|| "listen for signals".to_owned());
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for either; its name.
    pub async fn first(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// From now on another Ctrl-C ends the process at once. What it leaves running is ended at the next start.
    pub fn exit_on_second(mut self) {
        actix_rt::spawn(async move {
            if self.interrupt.recv().await.is_some() {
                eprintln!("ended at once; what was left running is ended at the next start");
                std::process::exit(130);
            }
        });
    }
}
