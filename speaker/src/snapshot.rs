//! What the API server last said, on disk: a speaker that starts while it is away serves from it.
//!
//! One file for each kind of object, replaced as a whole: after a crash there is the old one or
//! the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
            file: None,
            version: 0,
            changed: false,
            writing: None,
        }
    }
}

/// The objects of one kind, as they are to be on disk. In memory are only those that are not there yet.
#[derive(Debug)]
pub(crate) struct Snapshot<K> {
    kind: &'static str,
    path: Option<PathBuf>,
    cleared: Arc<Mutex<bool>>,
    objects: BTreeMap<K, Kept>,
    /// What the places of objects are in. It may have another name by now, or none.
    file: Option<Arc<File>>,
    /// Counts the objects that were applied.
    version: u64,
    changed: bool,
    writing: Option<JoinHandle<Option<Written<K>>>>,
}

/// Where the text of an object is.
#[derive(Clone, Debug)]
struct Kept {
    /// Tells it from what the object was before.
    version: u64,
    text: Text,
}

#[derive(Clone, Debug)]
enum Text {
    Here(Arc<RawValue>),
    /// In the file.
    There(Place),
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    bytes: usize,
}

/// A file that was written, and where in it objects are.
#[derive(Debug)]
struct Written<K> {
    file: File,
    places: Vec<(K, u64, Place)>,
}

impl<K: Ord + Clone + Send + 'static> Snapshot<K> {
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

    /// An object is there, in this form.
    pub(crate) fn apply<T: Serialize>(&mut self, key: K, object: &T) {
        if self.path.is_none() {
            return;
        }
        match serde_json::value::to_raw_value(object) {
            Ok(text) => {
                self.version += 1;
                let kept = Kept {
                    version: self.version,
                    text: Text::Here(text.into()),
                };
                self.objects.insert(key, kept);
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

    /// Whether [`Self::save`] has something to do, now or soon.
    pub(crate) fn is_due(&self) -> bool {
        self.changed || self.writing.is_some()
    }

    /// Writes in the background, one time after the other; what was written is forgotten here.
    pub(crate) async fn save(&mut self) {
        match &mut self.writing {
            Some(writing) if !writing.is_finished() => return,
            Some(writing) => {
                let written = writing.await.ok().flatten();
                self.writing = None;
                if let Some(written) = written {
                    self.forget(written);
                }
            }
            None => {}
        }
        let (true, Some(path)) = (self.changed, self.path.clone()) else {
            return;
        };
        self.changed = false;
        let objects: Vec<(K, Kept)> = self
            .objects
            .iter()
            .map(|(key, kept)| (key.clone(), kept.clone()))
            .collect();
        let kind = self.kind;
        let (cleared, before) = (Arc::clone(&self.cleared), self.file.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let cleared = cleared.lock().unwrap_or_else(PoisonError::into_inner);
            if *cleared {
                return None;
            }
            match replace(&path, before.as_deref(), objects) {
                Ok(written) => Some(written),
                Err(error) => {
                    warn!(kind, path = %path.display(), %error, "the snapshot cannot be written");
                    None
                }
            }
        }));
    }

    /// What is on disk need not be here. What has changed meanwhile stays.
    fn forget(&mut self, Written { file, places }: Written<K>) {
        for (key, version, place) in places {
            if let Some(kept) = self.objects.get_mut(&key)
                && kept.version == version
            {
                kept.text = Text::There(place);
            }
        }
        self.file = Some(Arc::new(file));
    }
}

/// Writes beside the file, then renames: a reader sees the old objects or the new ones.
fn replace<K>(
    path: &Path,
    before: Option<&File>,
    objects: Vec<(K, Kept)>,
) -> io::Result<Written<K>> {
    let beside = path.with_extension("new");
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    let mut out = BufWriter::new(&file);
    let mut offset = 0;
    let mut copied = Vec::new();
    let mut places = Vec::with_capacity(objects.len());
    for (key, kept) in objects {
        let text = match (&kept.text, before) {
            (Text::Here(text), _) => text.get().as_bytes(),
            (Text::There(place), Some(before)) => {
                copied.resize(place.bytes, 0);
                before.read_exact_at(&mut copied, place.offset)?;
                &copied
            }
            (Text::There(_), None) => return Err(io::ErrorKind::NotFound.into()),
        };
        out.write_all(if offset == 0 { b"[" } else { b"," })?;
        offset += 1;
        out.write_all(text)?;
        let place = Place {
            offset,
            bytes: text.len(),
        };
        offset += text.len() as u64;
        places.push((key, kept.version, place));
    }
    out.write_all(if offset == 0 { b"[]" } else { b"]" })?;
    out.into_inner().map_err(IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(Written { file, places })
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
        while snapshot.is_due() {
            snapshot.save().await;
            tokio::task::yield_now().await;
        }
    }

    /// Objects that are in memory.
    fn here(snapshot: &Snapshot<String>) -> usize {
        let kept = snapshot.objects.values();
        kept.filter(|kept| matches!(kept.text, Text::Here(_)))
            .count()
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
            snapshot.apply(name.to_owned(), &service(name));
        }
        assert_eq!(here(&snapshot), 3);
        saved(&mut snapshot).await;
        assert_eq!(here(&snapshot), 0);
        snapshot.delete(&"b".to_owned());
        snapshot.apply("d".to_owned(), &service("d"));
        saved(&mut snapshot).await;
        assert_eq!(here(&snapshot), 0);
        let all = ["a", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(names(&folder), Some(all));

        let mut nothing_left = folder.snapshot::<String>("services");
        nothing_left.complete();
        saved(&mut nothing_left).await;
        assert_eq!(names(&folder), Some(Vec::new()));

        // Written while it changes again: what is on disk is not what it is now.
        snapshot.complete();
        snapshot.save().await;
        snapshot.apply("a".to_owned(), &service("e"));
        saved(&mut snapshot).await;
        let all = ["e", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(names(&folder), Some(all));

        fs::write(path.join("services.json"), b"[{\"metadata\": {\"na").unwrap();
        assert_eq!(names(&folder), None);
        folder.clear().unwrap();
        snapshot.complete();
        saved(&mut snapshot).await;
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        fs::remove_dir_all(path).unwrap();
    }
}
