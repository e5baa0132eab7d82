//! Reading `OpenMetrics` pages.

/// The samples of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    samples: Vec<(String, String, f64)>,
}

impl Metrics {
    /// Lines that are no sample are left out.
    pub fn parse(page: &str) -> Self {
        let samples = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                Some((
                    name.to_owned(),
                    labels.trim_end_matches('}').to_owned(),
                    value.parse().ok()?,
                ))
            })
            .collect();
        Self { samples }
    }

    /// The sum of a metric's series that have all these labels, as `name="value"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name, labels).iter().sum()
    }

    /// The values of a metric's series that have all these labels.
    pub fn series(&self, name: &str, labels: &[&str]) -> Vec<f64> {
        self.samples
            .iter()
            .filter(|(of, have, _)| of == name && labels.iter().all(|label| have.contains(label)))
            .map(|(.., value)| *value)
            .collect()
    }

    /// The names there are, for messages.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = self
            .samples
            .iter()
            .map(|(name, ..)| name.as_str())
            .collect();
        names.dedup();
        names.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_series_that_have_the_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na_total{x=\"1\",y=\"1\"} 2\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\"} 9\nb 1\n# EOF\n",
        );
        assert!((metrics.sum("a_total", &["x=\"1\""]) - 5.0).abs() < f64::EPSILON);
        assert!((metrics.sum("b", &[]) - 1.0).abs() < f64::EPSILON);
        assert_eq!(metrics.series("c", &[]), Vec::<f64>::new());
    }
}
