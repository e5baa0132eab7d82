//! Container images without a daemon or a registry: one layer, as a docker-archive.

use std::env::consts::ARCH;
use std::io;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::layout::write;

/// An image made of a few files. The same files give the same bytes.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// An empty image; `name` with its tag: "lab.local/echo:1".
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entrypoint: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Adds an executable file at an absolute path.
    #[must_use]
    pub fn program(mut self, path: &str, content: Vec<u8>) -> Self {
        self.files
            .push((path.trim_start_matches('/').to_owned(), content));
        self
    }

    /// What runs when a container names no command.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The docker-archive, as `ctr images import` and `docker load` read it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a path is too long for a tar header.
    pub fn archive(&self) -> Result<Vec<u8>> {
        self.build()
            .map_err(Error::io("build the image", Path::new(&self.name)))
    }

    /// Writes the docker-archive to a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] as for [`Self::archive`], or when the file cannot be written.
    pub fn write_to(&self, path: &Path) -> Result<()> {
        write(path, self.archive()?)
    }

    fn build(&self) -> io::Result<Vec<u8>> {
        let files = self
            .files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice(), 0o755));
        let layer = tar(files)?;
        let diff = sha256(&layer);
        let config = json!({
            "architecture": match ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/:/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
            "history": [{"created_by": "herald-lab"}],
        })
        .to_string();
        let config_name = format!("{}.json", sha256(config.as_bytes()));
        let layer_name = format!("{diff}/layer.tar");
        let manifest =
            json!([{"Config": config_name, "RepoTags": [self.name], "Layers": [layer_name]}])
                .to_string();
        tar([
            (config_name.as_str(), config.as_bytes(), 0o644),
            (layer_name.as_str(), layer.as_slice(), 0o644),
            ("manifest.json", manifest.as_bytes(), 0o644),
        ]
        .into_iter())
    }
}

fn tar<'a>(files: impl Iterator<Item = (&'a str, &'a [u8], u32)>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        tar.append_data(&mut header, path, content)?;
    }
    tar.into_inner()
}

/// In hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digits: Vec<_> = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    digits.concat()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn tar_entries(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("a tar archive");
        entries
            .map(|entry| {
                let mut entry = entry.expect("an entry");
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("its content");
                (
                    entry.path().expect("its path").display().to_string(),
                    content,
                )
            })
            .collect()
    }

    fn image() -> Image {
        Image::new("lab.local/x:1")
            .program("/x", b"program".to_vec())
            .entrypoint(&["/x"])
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let archive = image().archive().expect("built");
        assert_eq!(archive, image().archive().expect("built"));
        let other = image().program("/y", Vec::new()).archive().expect("built");
        assert_ne!(archive, other);
    }

    #[test]
    fn every_digest_is_that_of_the_part_it_names() {
        let entries = tar_entries(&image().archive().expect("built"));
        let [
            (config_name, config),
            (layer_name, layer),
            (manifest_name, manifest),
        ] = entries.as_slice()
        else {
            panic!("three entries");
        };
        assert_eq!(*config_name, format!("{}.json", sha256(config)));
        assert_eq!(*layer_name, format!("{}/layer.tar", sha256(layer)));
        assert_eq!(manifest_name, "manifest.json");
        let manifest: serde_json::Value = serde_json::from_slice(manifest).expect("JSON");
        assert_eq!(
            manifest,
            json!([{"Config": config_name, "RepoTags": ["lab.local/x:1"], "Layers": [layer_name]}])
        );
        let config: serde_json::Value = serde_json::from_slice(config).expect("JSON");
        assert_eq!(
            config["rootfs"]["diff_ids"],
            json!([format!("sha256:{}", sha256(layer))])
        );
        assert_eq!(tar_entries(layer), [("x".to_owned(), b"program".to_vec())]);
    }

    #[test]
    fn knows_a_digest_of_the_standard() {
        // FIPS 180-2, appendix B.1
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
