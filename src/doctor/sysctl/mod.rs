//! Kernel settings (sysctl): the running values, beside the values that the next apply would set.
//!
//! Two programs apply the files: systemd-sysctl at boot, and `sysctl --system` of procps by hand and
//! in scripts. They read different files in different orders. `tree` finds the files, `line`
//! reads their lines, `plan` computes the writes of each program, `value` compares as the kernel
//! would, and [`check`] reports.

pub mod check;
mod faults;
mod remedy;
pub mod plan;
mod tree;
mod line;
mod value;

pub use line::Tool;

use super::files::HostFiles;

/// Returns the commands that set settings now. The keys have slashes, as below /proc/sys.
pub(super) fn set_now(settings: &[(&str, &str)]) -> Vec<String> {
    settings.iter().map(|(path, value)| remedy::set_now(path, value)).collect()
}

/// Returns the commands that set them at every boot: in a file that both programs read after all others.
pub(super) fn keep(files: &HostFiles, settings: &[(&str, &str)]) -> Vec<String> {
    let writes = plan::plan(files, Tool::Procps).writes;
    let mut commands: Vec<String> =
        settings.iter().flat_map(|(path, value)| remedy::keep(files, &writes, path, value)).collect();
    let mut known = std::collections::HashSet::new();
    commands.retain(|command| known.insert(command.clone()));
    commands
}

/// Returns the commands of both.
pub(super) fn set_and_keep(files: &HostFiles, path: &str, value: &str) -> Vec<String> {
    let setting = [(path, value)];
    [set_now(&setting), keep(files, &setting)].concat()
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn a_setting_is_kept_beyond_later_files() {
        let (_folder, none) = tree(&[]);
        assert_eq!(
            set_and_keep(&none, "fs/file-max", "10"),
            [
                "sysctl -w fs.file-max=10",
                "mkdir -p /etc/sysctl.d",
                "printf '%s\\n' 'fs.file-max = 10' >> /etc/sysctl.d/zz-pintle.conf",
            ]
        );
        let (_folder, later) = tree(&[
            ("/etc/sysctl.d/zzz.conf", "net.ipv4.ip_local_port_range = 32768 60999\n"),
            ("/etc/sysctl.conf", "# old\nnet.ipv4.ip_local_port_range = 32768 60999\n"),
        ]);
        assert_eq!(
            set_and_keep(&later, "net/ipv4/ip_local_port_range", "10240 65535"),
            [
                "sysctl -w 'net.ipv4.ip_local_port_range=10240 65535'",
                "printf '%s\\n' 'net.ipv4.ip_local_port_range = 10240 65535' >> /etc/sysctl.d/zzzz.conf",
                "sed -i '2s/^/# /' /etc/sysctl.conf",
            ]
        );
        let (_folder, own) = tree(&[("/etc/sysctl.d/zz-pintle.conf", "a = 1\n")]);
        let several = keep(&own, &[("net/a/x1", "1"), ("net/a/x2", "2")]);
        assert_eq!(several.len(), 2, "{several:?}");
    }
}
