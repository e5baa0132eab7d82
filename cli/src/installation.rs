//! What is installed, and with which flags: read from the controller's Deployment.

use anyhow::{Context as _, Result};
use clap::Parser;
use herald_api::labels;
use herald_config::ServiceFlags;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Client;
use kube::api::{Api, ListParams};

/// How Herald is installed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installation {
    /// Where; `None`: nowhere that could be found.
    pub(crate) namespace: Option<String>,
    /// Which Services and nodes are ours; the defaults where the controller could not be found.
    pub(crate) flags: ServiceFlags,
    /// Whether the flags are a guess, and why.
    pub(crate) guess: Option<String>,
    /// The API server does not let us see what is installed.
    pub(crate) is_hidden: bool,
    pub(crate) controller: Option<Deployment>,
    pub(crate) speaker: Option<DaemonSet>,
}

/// Finds Herald.
///
/// # Errors
///
/// If the API server can't be reached. That it refuses is no error: then the flags are a guess.
pub(crate) async fn installation(client: &Client) -> Result<Installation> {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let sets: Api<DaemonSet> = Api::all(client.clone());
    let labelled = |component: &str| {
        let name = format!("{}={}", labels::NAME, labels::HERALD);
        ListParams::default().labels(&format!("{name},{}={component}", labels::COMPONENT))
    };
    let controller = match deployments.list(&labelled(labels::CONTROLLER)).await {
        Ok(found) => found.items.into_iter().next(),
        Err(kube::Error::Api(status)) => {
            return Ok(Installation {
                guess: Some(status.message),
                is_hidden: true,
                ..Installation::default()
            });
        }
        Err(error) => return Err(error).context("cannot reach the API server"),
    };
    let (speaker, is_hidden) = match sets.list(&labelled(labels::SPEAKER)).await {
        Ok(found) => (found.items.into_iter().next(), false),
        Err(kube::Error::Api(_)) => (None, true),
        Err(error) => return Err(error).context("cannot reach the API server"),
    };
    let (flags, guess) = match controller.as_ref().map(flags_of) {
        Some(Ok(flags)) => (flags, None),
        Some(Err(error)) => (ServiceFlags::default(), Some(error)),
        None => {
            let why = "no Deployment of Herald's controller was found".to_owned();
            (ServiceFlags::default(), Some(why))
        }
    };
    let namespace = controller
        .as_ref()
        .and_then(|found| found.metadata.namespace.clone());
    Ok(Installation {
        namespace,
        flags,
        guess,
        is_hidden,
        controller,
        speaker,
    })
}

/// The flags that controller and speakers share, as a command line of their own.
#[derive(Parser)]
struct Shared {
    #[command(flatten)]
    flags: ServiceFlags,
}

/// The flags with which the controller runs, as its container's arguments and environment say.
fn flags_of(deployment: &Deployment) -> Result<ServiceFlags, String> {
    const FLAGS: [&str; 2] = ["--load-balancer-class", "--ignore-exclude-label"];
    const VARIABLES: [&str; 2] = ["HERALD_LOAD_BALANCER_CLASS", "HERALD_IGNORE_EXCLUDE_LABEL"];
    let spec = deployment.spec.as_ref();
    let pod = spec.and_then(|spec| spec.template.spec.as_ref());
    let containers = pod.map_or(&[][..], |pod| pod.containers.as_slice());
    let container = containers
        .first()
        .ok_or("its Deployment has no container")?;
    let is_shared = |argument: &&String| {
        let name = argument.split('=').next().unwrap_or_default();
        FLAGS.contains(&name)
    };
    let arguments = container.args.iter().flatten().filter(is_shared).cloned();
    let mut line = vec!["herald".to_owned()];
    line.extend(arguments);
    for variable in container.env.iter().flatten() {
        let place = VARIABLES.iter().position(|name| *name == variable.name);
        let flag = place.and_then(|place| FLAGS.get(place));
        if let (Some(flag), Some(value)) = (flag, &variable.value)
            && !line.iter().any(|argument| argument.starts_with(flag))
        {
            match *flag {
                "--ignore-exclude-label" if value == "true" => line.push((*flag).to_owned()),
                "--ignore-exclude-label" => {}
                _ => line.push(format!("{flag}={value}")),
            }
        }
    }
    Shared::try_parse_from(line)
        .map(|shared| shared.flags)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(args: &[&str], env: &serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "herald-controller"},
            "spec": {
                "selector": {},
                "template": {"spec": {"containers": [{"name": "controller", "args": args, "env": env}]}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn flags_are_read_from_arguments_and_environment() {
        let args = [
            "--log-level=info",
            "--load-balancer-class=",
            "--load-balancer-class=example.com/lb",
            "--ignore-exclude-label",
        ];
        let got = flags_of(&deployment(&args, &json!([]))).unwrap();
        assert_eq!(got.load_balancer_classes, ["", "example.com/lb"]);
        assert!(got.ignore_exclude_label);
        let env = json!([
            {"name": "HERALD_LOAD_BALANCER_CLASS", "value": "a,b"},
            {"name": "NODE_NAME", "value": "n"},
        ]);
        let got = flags_of(&deployment(&["--no-rebalance"], &env)).unwrap();
        assert_eq!(got.load_balancer_classes, ["a", "b"]);
        assert!(!got.ignore_exclude_label);
        assert_eq!(
            flags_of(&deployment(&[], &json!([]))),
            Ok(ServiceFlags::default())
        );
    }
}
