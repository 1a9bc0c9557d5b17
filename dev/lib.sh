# shellcheck shell=bash
# What the scripts of dev/ share: where things are, messages, free ports, and background processes that are known
# for sure to be ours. Sourced, never run. Functions print to stderr unless their output is their result.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
KAFKA_VERSION=4.3.1
CACHE=${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/runlog
# Outside the clone, so that a second clone of the same user starts at once.
# shellcheck disable=SC2034  # used by the scripts that source this file
KAFKA_LIB=$CACHE/kafka-$KAFKA_VERSION

# Set even where it is the default, so that the scripts and cargo agree on it.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}

say() { printf '%s\n' "$*" >&2; }
step() { printf '==> %s\n' "$*" >&2; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Absolute form of a state folder given by the user (which may not exist yet), relative to the clone.
state_dir() {
  case $1 in
    /*) printf '%s\n' "${1%/}" ;;
    *) printf '%s\n' "$ROOT/${1%/}" ;;
  esac
}

# wait_until SECONDS COMMAND...: polls a fact until it holds; 1 when the time is over.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

holds_or_ended() {
  local pidfile=$1
  shift
  "$@" || is_gone "$pidfile"
}

# wait_for NAME PIDFILE LOGFILE SECONDS FACT...: until the fact holds; dies, with the end of the log, when the process
# ended before or the time is over.
wait_for() {
  local name=$1 pidfile=$2 log=$3 seconds=$4
  shift 4
  if ! wait_until "$seconds" holds_or_ended "$pidfile" "$@" || is_gone "$pidfile"; then
    show_log "$name" "$log"
    is_alive "$pidfile" || die "$name ended while it started"
    die "$name did not answer within $seconds s"
  fi
}

# Settings of the caller's shell (from `. .runlog/env`, say) must not leak into the demo or the tests.
forget_settings() {
  local name
  for name in "${!RUNLOG_@}"; do [[ $name != *__* ]] || unset "$name"; done
}

# ---------------------------------------------------------------- ports

# used_ports [STATE]: local TCP ports (decimal, one a line) of this machine's sockets, of all or of those in one of
# the kernel's states (0A = listening).
used_ports() {
  local address state
  while read -r _ address _ state _; do
    [[ $address =~ :([0-9A-F]{4})$ && ${1:-$state} == "$state" ]] && printf '%d\n' "0x${BASH_REMATCH[1]}"
  done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
  return 0
}

# free_ports N: N free ports of 127.0.0.1, one a line. Below the range that the kernel gives to outgoing connections,
# so that none of them can take the port before its server does; random, so that two stacks that start together differ.
free_ports() {
  local -A taken=()
  local port low=32768
  while read -r port; do taken[$port]=1; done < <(used_ports)
  [[ -r /proc/sys/net/ipv4/ip_local_port_range ]] && read -r low _ </proc/sys/net/ipv4/ip_local_port_range
  ((low > 12000)) || low=32768
  local first=10000 left=$1
  while ((left > 0)); do
    port=$((first + RANDOM % (low - first)))
    [[ -n ${taken[$port]:-} ]] && continue
    taken[$port]=1
    printf '%s\n' "$port"
    left=$((left - 1))
  done
}

# Listening only: sockets that a stopped server left in TIME_WAIT do not keep the next one from its port.
port_in_use() { used_ports 0A | grep -x "$1" >/dev/null; }

# ---------------------------------------------------------------- processes
# A pid file holds "PID START", START being the kernel's start time of that process. A pid that the kernel gave to
# another program since then has another start time, so it is never taken for ours, let alone killed.

# Sets START_TIME to the kernel's start time of process $1; 1 when it is gone. Builtins only: a Ctrl-C in the terminal
# would kill a child process, and with it the knowledge of what was started.
proc_start_time() {
  local stat fields
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  # Fields are counted after the last ")", because the program's name may hold spaces: state is 3, start time is 22.
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != Z ]] || return 1
  START_TIME=${fields[19]}
}

# alive_pid FILE: prints the pid when that very process still runs.
alive_pid() {
  local pid start START_TIME=''
  { read -r pid start <"$1"; } 2>/dev/null || return 1
  proc_start_time "$pid" && [[ $START_TIME == "$start" ]] || return 1
  printf '%s\n' "$pid"
}

is_alive() { alive_pid "$1" >/dev/null; }
is_gone() { ! is_alive "$1"; }

# spawn PIDFILE LOGFILE COMMAND...: runs it in the background, in a session of its own (a Ctrl-C in the terminal must
# not reach it) with the signals that the shell turns off in background jobs turned on again, without the caller's
# standard streams, and without the lock on descriptor 9. A signal to this script waits until the pid is written.
spawn() {
  local pidfile=$1 log=$2 traps interrupted=no START_TIME=''
  shift 2
  [[ ! -f $log ]] || mv -f "$log" "$log.1"
  traps=$(trap -p INT TERM)
  trap 'interrupted=yes' INT TERM
  setsid env --default-signal=INT,QUIT "$@" >"$log" 2>&1 </dev/null 9>&- &
  # Gone already: then there is no pid file, and whoever waits for it shows its log.
  if proc_start_time $!; then printf '%s %s\n' "$!" "$START_TIME" >"$pidfile"; fi
  trap - INT TERM
  eval "$traps"
  [[ $interrupted == no ]] || kill -s TERM $$
}

# stop_process NAME PIDFILE SECONDS SIGNAL...: each signal in turn, SECONDS apart, until the process is gone.
stop_process() {
  local name=$1 pidfile=$2 seconds=$3 pid signal
  shift 3
  for signal in "$@"; do
    pid=$(alive_pid "$pidfile") || break
    kill -s "$signal" "$pid" 2>/dev/null || true
    wait_until "$seconds" is_gone "$pidfile" || say "$name (pid $pid) did not stop within $seconds s of SIG$signal"
  done
  is_gone "$pidfile" || return 1
  rm -f "$pidfile"
}

# show_log NAME FILE: the end of a log, for an error message.
show_log() {
  [[ -s $2 ]] || return 0
  say "--- last lines of $1's log ($2)"
  tail -n 25 "$2" >&2
  say "---"
}
