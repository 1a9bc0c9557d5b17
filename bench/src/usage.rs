//! What processes use, as the kernel counts it in /proc. Called by `stack`, `program` and `meter`.

use std::fs;

use anyhow::Context;

/// Of `/proc/PID/stat`: what is read here.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    /// utime + stime, in clock ticks.
    own: u64,
    /// cutime + cstime: of the children that ended and were waited for.
    children: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The fields stand behind the program's name, which may hold anything; the first is the state.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |n: usize| fields.get(n)?.parse::<u64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(11)? + ticks(12)?,
            children: ticks(13)? + ticks(14)?,
        })
    }

    fn of(pid: u32) -> anyhow::Result<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("cannot read what process {pid} uses"))?;
        Self::parse(&line).with_context(|| format!("/proc/{pid}/stat has another form"))
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// CPU seconds of a process since its start, user and system.
///
/// # Errors
/// Where it is gone.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    Ok(seconds(Stat::of(pid)?.own))
}

/// CPU seconds of a process and its children, those that ended included.
///
/// # Errors
/// Where it is gone.
pub(crate) fn cpu_of_family(pid: u32) -> anyhow::Result<f64> {
    loop {
        let before = Stat::of(pid)?;
        let living: u64 = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|other| Stat::of(other).ok())
            .filter(|stat| stat.parent == pid)
            .map(|stat| stat.own + stat.children)
            .sum();
        let after = Stat::of(pid)?;
        // A child that ended meanwhile would be counted twice, or not at all.
        if after.children == before.children {
            return Ok(seconds(after.own + after.children + living));
        }
    }
}

/// The most memory that a process has had resident, in bytes.
///
/// # Errors
/// Where it is gone.
pub(crate) fn peak_memory_of(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("cannot read what process {pid} uses"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("/proc/{pid}/status has no VmHWM"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_stat_line_is_read_behind_the_last_bracket() {
        let line = "17 (post (gres) 1) S 42 17 17 0 -1 4194560 1 2 3 4 100 20 7 8 20 0 1 0 99";
        let expected = Stat {
            parent: 42,
            own: 120,
            children: 15,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("17 (x) S"), None);
    }
}
