//! The figures that every Prometheus client has about its process, from Linux's `/proc`; elsewhere there are none.

use super::exposition::Exposition;

/// Ticks a second in `/proc/*/stat`: `USER_HZ`, 100 on every architecture that Linux exports it for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc` says about a process.
#[derive(Debug, Default, PartialEq)]
struct Process {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

pub(super) fn write(exposition: &mut Exposition) {
    // They differ from run to run, and with them what a run of the fuzzers covers.
    if cfg!(fuzzing) {
        return;
    }
    let read = |name: &str| std::fs::read_to_string(name).unwrap_or_default();
    let mut process = Process::of(
        &read("/proc/self/stat"),
        &read("/proc/self/status"),
        &read("/proc/self/limits"),
        &read("/proc/stat"),
    );
    process.open_fds =
        std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    process.expose(exposition);
}

impl Process {
    fn of(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The command's name may hold anything, spaces and brackets included: fields are counted after its end.
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let field = |number: usize| -> Option<f64> {
            fields.split_ascii_whitespace().nth(number - 3)?.parse().ok()
        };
        let (user, system_time, started) = (field(14), field(15), field(22));
        let boot = system.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
        let kib = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Self {
            cpu_seconds: user.zip(system_time).map(|(u, s)| (u + s) / TICKS_PER_SECOND),
            start_seconds: boot.zip(started).map(|(b, s)| b + s / TICKS_PER_SECOND),
            resident_bytes: kib("VmRSS"),
            virtual_bytes: kib("VmSize"),
            open_fds: None,
            max_fds: max_fds.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()),
        }
    }

    fn expose(&self, exposition: &mut Exposition) {
        if let Some(seconds) = self.cpu_seconds {
            let help = "Total user and system CPU time spent in seconds.";
            exposition.counter("process_cpu_seconds_total", help).sample(&[], seconds);
        }
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                self.resident_bytes,
            ),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes.", self.virtual_bytes),
            ("process_open_fds", "Number of open file descriptors.", self.open_fds),
            ("process_max_fds", "Maximum number of open file descriptors.", self.max_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                exposition.gauge(name, help).sample(&[], value);
            }
        }
        if let Some(seconds) = self.start_seconds {
            let help = "Start time of the process since unix epoch in seconds.";
            exposition.gauge("process_start_time_seconds", help).sample(&[], seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_its_manual() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 1000 1 1 18446744073709551615";
        let status = "Name:\tstrait\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let limits = "Limit     Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        let process = Process::of(stat, status, limits, "cpu 1\nbtime 1700000000\n");
        assert_eq!(
            process,
            Process {
                cpu_seconds: Some(3.0),
                start_seconds: Some(1_700_000_010.0),
                resident_bytes: Some(1 << 20),
                virtual_bytes: Some(2 << 20),
                open_fds: None,
                max_fds: Some(1024),
            }
        );
    }

    #[test]
    fn without_proc_there_is_nothing() {
        let mut exposition = Exposition::default();
        Process::of("", "", "", "").expose(&mut exposition);
        assert_eq!(exposition.finish(), "");
    }
}
