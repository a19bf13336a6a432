//! Programs that a benchmark starts, and ends by their process id.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::Outcome;

/// A program that is ended when this is dropped.
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, command: &mut Command) -> Outcome<Self> {
        let child = command.spawn().map_err(|error| format!("{name} can't be started: {error}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Starts this very program again with another role: `bench <arguments>`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_self(arguments: &[&str]) -> Outcome<Self> {
        Self::start(&arguments.join(" "), Command::new(std::env::current_exe()?).args(arguments))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    /// When it ends or does not listen within 20 s.
    pub fn wait_for(&mut self, address: SocketAddr) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended with {status} before it listened", self.name).into());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Err(format!("{} did not listen on {address} within 20 s", self.name).into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first, so that a node ends its apps; SIGKILL if it does not listen.
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        if asked.is_ok_and(|status| status.success()) {
            let deadline = Instant::now() + Duration::from_secs(25);
            while Instant::now() < deadline {
                if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("{} (process {pid}) can't be ended: {error}", self.name);
        }
    }
}
