use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::layout::create_dir;

/// Held while a lab is built, changed or removed. The kernel gives it back when its holder dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, or waits for it and tells `waiting` so.
    pub(crate) fn take(path: &Path, waiting: impl FnOnce()) -> Result<Self> {
        let mut waiting = Some(waiting);
        loop {
            if let Some(folder) = path.parent() {
                create_dir(folder)?;
            }
            let file = File::create(path).map_err(Error::io("create", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    file.lock().map_err(Error::io("lock", path))?;
                }
                Err(TryLockError::Error(source)) => {
                    return Err(Error::io("lock", path)(source));
                }
            }
            // Its last holder may have removed the file: then ours is a file nobody else will find.
            let same = match (file.metadata(), fs::metadata(path)) {
                (Ok(ours), Ok(there)) => ours.ino() == there.ino(),
                _ => false,
            };
            if same {
                return Ok(Self {
                    _file: file,
                    path: path.to_owned(),
                });
            }
        }
    }

    /// Gives it back and removes its file.
    pub(crate) fn remove(self) {
        fs::remove_file(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn is_free_again_after_it_was_removed() {
        let path = std::env::temp_dir().join(format!("herald-lock-test-{}", std::process::id()));
        let waited = Cell::new(false);
        for _ in 0..2 {
            let lock = Lock::take(&path, || waited.set(true)).expect("free");
            assert!(path.exists());
            lock.remove();
            assert!(!path.exists());
        }
        assert!(!waited.get());
    }
}
