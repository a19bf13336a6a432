//! The examples that a new app can be made from: those of the repository's `examples/`, in the binary.

use std::io;

use flate2::{Compression, write::GzEncoder};
use serde::Serialize;

/// An example app.
#[derive(Debug, Serialize)]
pub(super) struct Example {
    /// As in `examples/`.
    pub(super) name: &'static str,
    title: &'static str,
    about: &'static str,
    #[serde(skip)]
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! files {
    ($folder:literal: $($name:literal),+) => {
        &[$(($name, include_bytes!(concat!("../../../../examples/", $folder, "/", $name)))),+]
    };
}

/// Every example.
pub(super) const EXAMPLES: &[Example] = &[
    Example {
        name: "static",
        title: "Static site",
        about: "Two files: a page and its style sheet.",
        files: files!("static": "index.html", "style.css", "README.md"),
    },
    Example {
        name: "node",
        title: "Node.js",
        about: "An HTTP server of the standard library, with a health check.",
        files: files!("node": "package.json", "server.js", "README.md"),
    },
    Example {
        name: "python",
        title: "Python",
        about: "An HTTP server of the standard library.",
        files: files!("python": "pyproject.toml", "app.py", "README.md"),
    },
    Example {
        name: "procfile",
        title: "Web and worker",
        about: "Two process types of one source, named in a Procfile.",
        files: files!("procfile": "Procfile", "requirements.txt", "web.py", "worker.py", "README.md"),
    },
];

impl Example {
    /// The example of this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        EXAMPLES.iter().find(|example| example.name == name)
    }

    /// Its files as a tar.gz archive.
    pub(super) fn archive(&self) -> io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, content) in self.files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content)?;
        }
        archive.into_inner()?.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn an_archive_holds_the_files_of_its_example() {
        for example in EXAMPLES {
            let bytes = example.archive().unwrap();
            let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
            let mut found = Vec::new();
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                found.push((entry.path().unwrap().display().to_string(), content));
            }
            let expected: Vec<_> =
                example.files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
            assert_eq!(found, expected, "{}", example.name);
        }
    }
}
