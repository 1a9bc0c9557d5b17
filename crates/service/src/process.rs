//! What a process is called where people look for the holder of a claim or a lease.

/// This process as `host:pid`. The host is `HOSTNAME` (in Kubernetes the pod), else the kernel's
/// host name.
pub fn process_name() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host
        .as_deref()
        .map(str::trim)
        .filter(|name| !name.is_empty());
    format!("{}:{}", host.unwrap_or("localhost"), std::process::id())
}
