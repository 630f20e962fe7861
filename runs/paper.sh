#!/usr/bin/env bash
# The paper's experiment (Ghiasi et al., ICCV 2021) on the real datasets, at full scale.
#
#   DATA=/datasets WORK=/work bash runs/paper.sh
#
# Nobody has run this file from end to end: its commands are the tested ones, its figures are estimates, made from
# operations per image at 40 % of an A100's bf16 peak (125 TFLOP/s), for one GPU, and marked "estimated". What the paper
# leaves open (optimiser, schedule, image sizes) follows METHOD's sibling configurations and says so below.
#
# DATA must hold, as published:
#   imagenet/        train/nXXXXXXXX/*.JPEG, val/...                         1.3 M images, 150 GB
#   objects365/      v2: train/patch*, val/patch*, zhiyuan_objv2_*.json      1.7 M images, 720 GB
#   coco/            train2017, val2017, annotations/*.json                  118 k images, 20 GB
#   dpt-large/       a transformers folder of MiDaS's successor, the depth teacher
#   cifar-100-python/  VOCdevkit/  nyu/  ade20k/  diode/                                downstream
#
# Stores keep the images where they lie; label sets take about 60 GB for the union (estimated: 3.1 M images with a float16
# class vector, boxes, and two maps).
set -euo pipefail
DATA=${DATA:?"DATA: the folder with the datasets"}
WORK=${WORK:?"WORK: a folder for stores, runs and scores"}
mkdir -p "$WORK/done"
cd "$WORK"

# step NAME COMMAND...: unless it is finished. An unfinished command goes on where it was
step() {
  local name=$1
  shift
  [ -e "done/$name" ] || { "$@" && touch "done/$name"; }
}

# all of them: the same network, bf16. Depth's teacher is used as it is
NET="--backbone resnet152 --channels 256 --precision bf16 --channels-last --workers 16"
SELF="--backbone resnet152 --size 224 --batch-size 1024 --precision bf16 --channels-last --workers 16"
SPLITS="--split train train2017"
FROM_SCRATCH="$NET --optimizer sgd --scale 0.5 2.0 --weight-decay 4e-5"

# 0. stores, about 3 hours: every image is decoded once (estimated, 16 cores).
step ingest-imagenet polyteach ingest "imagenet:$DATA/imagenet" stores/imagenet --skip-bad
step ingest-objects365 polyteach ingest "objects365:$DATA/objects365" stores/objects365 --skip-bad
step ingest-coco polyteach ingest "coco:$DATA/coco" stores/coco --skip-bad

# 1. teach: three specialists from scratch. lr and batch are recorded, and weigh the student's losses
#    classes: 90 epochs at 224 px, 115 M views, about 18 GPU-hours (estimated)
step train-specialist-classes polyteach train stores/imagenet --tasks classification --labels people --split train \
  --out runs/specialist-classes --size 224 --epochs 90 --batch-size 256 --lr 0.1 $FROM_SCRATCH --augment 5
#    boxes: 30 epochs at 640 px, 52 M views, about 90 GPU-hours (estimated)
step train-specialist-boxes polyteach train stores/objects365 --tasks detection --labels people --split train \
  --out runs/specialist-boxes --size 640 --epochs 30 --batch-size 32 --accumulate 8 --lr 0.32 $FROM_SCRATCH
#    regions: 150 epochs at 640 px, 18 M views, about 30 GPU-hours (estimated)
step train-specialist-regions polyteach train stores/coco --tasks segmentation --labels people --split train2017 \
  --out runs/specialist-regions --size 640 --epochs 150 --batch-size 32 --accumulate 8 --lr 0.08 $FROM_SCRATCH

# 2. label the union with all four; the same command goes on after a stop. About 25 GPU-hours (estimated)
#    of the training images alone: COCO's and Objects365's validation images are nobody's to learn from
for pair in imagenet/train objects365/train coco/train2017; do
  store=${pair%/*}
  step label-$store polyteach label stores/$store --split ${pair#*/} --precision bf16 --batch-size 32 --threads 16 \
    --teacher classes=own:runs/specialist-classes boxes=own:runs/specialist-boxes regions=own:runs/specialist-regions "depth=transformers:$DATA/dpt-large"
done

# 3. train the student on the union, people's labels first, uniform over the images: 30 epochs, 93 M views, about 180
#    GPU-hours (estimated). Depth's weight has no rule (its teacher was not trained here): sweep it
step train-student polyteach train stores/imagenet stores/objects365 stores/coco $SPLITS --out runs/student \
  --size 640 --epochs 30 --batch-size 32 --accumulate 8 --lr 0.32 $FROM_SCRATCH
#    COCO's own boxes have 80 classes, Objects365's 365: a fifth head, which the paper does not have.
#    rivals with as many views: supervised multi-task, single-task self-training, self-supervised (two views an image)
step train-supervised polyteach train stores/imagenet stores/objects365 stores/coco $SPLITS --labels people \
  --out runs/supervised --size 640 --epochs 30 --batch-size 32 --accumulate 8 --lr 0.32 $FROM_SCRATCH
step train-self-boxes polyteach train stores/imagenet stores/objects365 stores/coco $SPLITS --labels boxes \
  --out runs/self-boxes --size 640 --epochs 30 --batch-size 32 --accumulate 8 --lr 0.32 $FROM_SCRATCH
step train-simclr polyteach pretrain stores/imagenet stores/objects365 stores/coco $SPLITS \
  --method simclr --epochs 15 --out runs/simclr $SELF
step train-vicreg polyteach pretrain stores/imagenet stores/objects365 stores/coco $SPLITS \
  --method vicreg --epochs 15 --out runs/vicreg $SELF

# 4. transfer: six sets, end to end, every representation with the same sweep. About 12 GPU-hours each (estimated)
step ingest-cifar polyteach ingest "cifar:$DATA/cifar-100-python" stores/cifar
step ingest-voc polyteach ingest "voc:$DATA/VOCdevkit" stores/voc
step ingest-nyu polyteach ingest "nyu:$DATA/nyu" stores/nyu
step ingest-ade20k polyteach ingest "ade20k:$DATA/ade20k" stores/ade20k
step ingest-diode polyteach ingest "diode:$DATA/diode" stores/diode
for run in student supervised self-boxes specialist-classes specialist-boxes specialist-regions simclr vicreg scratch; do
  init=$([ $run = scratch ] || echo "--init runs/$run")
  for pair in cifar/cifar100 voc/voc-detection voc/voc-segmentation nyu/nyu ade20k/ade20k diode/diode-normals; do
    store=${pair%/*} protocol=${pair#*/}
    step "transfer-$run-$protocol" polyteach transfer "stores/$store" --protocol "$protocol" \
      --name "$run" $init --out "scores/$run/$protocol" $NET
  done
done
#    any checkpoint of timm beside them: --init pretrained --backbone resnet50

# 5. report
polyteach report scores --out report --ours student --title "MuST, the paper's recipe"
