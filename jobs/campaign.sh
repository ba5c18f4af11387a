#!/usr/bin/env bash
# A campaign on a machine that is lent for a time: studies one after the other, each from where it stopped.
#
#     jobs/campaign.sh SECONDS OUT STUDY.yaml...
#
# What the node can measure goes to OUT/doctor.txt first. After each study, and after the time is up, the study's
# folder without its page and figures is OUT/NAME.tgz. The same command again goes on with what is left; its exit
# status is 0 when every study has a verdict on every point, 130 when time was up before.
set -uo pipefail

seconds=$1 out=$2
shift 2
python=${PYTHON:-python3}
mkdir -p "$out"

kept() {
    local folder=mlruns/studies/$1
    [ -d "$folder" ] || return 0
    tar --exclude=report.html --exclude=figures --exclude=progress.json --exclude=lock \
        -czf "$out/$1.tgz" -C mlruns/studies "$1"
}

left=$seconds began=$SECONDS status=0
[ -s "$out/doctor.txt" ] || timeout -k 10 60 "$python" -m sweeper doctor >"$out/doctor.txt" 2>&1 || true
for study in "$@"; do
    left=$((seconds - (SECONDS - began)))
    # Ctrl-C is an orderly end: what was measured is kept, and a study needs some seconds for it.
    if [ "$left" -le 20 ]; then
        status=130
        break
    fi
    timeout -s INT -k 30 $((left - 15)) "$python" -m sweeper "$study" || status=$?
    kept "$(sed -n 's/^name: *//p' "$study")"
done
[ "$status" -eq 124 ] && status=130
exit "$status"
