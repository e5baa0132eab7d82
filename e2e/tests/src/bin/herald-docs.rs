//! Writes the documents that are made from what they are about: `make docs`.

use std::fs;

use anyhow::{Context as _, Result};
use herald_e2e::documents::root;
use herald_e2e::reference::made;

fn main() -> Result<()> {
    for (path, text) in made()? {
        fs::write(root().join(path), text).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}
