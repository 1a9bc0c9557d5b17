//! The registry that /metrics is answered from. Each process registers its own metrics in it;
//! the one that all share is `runlog_build_info`.

pub use prometheus::Registry as MetricsRegistry;
use prometheus::{IntGauge, Opts};

/// The version of every Runlog binary and crate: they are released together.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Registers `runlog_build_info{component, version}` = 1.
///
/// # Errors
/// `AlreadyReg` where the registry has it already.
pub fn register_build_info(registry: &MetricsRegistry, component: &str) -> prometheus::Result<()> {
    let opts = Opts::new(
        "runlog_build_info",
        "Which component of which version runs; always 1.",
    )
    .const_label("component", component)
    .const_label("version", VERSION);
    let info = IntGauge::with_opts(opts)?;
    info.set(1);
    registry.register(Box::new(info))
}

/// All metrics of the registry in Prometheus' text format 0.0.4.
pub(crate) fn render(registry: &MetricsRegistry) -> prometheus::Result<String> {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{MetricsRegistry, VERSION, register_build_info, render};

    #[test]
    fn build_info_names_component_and_version() {
        let registry = MetricsRegistry::new();
        register_build_info(&registry, "ingest").unwrap();
        let line = format!("runlog_build_info{{component=\"ingest\",version=\"{VERSION}\"}} 1\n");
        assert!(render(&registry).unwrap().contains(&line));
        assert!(register_build_info(&registry, "ingest").is_err());
    }
}
