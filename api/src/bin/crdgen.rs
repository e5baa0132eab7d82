//! Writes one file per CRD into the folder given: `crdgen helm/crds`.

#![expect(
    clippy::print_stdout,
    reason = "a program for people, who want to see what it did"
)]

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("usage: crdgen FOLDER, such as helm/crds")?;
    std::fs::create_dir_all(&folder)?;
    for (name, text) in herald_api::crd_files()? {
        let path = folder.join(name);
        let changed = std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str());
        if changed {
            std::fs::write(&path, text)?;
        }
        println!(
            "{} {}",
            if changed { "written  " } else { "unchanged" },
            path.display()
        );
    }
    Ok(())
}
