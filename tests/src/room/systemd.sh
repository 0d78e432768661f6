# Process 1 of a process namespace and a mount namespace of its own (`unshare`): the ground that a `systemd --user` needs
# where the machine has no systemd, or one that shall not notice. Root runs it; whoever kills `unshare` kills all in it.
#
#   GROUP UID TARGET     the control group, the user (who needs no account), the unit to start with
set -eu
group=/sys/fs/cgroup/$1 uid=$2 target=$3

# systemctl asks this folder whether systemd runs. No journal, no system bus: nothing of the machine's own is in sight.
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/system

# The session bus wants a name for its user. Nobody outside sees it.
{ cat /etc/passwd; echo "mcp-authd-test:x:$uid:$uid::$HOME:/bin/sh"; } >/run/systemd/passwd
mount --bind /run/systemd/passwd /etc/passwd

# The unified hierarchy alone, with a group that the user may divide.
umount -l /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "$group/manager"
echo $$ >"$group/manager/cgroup.procs"
chown -R "$uid:$uid" "$group"

setpriv --reuid="$uid" --regid="$uid" --clear-groups \
  /lib/systemd/systemd --user --log-target=console --log-color=no --unit="$target" &
wait
