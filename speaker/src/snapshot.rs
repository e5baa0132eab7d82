//! What the API server last said, on disk: a speaker that starts while it is away serves from it.
//!
//! One file for each kind of object, replaced as a whole: after a crash there is the old one or
//! the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tracing::warn;

/// Changes are collected for this long before they are written.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);

/// Where snapshots are kept.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// `None`: nowhere.
    path: Option<PathBuf>,
    /// Held by whoever writes; `true`: cleared, nothing is to be written any more.
    cleared: Arc<Mutex<bool>>,
}

impl Folder {
    /// A folder that is there, or is made now. Its files hold the ring key: nobody else may read them.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(crate) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        if let Some(path) = &path {
            fs::create_dir_all(path)?;
        }
        Ok(Self {
            path,
            cleared: Arc::default(),
        })
    }

    /// Removes all that was kept, and keeps nothing from now on.
    ///
    /// # Errors
    ///
    /// If a file is there and cannot be removed.
    pub(crate) fn clear(&self) -> io::Result<()> {
        // A write in the background comes before this, or not at all.
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        *cleared = true;
        for entry in self.path.iter().map(fs::read_dir) {
            for file in entry? {
                fs::remove_file(file?.path())?;
            }
        }
        Ok(())
    }

    /// The snapshot of one kind of object.
    pub(crate) fn snapshot<K: Ord>(&self, kind: &'static str) -> Snapshot<K> {
        Snapshot {
            kind,
            path: self
                .path
                .as_ref()
                .map(|path| path.join(kind).with_extension("json")),
            cleared: Arc::clone(&self.cleared),
            objects: BTreeMap::new(),
            changed: false,
            writing: None,
        }
    }
}

/// The objects of one kind, as they are to be on disk.
#[derive(Debug)]
pub(crate) struct Snapshot<K> {
    kind: &'static str,
    path: Option<PathBuf>,
    cleared: Arc<Mutex<bool>>,
    objects: BTreeMap<K, Box<RawValue>>,
    changed: bool,
    writing: Option<JoinHandle<()>>,
}

impl<K: Ord> Snapshot<K> {
    /// What is on disk; `None`: nothing that can be used.
    pub(crate) fn load<T: DeserializeOwned>(&self) -> Option<Vec<T>> {
        let path = self.path.as_ref()?;
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(kind = self.kind, %error, "cannot read the snapshot on disk");
                }
                return None;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(objects) => Some(objects),
            Err(error) => {
                warn!(kind = self.kind, %error, "the snapshot on disk is garbled, it is not used");
                None
            }
        }
    }

    /// An object is there, in this form. Who last changed which field is of no use later.
    pub(crate) fn apply<T>(&mut self, key: K, object: &mut T)
    where
        T: Resource + Serialize,
    {
        if self.path.is_none() {
            return;
        }
        object.meta_mut().managed_fields = None;
        match serde_json::value::to_raw_value(object) {
            Ok(text) => {
                self.objects.insert(key, text);
                self.changed = true;
            }
            Err(error) => warn!(kind = self.kind, %error, "an object cannot be kept on disk"),
        }
    }

    /// An object is gone.
    pub(crate) fn delete(&mut self, key: &K) {
        self.changed |= self.objects.remove(key).is_some();
    }

    /// Everything that is there was told of.
    pub(crate) fn complete(&mut self) {
        self.changed = self.path.is_some();
    }

    /// Whether there is something to write, and nothing is being written.
    pub(crate) fn is_due(&self) -> bool {
        self.changed && self.writing.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Writes in the background.
    pub(crate) fn save(&mut self) {
        let Some(path) = self.path.clone() else {
            return;
        };
        self.changed = false;
        let objects: Vec<&RawValue> = self.objects.values().map(AsRef::as_ref).collect();
        let bytes = match serde_json::to_vec(&objects) {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(kind = self.kind, %error, "the snapshot cannot be made");
                return;
            }
        };
        let kind = self.kind;
        let cleared = Arc::clone(&self.cleared);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let cleared = cleared.lock().unwrap_or_else(PoisonError::into_inner);
            if *cleared {
                return;
            }
            if let Err(error) = replace(&path, &bytes) {
                warn!(kind, path = %path.display(), %error, "the snapshot cannot be written");
            }
        }));
    }
}

/// Writes beside the file, then renames: a reader sees the old bytes or the new ones.
fn replace(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file: File = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    fn service(name: &str) -> Service {
        let mut service = Service::default();
        service.metadata.name = Some(name.to_owned());
        service
    }

    async fn saved(snapshot: &mut Snapshot<String>) {
        assert!(snapshot.is_due());
        snapshot.save();
        snapshot.writing.take().unwrap().await.unwrap();
        assert!(!snapshot.is_due());
    }

    fn names(folder: &Folder) -> Option<Vec<String>> {
        let objects = folder.snapshot::<String>("services").load::<Service>()?;
        Some(
            objects
                .into_iter()
                .filter_map(|it| it.metadata.name)
                .collect(),
        )
    }

    #[tokio::test]
    async fn what_is_saved_is_there_after_a_restart_and_garbage_is_not_used() {
        let path = std::env::temp_dir().join(format!("herald-snapshot-{}", std::process::id()));
        let folder = Folder::open(Some(path.clone())).unwrap();
        assert_eq!(names(&folder), None);
        let mut snapshot = folder.snapshot::<String>("services");
        for name in ["a", "b", "c"] {
            snapshot.apply(name.to_owned(), &mut service(name));
        }
        saved(&mut snapshot).await;
        snapshot.delete(&"b".to_owned());
        saved(&mut snapshot).await;
        assert_eq!(names(&folder), Some(vec!["a".to_owned(), "c".to_owned()]));

        let mut nothing_left = folder.snapshot::<String>("services");
        nothing_left.complete();
        saved(&mut nothing_left).await;
        assert_eq!(names(&folder), Some(Vec::new()));

        fs::write(path.join("services.json"), b"[{\"metadata\": {\"na").unwrap();
        assert_eq!(names(&folder), None);
        folder.clear().unwrap();
        snapshot.complete();
        saved(&mut snapshot).await;
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        fs::remove_dir_all(path).unwrap();
    }
}
