# shellcheck shell=bash
# Kafka and PostgreSQL of one stack as ordinary processes of this machine (mode native). Sourced by dev/stack, whose
# variables it uses (DIR, KAFKA_PORT, CONTROLLER_PORT, KAFKA_PROXIED_PORT, KAFKA_PROXY_PORT, POSTGRES_PORT, DATABASE,
# FSYNC, START_SECONDS, STARTED); never run. What both servers are told here and in docker-compose.yml is compared by dev/check-compose.

# ---------------------------------------------------------------- PostgreSQL

# PostgreSQL refuses to run as root: as root its programs run as user postgres, otherwise as the caller.
# -C /: the current folder may be closed to that user. HOME: so that libpq does not look into root's.
AS_POSTGRES=()
((EUID != 0)) || AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --init-groups env -C / HOME=/tmp)

# The folder of PostgreSQL's programs: Debian's 15 first, so that machines agree; else what PATH has, from 15 on.
pg_bin() {
  local dir
  for dir in /usr/lib/postgresql/15/bin "$(dirname "$(command -v initdb || echo /nowhere/initdb)")" \
    /usr/lib/postgresql/*/bin; do
    [[ -x $dir/initdb && -x $dir/postgres && -x $dir/psql ]] || continue
    if [[ $("$dir/postgres" -V) =~ \)\ ([0-9]+) ]] && ((BASH_REMATCH[1] >= 15)); then
      printf '%s\n' "$dir"
      return
    fi
  done
  die "no PostgreSQL server (15 or newer) found; run dev/install"
}

# Prints the data folder. The clone may stand where user postgres cannot go (below /root, say): then the data lies
# under /var/tmp. The file pgdata says where.
pg_data() {
  if [[ ! -f $DIR/pgdata ]]; then
    local data=$DIR/postgres
    mkdir -p "$data"
    ((EUID != 0)) || chown postgres:postgres "$data"
    if ! "${AS_POSTGRES[@]}" test -w "$data" 2>/dev/null; then
      rmdir "$data"
      data=$(mktemp -d /var/tmp/runlog-postgres.XXXXXXXX)
      chown postgres:postgres "$data"
    fi
    printf '%s\n' "$data" >"$DIR/pgdata"
  fi
  cat "$DIR/pgdata"
}

# Makes the cluster, unless it was made before; a half-made one is made anew.
pg_init() {
  local data=$1 pwfile rc=0
  [[ ! -f $DIR/password ]] || return 0
  find "$data" -mindepth 1 -delete
  # initdb reads the password as user postgres, whatever folder the clone stands in.
  pwfile=$(mktemp)
  new_password >"$pwfile"
  ((EUID != 0)) || chown postgres "$pwfile"
  "${AS_POSTGRES[@]}" "$(pg_bin)/initdb" -D "$data" -U postgres --auth=scram-sha-256 --pwfile="$pwfile" \
    -E UTF8 --locale=C.UTF-8 --no-sync >"$DIR/initdb.log" 2>&1 || rc=$?
  if ((rc == 0)); then
    echo "include 'runlog.conf'" >>"$data/postgresql.conf"
    echo 'host all,replication all 127.0.0.1/32 scram-sha-256' >"$data/pg_hba.conf"
    (umask 077 && cat "$pwfile" >"$DIR/password")
    rm -f "$pwfile"
  else
    rm -f "$pwfile"
    show_log initdb "$DIR/initdb.log"
    die "initdb could not make a PostgreSQL cluster in $data"
  fi
}

pg_has_statistics() {
  local config
  [[ $MODE == native ]] || return 0
  config=$(pg_bin)/pg_config
  [[ -x $config && -f $("$config" --pkglibdir)/pg_stat_statements.so ]] ||
    [[ -f $(pg_bin)/../lib/pg_stat_statements.so ]]
}

# Written at every start, so that a changed setting or flag holds from the next start on.
pg_configure() {
  local preload=''
  ! pg_has_statistics || preload=pg_stat_statements
  cat >"$1/runlog.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $POSTGRES_PORT
unix_socket_directories = ''
max_connections = 200
shared_buffers = 512MB
max_wal_size = 4GB
checkpoint_completion_target = 0.9
shared_preload_libraries = '$preload'
log_line_prefix = '%m [%p] %q%u@%d %a '
timezone = 'UTC'
log_timezone = 'UTC'
fsync = $FSYNC
full_page_writes = $FSYNC
# On without fsync too: a server that is killed must come back with every commit it acknowledged.
synchronous_commit = on
CONF
  ((EUID != 0)) || chown postgres:postgres "$1/runlog.conf"
}

# True when no process works in the data folder $1 any more (a server's processes have it as their current folder).
pg_left() {
  local cwd
  for cwd in /proc/[0-9]*/cwd; do
    [[ $(readlink "$cwd" 2>/dev/null) != "$1" ]] || return 1
  done
}

# After a kill -9 PostgreSQL would refuse to start while the kernel still shows the dead server's pid, or while its
# last child ends. Both are known to be over when nobody works in the data folder.
pg_clear_stale_lock() {
  [[ -f $1/postmaster.pid ]] || return 0
  wait_until 30 pg_left "$1" || die "processes of an earlier PostgreSQL still work in $1; end them first"
  rm -f "$1/postmaster.pid"
}

pg_start() {
  local data
  ! is_alive "$DIR/postgres.pid" || return 0
  data=$(pg_data)
  pg_init "$data"
  pg_configure "$data"
  pg_clear_stale_lock "$data"
  require_free_port PostgreSQL "$POSTGRES_PORT"
  STARTED+=(postgres)
  spawn "$DIR/postgres.pid" "$DIR/postgres.log" "${AS_POSTGRES[@]}" "$(pg_bin)/postgres" -D "$data"
}

# native_psql DATABASE ARGUMENTS
native_psql() {
  local database=$1
  shift
  PGPASSWORD=$(<"$DIR/password") HOME=/tmp \
    "$(pg_bin)/psql" -X -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres -d "$database" "$@"
}

# ---------------------------------------------------------------- Kafka

KAFKA=(java -Xmx512m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.showDateTime=true
  "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS" -cp "$KAFKA_LIB/*")

kafka_configure() {
  local proxied='' advertised=''
  if [[ -n ${KAFKA_PROXY_PORT:-} ]]; then
    proxied=,PROXIED://127.0.0.1:$KAFKA_PROXIED_PORT
    advertised=,PROXIED://127.0.0.1:$KAFKA_PROXY_PORT
  fi
  cat >"$DIR/kafka.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT$proxied
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$CONTROLLER_PORT$advertised
controller.listener.names=CONTROLLER
log.dirs=$DIR/kafka
auto.create.topics.enable=false
# Everything is allowed but what an ACL of a test takes away.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
group.initial.rebalance.delay.ms=0
# One broker, so one replica of the internal topics; few partitions, because each costs time when it is first used.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A member that died is let go of soon under KIP-848, too, where the broker decides how soon.
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=1000
CONF
  [[ -z $proxied ]] || cat >>"$DIR/kafka.properties" <<PROXIED
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
# A broker that was killed may come back at once; its old session need not run out first.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# A member that died is let go of soon, under the classic protocol and under KIP-848.
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=4000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
PROXIED
}

# A cluster id as Kafka writes them: 16 random bytes in URL-safe base64. Not by Kafka's own tool: a JVM costs seconds.
kafka_cluster_id() {
  local id=-
  while [[ $id == -* ]]; do id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '='); done
  printf '%s\n' "$id"
}

# Formats the storage, unless that was done before; half-made storage is made anew.
kafka_init() {
  [[ ! -f $DIR/cluster-id ]] || return 0
  local id
  id=$(kafka_cluster_id)
  rm -rf "$DIR/kafka"
  "${KAFKA[@]}" kafka.tools.StorageTool format --standalone -t "$id" -c "$DIR/kafka.properties" \
    >"$DIR/kafka-format.log" 2>&1 || {
    show_log StorageTool "$DIR/kafka-format.log"
    die "Kafka's storage in $DIR/kafka could not be formatted"
  }
  printf '%s\n' "$id" >"$DIR/cluster-id"
}

kafka_start() {
  ! is_alive "$DIR/kafka.pid" || return 0
  [[ -d $KAFKA_LIB ]] || die "Kafka's jars are not in $KAFKA_LIB; run dev/install"
  kafka_configure
  kafka_init
  require_free_port Kafka "$KAFKA_PORT"
  require_free_port "Kafka's controller" "$CONTROLLER_PORT"
  STARTED+=(kafka)
  spawn "$DIR/kafka.pid" "$DIR/kafka.log" "${KAFKA[@]}" kafka.Kafka "$DIR/kafka.properties"
}

# The broker writes that line when its controller has let it in and its listener serves.
kafka_answers() { grep -q 'Kafka Server started' "$DIR/kafka.log" && port_in_use "$KAFKA_PORT"; }

# ---------------------------------------------------------------- both
stop_postgres() { stop_process PostgreSQL "$DIR/postgres.pid" 60 INT QUIT KILL; } # INT = its fast shutdown
stop_kafka() { stop_process Kafka "$DIR/kafka.pid" 60 TERM KILL; }

native_running() { is_alive "$DIR/$1.pid"; }

# native_start [kafka|postgres]
native_start() {
  [[ ${1:-kafka} != kafka ]] || kafka_start
  if [[ ${1:-postgres} == postgres ]]; then
    pg_start
    wait_for PostgreSQL "$DIR/postgres.pid" "$DIR/postgres.log" "$START_SECONDS" pg_answers
    pg_make_database
  fi
  [[ ${1:-kafka} != kafka ]] || wait_for Kafka "$DIR/kafka.pid" "$DIR/kafka.log" "$START_SECONDS" kafka_answers
}

native_stop() {
  local process rc=0
  for process in "$@"; do "stop_$process" || rc=1; done
  return $rc
}

native_down() { native_stop postgres kafka; }

native_status() {
  local pid rc=0
  if pid=$(alive_pid "$DIR/kafka.pid"); then echo "kafka     running (pid $pid) on 127.0.0.1:$KAFKA_PORT"; else
    echo "kafka     stopped" && rc=1; fi
  if pid=$(alive_pid "$DIR/postgres.pid"); then echo "postgres  running (pid $pid) on 127.0.0.1:$POSTGRES_PORT"; else
    echo "postgres  stopped" && rc=1; fi
  return $rc
}

# kafka_tool CLASS ARGUMENTS
kafka_tool() {
  local tool=$1
  shift
  "${KAFKA[@]}" -Dorg.slf4j.simpleLogger.defaultLogLevel=error "org.apache.kafka.tools.$tool" \
    --bootstrap-server "127.0.0.1:$KAFKA_PORT" "$@"
}

# native_topic TOPIC PARTITIONS
native_topic() { kafka_tool TopicCommand --create --if-not-exists --topic "$1" --partitions "$2"; }

# native_acl ARGUMENTS
native_acl() { kafka_tool AclCommand "$@"; }
