//! PURE: the systemd unit of a process, from the text of `/proc/PID/cgroup` (cgroups(7)).

/// The unit: of the user's service manager where the process is one of its, else of the system's. `None` where there is
/// none.
pub(super) fn unit(cgroup: &str) -> Option<&str> {
    let of = |start: &str| cgroup.lines().find_map(|line| line.split_once(start).filter(|(number, _)| is_number(number)));
    // The unified hierarchy, else the one that systemd keeps for itself.
    let (_, path) = of("::").or_else(|| of(":name=systemd:"))?;
    let mut parts = path.split('/').filter(|part| !part.is_empty() && !part.ends_with(".slice"));
    let unit = parts.next()?;
    // Below a user's service manager there are its own units.
    let unit = if unit.starts_with("user@") { parts.next()? } else { unit };
    // What systemd would mistake for something of the kernel's it writes with an underscore in front.
    let unit = unit.strip_prefix('_').unwrap_or(unit);
    (unit.ends_with(".service") || unit.ends_with(".scope")).then_some(unit)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_that_of_the_users_manager_where_it_is_one_of_its() {
        for (path, expected) in [
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-editor-71.scope", Some("app-gnome-editor-71.scope")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/mcp.service/inner/x.service", Some("mcp.service")),
            ("0::/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("0::/system.slice/cron.service", Some("cron.service")),
            ("12:pids:/x\n1:name=systemd:/system.slice/cron.service\n0::/system.slice/cron.service", Some("cron.service")),
            ("12:pids:/x\n1:name=systemd:/system.slice/cron.service", Some("cron.service")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice", None),
            ("0::/user.slice/user-1000.slice/user@1000.service/init.scope", Some("init.scope")),
            ("0::/docker/0123456789abcdef", None),
            ("0::/", None),
            ("0::/../../x.service/y", None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(unit(path), expected, "{path}");
        }
    }
}
