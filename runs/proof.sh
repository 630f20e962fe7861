#!/usr/bin/env bash
# The proof: many-teacher self-training against its rivals, its controls and its own variants. docs/evidence/proof.md says what is
# claimed, and was written before any downstream score was looked at.
#
#   bash runs/proof.sh DIR                    everything; hours (docs/evidence/proof.md says how many)
#   bash runs/proof.sh --quick DIR            the whole design small, in under 30 minutes on two cores: shows that it runs
#   bash runs/proof.sh --world rooms --extra '&furniture=FOLDER' DIR   in furnished rooms (docs/guide/rooms.md), not among solids
#   bash runs/proof.sh --only core DIR        only the arms that decide the claims
#   bash runs/proof.sh DIR --arms student simclr   only these, of all seeds, and what they need
#   bash runs/proof.sh DIR --seeds 1 2            only what was pretrained with these seeds, and what it needs
#   bash runs/proof.sh DIR --seeds 1 --earlier docs/evidence/proof.json   and put it beside what another session found
#   bash runs/proof.sh DIR --arms student-hard --ablate-seed 1   ablations with the teachers of that seed, not the first
#   bash runs/proof.sh --list DIR             what there is to do, and what is done
#
# What is done stays done: stopped, it goes on when the same command is given again. DIR/proof.json and DIR/report are made
# at the end of every run, of what there is by then.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# one thread per process and as many processes as cores: quicker than one process with many threads for a small network
export OMP_NUM_THREADS=1
exec python "$HERE/proof.py" "$@"
