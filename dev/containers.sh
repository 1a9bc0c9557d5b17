# shellcheck shell=bash
# Kafka and PostgreSQL of one stack in containers: the services kafka and postgres of docker-compose.yml, in a compose
# project of the stack's own, with its own ports, password and volumes. Sourced by dev/stack, whose variables it uses
# (DIR, PROJECT, KAFKA_PORT, POSTGRES_PORT, DATABASE, FSYNC, KEEP, START_SECONDS, STARTED); never run.

COMPOSE=(docker compose --ansi never -f "$ROOT/docker-compose.yml")
SERVICES=(kafka postgres)
WITHOUT="RUNLOG_STACK=native does without containers"

# Why containers cannot be used here; prints nothing when they can. Fetches the images, unless the engine has them.
docker_obstacle() {
  local images
  if ! command -v docker >/dev/null; then
    echo "docker is not installed"
  elif ! timeout 60 docker info >/dev/null 2>&1; then
    echo "no engine answers (see: docker info)"
  elif ! docker compose version >/dev/null 2>&1; then
    echo "docker compose is not installed"
  else
    mapfile -t images < <("${COMPOSE[@]}" config --images "${SERVICES[@]}")
    docker image inspect "${images[@]}" >/dev/null 2>&1 && return
    step "fetching the images ${images[*]}"
    "${COMPOSE[@]}" pull "${SERVICES[@]}" >&2 || {
      say "without these images there are no containers"
      echo "the images cannot be fetched"
    }
  fi
}

# Name of the compose project of DIR; two stacks of one engine differ in it.
docker_project() { printf 'runlog-%s\n' "$(printf '%s' "$DIR" | sha256sum | cut -c 1-12)"; }

# Not with the lock on descriptor 9: an engine without a daemon leaves processes behind.
compose() {
  RUNLOG_KAFKA_PORT=$KAFKA_PORT RUNLOG_POSTGRES_PORT=$POSTGRES_PORT RUNLOG_POSTGRES_FSYNC=$FSYNC \
    POSTGRES_PASSWORD=$(cat "$DIR/password" 2>/dev/null || true) "${COMPOSE[@]}" -p "$PROJECT" "$@" 9>&-
}

docker_running() { compose ps --status running --services | grep -x "$1" >/dev/null; }

# replies PORT REQUEST BYTES: whether the server behind 127.0.0.1:PORT sends at least BYTES bytes for REQUEST (\x
# escapes). A connection alone proves nothing: the engine accepts it before the server in the container listens.
replies() {
  local count
  count=$(exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$1" && printf '%b' "$2" >&3 && timeout 2 head -c "$3" <&3 | wc -c) ||
    return 1
  ((count == $3))
}

# PostgreSQL's SSLRequest is answered by one letter; then a query.
docker_postgres_answers() {
  replies "$POSTGRES_PORT" '\x00\x00\x00\x08\x04\xd2\x16\x2f' 1 && pg_answers
}

# Kafka's ApiVersions request (version 0, no client id), which a broker answers once its listener serves.
docker_kafka_answers() {
  replies "$KAFKA_PORT" '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff' 8
}

docker_settled() { "docker_$1_answers" || ! docker_running "$1"; }

# docker_wait_for SERVICE PORT: until it answers; dies, with the end of its log, when its container ended before or the
# time is over.
docker_wait_for() {
  ! wait_until "$START_SECONDS" docker_settled "$1" || ! docker_running "$1" || return 0
  compose logs --tail 25 "$1" >&2 || true
  docker_running "$1" || die "the container of $1 ended while it started (see above); $WITHOUT"
  die "$1 runs in its container but did not answer on 127.0.0.1:$2 within $START_SECONDS s.
  Where the engine is another machine's, or this shell is itself in a container, use RUNLOG_STACK=native"
}

docker_start() {
  [[ -f $DIR/password ]] || (umask 077 && new_password >"$DIR/password")
  docker_running kafka || { require_free_port Kafka "$KAFKA_PORT" && STARTED+=(kafka); }
  docker_running postgres || { require_free_port PostgreSQL "$POSTGRES_PORT" && STARTED+=(postgres); }
  # What runs stays as it is, also when the file or a flag changed since: as with processes.
  compose up -d --no-recreate "${SERVICES[@]}" >&2 ||
    die "docker compose could not start the stack in $DIR (see above). Is its engine up? For a new stack $WITHOUT"
  docker_wait_for postgres "$POSTGRES_PORT"
  pg_make_database
  docker_wait_for kafka "$KAFKA_PORT"
}

docker_stop() { compose stop "$@" >&2; }

# Containers and network; the volumes too, unless KEEP. Runs without a look at what is up: it may be half there.
docker_down() {
  local volumes=(--volumes)
  [[ $KEEP == no ]] || volumes=()
  compose down "${volumes[@]}" >&2 || {
    say "the containers of project $PROJECT could not be removed: start the engine that runs them, then repeat"
    return 1
  }
}

docker_status() {
  local running service port rc=0
  running=$(compose ps --status running --services) || die "the engine that runs the stack in $DIR does not answer"
  for service in "${SERVICES[@]}"; do
    port=$KAFKA_PORT
    [[ $service == kafka ]] || port=$POSTGRES_PORT
    if grep -x "$service" <<<"$running" >/dev/null; then
      printf '%-9s running (container of project %s) on 127.0.0.1:%s\n' "$service" "$PROJECT" "$port"
    else
      printf '%-9s stopped\n' "$service" && rc=1
    fi
  done
  return $rc
}

# docker_psql DATABASE ARGUMENTS: this machine's psql where there is one, as it can read this machine's files.
docker_psql() {
  local database=$1 tty=()
  shift
  if command -v psql >/dev/null; then
    PGPASSWORD=$(<"$DIR/password") psql -X -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres -d "$database" "$@"
  else
    [[ -t 0 && -t 1 ]] || tty=(-T)
    compose exec "${tty[@]}" postgres psql -X -h 127.0.0.1 -U postgres -d "$database" "$@"
  fi
}

# docker_acl ARGUMENTS
docker_acl() { compose exec -T kafka /opt/kafka/bin/kafka-acls.sh --bootstrap-server kafka:19092 "$@"; }

# docker_topic TOPIC PARTITIONS. By the listener for containers: the other one names a port of the host.
docker_topic() {
  compose exec -T kafka /opt/kafka/bin/kafka-topics.sh --create --if-not-exists --bootstrap-server kafka:19092 \
    --topic "$1" --partitions "$2"
}
