//! The way to the API server, found as kubectl finds it.

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::Global;

/// A client, and the namespace of what is named without one.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Connects as the flags say.
///
/// # Errors
///
/// If no configuration is found, or it can't be used.
pub(crate) async fn connect(flags: &Global) -> Result<Connection> {
    let options = KubeConfigOptions {
        context: flags.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &flags.kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            Config::from_custom_kubeconfig(read, &options).await
        }
        None if flags.context.is_some() => Config::from_kubeconfig(&options).await,
        None => {
            let config = Config::infer().await;
            let config = config.context("no kubeconfig, and not in a cluster")?;
            return client(config, flags);
        }
    };
    client(config.context("the kubeconfig can't be used")?, flags)
}

fn client(config: Config, flags: &Global) -> Result<Connection> {
    let namespace = flags.namespace.clone();
    Ok(Connection {
        namespace: namespace.unwrap_or_else(|| config.default_namespace.clone()),
        client: Client::try_from(config).context("cannot make a client for the API server")?,
    })
}
