//! The flags that controller and speaker must agree on.

use clap::Args;

/// The load-balancer class that is Herald's own.
pub const DEFAULT_CLASS: &str = "heraldlb.io/herald";

/// Which Services and Nodes are ours. The controller and all speakers must be given the same.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ServiceFlags {
    /// Serve Services whose spec.loadBalancerClass is this; the empty text stands for Services
    /// without a class. May be repeated.
    #[arg(
        long = "load-balancer-class",
        env = "HERALD_LOAD_BALANCER_CLASS",
        value_name = "CLASS",
        value_delimiter = ',',
        default_values = ["", DEFAULT_CLASS]
    )]
    pub load_balancer_classes: Vec<String>,

    /// Use Nodes as announcers and targets even if they carry the label
    /// node.kubernetes.io/exclude-from-external-load-balancers.
    #[arg(long, env = "HERALD_IGNORE_EXCLUDE_LABEL")]
    pub ignore_exclude_label: bool,
}

impl Default for ServiceFlags {
    /// What an empty command line gives.
    fn default() -> Self {
        Self {
            load_balancer_classes: vec![String::new(), DEFAULT_CLASS.to_owned()],
            ignore_exclude_label: false,
        }
    }
}

impl ServiceFlags {
    /// Whether Services of this class are ours; `None`: Services without a class.
    pub fn serves(&self, class: Option<&str>) -> bool {
        let class = class.unwrap_or_default();
        self.load_balancer_classes.iter().any(|ours| ours == class)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: ServiceFlags,
    }

    fn parsed(arguments: &[&str]) -> ServiceFlags {
        Cli::try_parse_from([&["herald"], arguments].concat())
            .unwrap()
            .flags
    }

    #[test]
    fn an_empty_command_line_serves_our_class_and_none() {
        let flags = parsed(&[]);
        assert_eq!(flags, ServiceFlags::default());
        assert!(flags.serves(None));
        assert!(flags.serves(Some("")));
        assert!(flags.serves(Some("heraldlb.io/herald")));
        assert!(!flags.serves(Some("example.com/other")));
    }

    #[test]
    fn classes_given_replace_the_default() {
        let flags = parsed(&["--load-balancer-class", "a", "--load-balancer-class=b"]);
        assert!(flags.serves(Some("a")) && flags.serves(Some("b")));
        assert!(!flags.serves(None));
        assert!(!flags.serves(Some("heraldlb.io/herald")));
    }

    #[test]
    fn the_empty_class_can_be_given_alone() {
        for arguments in [
            &["--load-balancer-class", ""][..],
            &["--load-balancer-class="],
        ] {
            let flags = parsed(arguments);
            assert!(flags.serves(None), "{arguments:?}");
            assert!(!flags.serves(Some("heraldlb.io/herald")), "{arguments:?}");
        }
    }

    #[test]
    fn the_exclude_label_counts_unless_told_otherwise() {
        assert!(!parsed(&[]).ignore_exclude_label);
        assert!(parsed(&["--ignore-exclude-label"]).ignore_exclude_label);
    }
}
