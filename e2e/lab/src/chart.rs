//! Herald in the lab: its images from static binaries, its chart by Helm.

use std::env;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::image::Image;
use crate::lab::Lab;
use crate::layout::{Layout, create_dir, write, write_program};
use crate::options::ChartOptions;
use crate::up::{Progress, Step};

/// Where the chart is installed.
pub const HERALD_NAMESPACE: &str = "herald-system";
/// Name of its Helm release.
pub const HERALD_RELEASE: &str = "herald";

const REPOSITORY: &str = "lab.local/herald";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const BINARIES: [&str; 2] = ["herald-controller", "herald-speaker"];
/// What makes `kubectl herald` of the lab's kubectl.
const PLUGIN: &str = "kubectl-herald";
const READY_TIME: Duration = Duration::from_mins(2);

/// Folder of the chart.
fn find_chart(options: &ChartOptions) -> Result<PathBuf> {
    let given = options.chart.clone();
    let chart = given
        .or_else(|| env::var_os("HERALD_CHART").map(PathBuf::from))
        .unwrap_or_else(|| repository().join("helm"));
    if chart.join("Chart.yaml").is_file() {
        return fs::canonicalize(&chart).map_err(Error::io("read", &chart));
    }
    Err(Error::Missing {
        what: format!("the chart ({}/Chart.yaml)", chart.display()),
        remedy: "name its folder with --chart, or leave it out with --no-herald".to_owned(),
    })
}

/// The repository around the current folder, else the one this was built in.
fn repository() -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    let around = here
        .ancestors()
        .find(|dir| dir.join("helm/Chart.yaml").is_file());
    around.map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
        Path::to_path_buf,
    )
}

fn binaries_folder(options: &ChartOptions) -> PathBuf {
    let given = options.binaries.clone();
    given
        .or_else(|| env::var_os("HERALD_BINARIES").map(PathBuf::from))
        .unwrap_or_else(|| {
            let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
            let target = target.unwrap_or_else(|| repository().join("target"));
            target.join(format!("{ARCH}-unknown-linux-musl/release"))
        })
}

/// The static binaries, by name.
fn find_binaries(options: &ChartOptions) -> Result<[(&'static str, PathBuf); 2]> {
    let folder = binaries_folder(options);
    let binaries = BINARIES.map(|name| (name, folder.join(name)));
    match binaries.iter().find(|(_, path)| !path.is_file()) {
        Some((_, path)) => Err(Error::Missing {
            what: format!("the static binary {}", path.display()),
            remedy: format!(
                "`make images` builds it; or name its folder with --binaries (target \
                 {ARCH}-unknown-linux-musl)"
            ),
        }),
        None => Ok(binaries),
    }
}

/// A program that was built beside the static binaries, and is installed on no node.
///
/// # Errors
///
/// [`Error::Missing`] if it was not.
pub fn built(name: &str) -> Result<PathBuf> {
    let path = binaries_folder(&ChartOptions::default()).join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing {
        what: path.display().to_string(),
        remedy: "`make build` builds it".to_owned(),
    })
}

/// Whether all is there that an installation takes; gives the chart's folder.
pub(crate) fn check(options: &ChartOptions) -> Result<PathBuf> {
    find_binaries(options)?;
    find_chart(options)
}

/// Packs each binary into an image of its own, in the lab's image folder. Gives those that changed. The
/// plugin of kubectl, if it was built, comes into the PATH of every place.
pub(crate) fn pack_images(layout: &Layout, options: &ChartOptions) -> Result<Vec<PathBuf>> {
    let plugin = binaries_folder(options).join(PLUGIN);
    if plugin.is_file() {
        create_dir(&layout.path("bin"))?;
        let content = fs::read(&plugin).map_err(Error::io("read", &plugin))?;
        write_program(&layout.bin(PLUGIN), content)?;
    }
    create_dir(&layout.path("images"))?;
    let mut changed = Vec::new();
    for (name, path) in find_binaries(options)? {
        let content = fs::read(&path).map_err(Error::io("read", &path))?;
        let image = Image::new(&format!("lab.local/{name}:{VERSION}"));
        let archive = image.program(&format!("/{name}"), content).archive()?;
        let path = layout.path("images").join(format!("{name}.tar"));
        if !fs::read(&path).is_ok_and(|there| there == archive) {
            write(&path, archive)?;
            changed.push(path);
        }
    }
    Ok(changed)
}

impl Lab {
    /// Brings Herald in the lab to what is built now: packs the binaries, loads the images, installs
    /// or upgrades the chart, and waits until everything is Ready.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without chart or binaries; [`Error::Command`] with Helm's words;
    /// [`Error::NotReady`] says which pod isn't, why, and its last log lines.
    pub fn deploy(&self, options: &ChartOptions, progress: &mut Progress<'_>) -> Result<()> {
        let began = Instant::now();
        let mut step = |text: String| {
            progress(&Step {
                elapsed: began.elapsed(),
                text,
            });
        };
        let chart = check(options)?;
        let changed = pack_images(&self.layout, options)?;
        for image in &changed {
            self.load_image(image)?;
            step(format!("{} loaded into every node", image.display()));
        }
        let before = self
            .helm(["status", HERALD_RELEASE, "--namespace", HERALD_NAMESPACE])
            .is_ok();
        self.install(&chart, options)?;
        step(format!("chart installed into {HERALD_NAMESPACE}"));
        if before && !changed.is_empty() {
            // The images' names are the same, so the chart alone restarts nothing.
            self.kubectl([
                "rollout",
                "restart",
                "deployment,daemonset",
                "--namespace",
                HERALD_NAMESPACE,
            ])?;
        }
        self.wait_workloads_ready(HERALD_NAMESPACE, READY_TIME)?;
        step("everything Ready".to_owned());
        Ok(())
    }

    /// Installs or upgrades the chart.
    pub(crate) fn install(&self, chart: &Path, options: &ChartOptions) -> Result<()> {
        let chart = chart.display().to_string();
        let image = format!("image.repository={REPOSITORY}");
        let tag = format!("image.tag={VERSION}");
        let mut args = vec![
            "upgrade",
            "--install",
            HERALD_RELEASE,
            &chart,
            "--namespace",
            HERALD_NAMESPACE,
            "--create-namespace",
            "--set",
            &image,
            "--set",
            &tag,
        ];
        let values: Vec<_> = options
            .values
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        args.extend(values.iter().flat_map(|file| ["--values", file]));
        args.extend(options.set.iter().flat_map(|set| ["--set", set]));
        self.helm(args).map(drop)
    }

    /// Waits until Herald is Ready.
    pub(crate) fn wait_herald_ready(&self) -> Result<()> {
        self.wait_workloads_ready(HERALD_NAMESPACE, READY_TIME)
    }
}
