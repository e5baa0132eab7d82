//! A Service from a file, as the API server would have it.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use herald_controller::kinds;
use herald_controller::watch::Kind as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::Value;

use crate::connect::Connection;
use crate::read::Objects;
use crate::what_if::Change;

/// The change that applying the file would be: a dry run fills in what the file does not say.
///
/// # Errors
///
/// If the file can't be read, holds no Service, or the API server refuses it.
pub(crate) async fn service(
    connection: &Connection,
    objects: &Objects,
    file: &Path,
) -> Result<Change> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the standard input")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    let (name, namespace, object) = parse(&text, &connection.namespace)
        .with_context(|| format!("{} can't be used", file.display()))?;
    let services: Api<Service> = Api::namespaced(connection.client.clone(), &namespace);
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::apply("kubectl-herald").force()
    };
    let applied = services
        .patch(&name, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("the API server refuses Service {namespace}/{name}"))?;
    let input = kinds::Services(objects.flags().clone())
        .applied(applied)
        .context("the Service can't be read")?;
    Ok(Change::Apply(
        Box::new(input),
        format!("{namespace}/{name}"),
    ))
}

/// Name and namespace of the Service in a text, and the whole as it is to be applied.
fn parse(text: &str, default_namespace: &str) -> Result<(String, String, Value)> {
    let mut object: Value = serde_saphyr::from_str(text).context("not the YAML of one object")?;
    let field = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let kind = field("/kind").unwrap_or_default();
    if kind != "Service" {
        bail!("it holds {kind:?}, expected a Service");
    }
    let name = field("/metadata/name").context("it has no metadata.name")?;
    let namespace = field("/metadata/namespace").unwrap_or_else(|| default_namespace.to_owned());
    if let Some(metadata) = object
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
    {
        metadata.insert("namespace".to_owned(), namespace.clone().into());
        metadata.remove("managedFields");
    }
    Ok((name, namespace, object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_applied_where_it_says_or_where_the_command_line_does() {
        let text =
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  type: LoadBalancer\n";
        let (name, namespace, object) = parse(text, "shop").unwrap();
        assert_eq!((name.as_str(), namespace.as_str()), ("web", "shop"));
        assert_eq!(object["metadata"]["namespace"], "shop");
        let text = text.replace("name: web", "name: web\n  namespace: other");
        assert_eq!(parse(&text, "shop").unwrap().1, "other");
    }

    #[test]
    fn what_is_no_service_is_named() {
        let error = parse("kind: Pod\nmetadata: {name: web}\n", "shop").unwrap_err();
        assert_eq!(error.to_string(), "it holds \"Pod\", expected a Service");
        assert!(parse("kind: Service\n", "shop").is_err());
    }
}
