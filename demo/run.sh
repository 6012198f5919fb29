#!/usr/bin/env bash
# The main job with real input: lines go into a queue with q-pipe, come out with q-tail, and are the same bytes;
# q-bridge routes them into three topics by a file of routes; and q-to-file archives them by the hour in which they
# happened, and checks the archive. Where a Kafka can be started, or is named, q-bridge moves the records there and back.
#
#   make demo          installs qtools into .venv and runs this
#   demo/run.sh        the same with the q-pipe, q-tail, q-bridge, q-to-file and q-broker on PATH
#
#   DEMO_KAFKA=kafka://127.0.0.1:9092   the Kafka to use, which gets a topic qtools-demo-…; "no": none
#
# It uses an embedded broker of its own, in a temporary directory, and leaves no process and no file behind.

set -euo pipefail

fail() {
    echo "demo: $*" >&2
    exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for program in q-pipe q-tail q-bridge q-to-file q-pubsub-http q-broker python3; do
    command -v "$program" >/dev/null || fail "$program is not on PATH: run make demo"
done

parent=${TMPDIR:-/tmp}
[ ${#parent} -le 50 ] || parent=/tmp # the path of a unix socket must stay under a hundred bytes
room=$(mktemp -d "${parent%/}/qdemo.XXXXXX")
gateway=
keeper=
leave() {
    local status=$?
    trap - EXIT
    [ -z "$gateway" ] || kill "$gateway" 2>/dev/null || true
    [ -z "$keeper" ] || { kill "$keeper" && wait "$keeper"; } 2>/dev/null || true
    q-broker stop --force >"$room/stop" 2>&1 || true
    cd / && rm -rf "$room"
    exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -m 700 "$room/run" "$room/state"
export XDG_RUNTIME_DIR=$room/run XDG_STATE_HOME=$room/state
unset QTOOLS_NSQD QTOOLS_LOOKUPD QTOOLS_AUTOSTART # whatever broker you use otherwise is not touched
export LC_ALL=C                                   # grep and cmp compare bytes, not the characters of some language
cd "$room"

# run COMMAND: show it, then run it; afterwards $took says how many seconds that was
TIMEFORMAT=%R
run() {
    printf '\n$ %s\n' "$1"
    { time eval "$1" 2>&3; } 3>&2 2>took || fail "this failed: $1"
    took=$(tail -n 1 took)
}

# there_and_back NAME TOPIC SENT UNTIL: the lines of SENT into TOPIC, out again UNTIL all are there, and held against SENT
there_and_back() {
    local name=$1 topic=$2 sent=$3 until=$4 in out
    run "q-pipe $topic $sent"
    in=$took
    run "q-tail $topic/demo $until > $topic.out"
    out=$took
    # NSQ has no empty messages: q-pipe leaves empty lines out, so they are left out here.
    run "grep -av '^$' $sent | cmp - $topic.out && echo the same"
    q-tail "$topic/demo" --until-empty >left 2>said || fail "$name: cannot see what is left: $(tail -n 1 said)"
    [ ! -s left ] || fail "$name: more came out than went in"
    python3 "$here/row.py" "$name" "$sent" "$in" "$out" >>rows
}

echo "1. Two letters"
run "printf 'a\nb\n' | q-pipe letters && q-tail letters/me -n 2 | tee letters.out"
printf 'a\nb\n' | cmp - letters.out || fail "two letters went in, something else came out"

printf '\n2. Twelve thousand records of an analytics API\n'
cp "$here/events.jsonl" .
there_and_back "analytics events" events events.jsonl --until-empty

printf '\n3. The same records, routed into three topics\n'
cp "$here/routes.toml" .
run "q-bridge --check routes.toml"
run "q-pipe -q records events.jsonl && q-bridge records --routes routes.toml --until-empty"
for topic in purchases.big actions rest; do
    run "q-tail $topic/demo --until-empty > $topic.out"
done
run "python3 $here/big_purchases.py < events.jsonl | cmp - purchases.big.out && echo the same"
run "grep -aE '^.\"type\":\"(purchase|track)\"' events.jsonl | cmp - actions.out && echo the same"
run "grep -avE '^.\"type\":\"(purchase|track)\"' events.jsonl | cmp - rest.out && echo the same"

printf '\n4. Every line of the source of Python itself\n'
python3 "$here/python_source.py" >source.txt
there_and_back "Python's own source" source source.txt "-n $(grep -avc '^$' source.txt)"

printf '\n5. The records again, into files by the hour in which they happened\n'
run "q-pipe history events.jsonl"
run "q-to-file history --output archive --gzip --partition-by .timestamp --until-empty"
run "q-to-file verify archive"
run "zcat archive/dt=*/hour=*/history.*.gz | sort | cmp - <(sort events.jsonl) && echo the same"

printf '\n6. Over HTTP\n'
if command -v curl >/dev/null; then
    : >gateway # the program in the background may make it only after the first look at it
    q-pubsub-http --http-address 127.0.0.1:0 >>gateway 2>&1 &
    gateway=$!
    for _ in $(seq 100); do
        url=$(sed -n 's/.*serving //p' gateway)
        [ -z "$url" ] || break
        kill -0 "$gateway" 2>/dev/null || fail "the gateway did not start: $(tail -n 1 gateway)"
        sleep 0.1
    done
    [ -n "$url" ] || fail "the gateway did not start within 10 s"
    echo "q-pubsub-http serves $url"
    run "curl -sS --data-binary @events.jsonl '$url/mpub?topic=http'"
    run "curl -sS '$url/sub?topic=http&channel=demo&until_empty=true&format=raw' > http.out"
    run "sort events.jsonl | cmp - <(sort http.out) && echo the same"
    run "curl -sS --data-binary 'one more' '$url/pub?topic=http' && echo && curl -sS '$url/message?topic=http&channel=demo&wait=5'"
    kill "$gateway" && wait "$gateway" || fail "the gateway did not end in order: $(tail -n 1 gateway)"
    gateway=
else
    echo "skipped: there is no curl on PATH"
fi

printf '\n7. To Kafka, in the order of each user, and back\n'
# start_kafka: $kafka is the URL of a Kafka, or empty, and $why says why there is none
start_kafka() {
    kafka=${DEMO_KAFKA:-}
    if [ "$kafka" = no ]; then
        kafka= why="DEMO_KAFKA is \"no\""
        return
    fi
    [ -z "$kafka" ] || return 0
    why="qtools is installed without its extra kafka"
    python3 -c 'import confluent_kafka' 2>/dev/null || return 0
    why="the files that start one are not here"
    [ -f "$here/../tests/harness/kafka.py" ] || return 0
    why=$(PYTHONPATH=$here/../tests python3 -c 'from harness.kafka import why_not; print(why_not())' 2>&1 | tail -n 1)
    [ -z "$why" ] || return 0
    why="Apache Kafka did not start within 60 s"
    PYTHONPATH=$here/../tests python3 -m harness.kafka $$ "$room/kafka" >/dev/null 2>&1 &
    keeper=$!
    for _ in $(seq 600); do
        [ ! -f "$room/kafka/ready.json" ] || break
        sleep 0.1
    done
    [ -f "$room/kafka/ready.json" ] || return 0
    kafka=kafka://$(python3 -c 'import json; print(json.load(open("kafka/ready.json"))["address"])')
}
start_kafka
if [ -n "$kafka" ]; then
    echo "Kafka is at $kafka"
    users=$kafka/qtools-demo-$$
    run "q-pipe users events.jsonl"
    run "q-bridge users/kafka --to $users --key .anonymousId --create-topics partitions=3 --until-empty"
    run "q-bridge $users/back --to users.back --to-broker local --until-empty"
    run "q-tail users.back/demo --until-empty > users.out"
    run "sort events.jsonl | cmp - <(sort users.out) && echo the same"
    one=$(head -n 1 events.jsonl | sed 's/.*"anonymousId":"\([^"]*\)".*/\1/')
    run "cmp <(grep -a $one events.jsonl) <(grep -a $one users.out) && echo the same"
else
    echo "skipped: $why"
fi

printf '\n'
run "q-broker stop --force"
[ -z "$(find "$XDG_RUNTIME_DIR" -type s)" ] || fail "the broker left a socket behind"

printf '\nThe same bytes came out, in the same order. The rates are of whole commands, their start included.\n\n'
python3 "$here/row.py"
cat rows
