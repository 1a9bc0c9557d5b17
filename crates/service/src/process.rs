//! What a process is called where people look for the holder of a claim or a lease, and who runs it
//! where they look for who did something.

/// This process as `host:pid`. The host is `HOSTNAME` (in Kubernetes the pod), else the kernel's
/// host name.
pub fn process_name() -> String {
    format!("{}:{}", host(), std::process::id())
}

/// Who runs a command, as `user@host`, for audits. The user is the one who called sudo, `USER` or
/// `LOGNAME`, else the number of the process's own.
pub fn operator_name() -> String {
    use std::os::unix::fs::MetadataExt;
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .find(|name| !name.trim().is_empty());
    let user = user.unwrap_or_else(|| match std::fs::metadata("/proc/self") {
        Ok(process) => format!("uid {}", process.uid()),
        Err(_) => "somebody".to_owned(),
    });
    format!("{}@{}", user.trim(), host())
}

fn host() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host
        .as_deref()
        .map(str::trim)
        .filter(|name| !name.is_empty());
    host.unwrap_or("localhost").to_owned()
}
