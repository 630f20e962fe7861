#!/usr/bin/env bash
# The whole method and its rivals on a rendered world, small enough for a laptop.
#
#   bash runs/toy.sh DIR          everything, to DIR/report.html and DIR/report.json
#   bash runs/toy.sh DIR tiny     the same commands with next to no images and steps: shows that they work, and no more
#
# Four specialists learn from 1,000 labelled images each, of four worlds that look different and name different things.
# They label 2,000 images of a fifth; one student learns from that. It and its rivals, all with the same network and as
# many steps, are then fine-tuned on six worlds of new shapes: classes, boxes, two kinds of regions, depth and normals
# (which no teacher knows). What to expect, and how long it took: docs/evidence/toy.md.
#
# A run that was stopped goes on when the same command is given again.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

DIR=${1:?"usage: bash runs/toy.sh DIR [tiny]"}
SCALE=${2:-small}
case $SCALE in
  small)
    ARMS="student oracle supervised self-boxes specialist-boxes specialist-classes specialist-regions specialist-depth simclr vicreg scratch"
    LABELS=1000 POOL=2000 STEPS=500 SELF_STEPS=500 BATCH=16 DOWN="train:400,val:100,test:200" TUNE=80 SEEDS="0" LRS="0.001 0.004" RESAMPLES=100 SCORE=0.5 LR=0.002
    ;;
  tiny)
    ARMS="student oracle specialist-boxes simclr scratch"
    LABELS=12 POOL=12 STEPS=2 SELF_STEPS=2 BATCH=4 DOWN="train:8,val:8,test:8" TUNE=1 SEEDS="0" LRS="0.002" RESAMPLES=10
    SCORE=0.05 LR=0.00001 # a teacher that has learned nothing finds all sorts of things, and one of two real steps none
    ;;
  *) echo "$0: unknown scale '$SCALE'; there are small and tiny" >&2; exit 2 ;;
esac

# one thread per process and as many processes as cores: quicker than one process with many threads for a small network
export OMP_NUM_THREADS=1
mkdir -p "$DIR"
cd "$DIR"

wanted() { [[ " $ARMS " == *" $1 "* ]]; }
P="polyteach"
NET="--backbone test_resnet --channels 32 --size 64 --device cpu --workers 0"
LEARN="--steps $STEPS --batch-size $BATCH --optimizer adamw --lr $LR --ema 0.99 --scale 0.7 1.5 --seed 0 $NET"
TEACHERS="classes boxes regions depth"
WORLDS="classes boxes regions parts depth normals"

steps() {
  # 1. images: what teachers learn from, the pool (without labels, and with exact ones for the oracle), six downstream sets
  for t in $TEACHERS; do
    echo "ingest-teach-$t $P ingest 'shapes:teach-$t?count=train:$LABELS' stores/teach-$t --workers 1"
  done
  echo "ingest-pool $P ingest 'shapes:pool?count=train:$POOL&tasks=none' stores/pool --workers 1"
  echo "ingest-oracle $P ingest 'shapes:pool?count=train:$POOL&tasks=all' stores/oracle --workers 1"
  for w in $WORLDS; do
    echo "ingest-down-$w $P ingest 'shapes:down-$w?count=$DOWN' stores/down-$w --workers 1"
  done
  echo wait

  # 2. teach: four specialists; beside them the rivals that need no teacher
  for t in $TEACHERS; do
    echo "train-specialist-$t $P train stores/teach-$t --labels people --out runs/specialist-$t $LEARN"
  done
  wanted supervised && echo "train-supervised $P train stores/teach-classes stores/teach-boxes stores/teach-regions stores/teach-depth --labels people --out runs/supervised $LEARN"
  echo "train-oracle $P train stores/oracle --labels people --out runs/oracle $LEARN"
  for m in simclr vicreg; do
    wanted $m && echo "train-$m $P pretrain stores/pool --method $m --out runs/$m --steps $SELF_STEPS --batch-size $BATCH --optimizer adamw --lr 0.002 --seed 0 --backbone test_resnet --size 64 --device cpu --workers 0"
  done
  echo wait

  # 3. label: all teachers over the pool
  NAMES=$(for t in $TEACHERS; do echo "$t=own:runs/specialist-$t"; done)
  echo "label $P label stores/pool --teacher $(echo $NAMES) --device cpu"
  echo wait

  # 4. train: the student of all teachers; and of one, which is single-task self-training
  echo "train-student $P train stores/pool --out runs/student --score $SCORE $LEARN"
  wanted self-boxes && echo "train-self-boxes $P train stores/pool --labels boxes --out runs/self-boxes --score $SCORE $LEARN"
  echo wait

  # 5. transfer: everything that was made, and a network that knows nothing, to six tasks
  for w in boxes regions parts depth normals classes; do
    for r in $ARMS; do
      INIT=$([ "$r" = scratch ] || echo "--init runs/$r")
      echo "transfer-$r-$w $P transfer stores/down-$w --downstream $w --name $r $INIT --out transfer/$r/$w --validation-split val --lrs $LRS --steps $TUNE --seeds $SEEDS --batch-size $BATCH --optimizer adamw --scale 0.7 1.5 --resamples $RESAMPLES $NET"
    done
  done
}
# as many jobs at once as there are cores. What one says goes to logs/NAME.log; done/NAME.json says that it is finished.
steps | python "$HERE/jobs.py" . ${JOBS:+--jobs "$JOBS"}

# 6. report
$P report transfer --out report --ours student --title "Many teachers, one student: the toy run ($SCALE)"
cp report/report.html report/report.md report/report.json .
echo "$PWD/report.html" >&2
