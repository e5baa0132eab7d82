//! Certificates and kubeconfigs. One authority; a node's certificate makes the Node authorizer and
//! `NodeRestriction` real.

use crate::address::{Family, LanAddress};
use crate::error::Result;
use crate::layout::{Layout, create_dir, write};
use crate::process::{command, run};

/// Makes all of them, for the control plane and `nodes`.
pub(crate) fn create(
    layout: &Layout,
    nodes: &[(String, LanAddress)],
    family: Family,
) -> Result<()> {
    let dir = layout.path("pki");
    create_dir(&dir)?;
    let pki = Pki {
        layout,
        server: api_server_url(family),
    };
    pki.authority()?;
    pki.service_account_key()?;
    let control_plane = LanAddress::control_plane(family);
    let api_names = [
        ip_names(&control_plane.all()),
        ip_names(&["127.0.0.1", "::1", "10.96.0.1", "fd00:10:96::1"]),
        "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         DNS:kubernetes.default.svc.cluster.local"
            .to_owned(),
    ];
    pki.certificate("apiserver", "/CN=kube-apiserver", &api_names.join(","))?;
    pki.certificate(
        "apiserver-kubelet",
        "/O=system:masters/CN=kube-apiserver-kubelet-client",
        "",
    )?;
    pki.certificate("front-proxy", "/CN=front-proxy-client", "")?;
    for (name, subject) in [
        ("admin", "/O=system:masters/CN=admin"),
        ("kcm", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
        ("proxy", "/CN=system:kube-proxy"),
    ] {
        pki.certificate(name, subject, "")?;
        pki.kubeconfig(name)?;
    }
    for (node, address) in nodes {
        let subject = format!("/O=system:nodes/CN=system:node:{node}");
        let names = format!("DNS:{node},{}", ip_names(&address.all()));
        pki.certificate(node, &subject, &names)?;
        pki.kubeconfig(node)?;
    }
    Ok(())
}

/// As everything in the lab reaches it.
pub(crate) fn api_server_url(family: Family) -> String {
    let address = LanAddress::control_plane(family).primary();
    if family.v4() {
        format!("https://{address}:6443")
    } else {
        format!("https://[{address}]:6443")
    }
}

fn ip_names<S: AsRef<str>>(addresses: &[S]) -> String {
    let names: Vec<_> = addresses
        .iter()
        .map(|ip| format!("IP:{}", ip.as_ref()))
        .collect();
    names.join(",")
}

struct Pki<'a> {
    layout: &'a Layout,
    server: String,
}

impl Pki<'_> {
    fn openssl<const N: usize>(&self, args: [&str; N]) -> Result<()> {
        run(command("openssl", args).current_dir(self.layout.path("pki"))).map(drop)
    }

    fn authority(&self) -> Result<()> {
        self.openssl([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=herald-lab",
            "-days",
            "3650",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ])
    }

    fn service_account_key(&self) -> Result<()> {
        self.openssl([
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-out",
            "sa.key",
        ])?;
        self.openssl(["pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub"])
    }

    fn certificate(&self, name: &str, subject: &str, alternative_names: &str) -> Result<()> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let names = format!("subjectAltName={alternative_names}");
        let mut openssl = command(
            "openssl",
            [
                "req",
                "-x509",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "3650",
                "-subj",
                subject,
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                "keyUsage=critical,digitalSignature",
                "-addext",
                "extendedKeyUsage=clientAuth,serverAuth",
            ],
        );
        if !alternative_names.is_empty() {
            openssl.args(["-addext", &names]);
        }
        run(openssl.current_dir(self.layout.path("pki"))).map(drop)
    }

    fn kubeconfig(&self, name: &str) -> Result<()> {
        let (pki, server) = (self.layout.path("pki"), &self.server);
        let pki = pki.display();
        write(
            &self.layout.path(&format!("pki/{name}.conf")),
            format!(
                "apiVersion: v1\n\
                 kind: Config\n\
                 clusters: [{{name: lab, cluster: {{server: \"{server}\", certificate-authority: {pki}/ca.crt}}}}]\n\
                 users: [{{name: lab, user: {{client-certificate: {pki}/{name}.crt, client-key: {pki}/{name}.key}}}}]\n\
                 contexts: [{{name: lab, context: {{cluster: lab, user: lab}}}}]\n\
                 current-context: lab\n"
            ),
        )
    }
}
