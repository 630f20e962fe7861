"""Changes of one line that change a result, each applied to a copy of the package: which of them do the tests see?

    python tests/mutants.py                     all of them; exit 1 where one survives or no longer applies
    python tests/mutants.py --only depth        those with this in their file, their change or their tests
    python tests/mutants.py --list              what there is
    python tests/mutants.py --jobs 4

Not part of the usual run. A mutant names the line's old text, which must occur once in its file, the new text, what
the change does to a result, and the tests that see it. Only those tests are run; first on the unchanged copy, where
they must pass. One that does not end in many times as long counts as seen too.

The libraries are imported once, and each mutant gets a fork of that process, which then imports its own copy.
"""

import argparse
import compileall
import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch", "torchvision", "timm", "torchmetrics.detection", "faster_coco_eval", "pycocotools.cocoeval",
             "pyarrow.parquet", "fsspec", "PIL.Image", "safetensors.torch", "tyro", "rich.table", "yaml", "jaxtyping",
             "hypothesis", "pytest", "pytorch_metric_learning.losses", "torch.utils.data")  # fmt: skip
"""What tests import beside the package; an import takes longer than most tests."""
COPIED = ("polyteach", "tests", "runs", "pyproject.toml")
LEAST, TIMES, CLEAN = 60.0, 10, 900.0
"""Seconds that a mutant has at least; how many times what its tests take without it; seconds of a file without any."""
PASSED, FAILED, LATE = 0, 1, -1


@dataclass(frozen=True)
class Mutant:
    """file: below the package. old: occurs once there. changes: what it does to a result. tests: ids below tests/."""

    file: str
    old: str
    new: str
    changes: str
    tests: tuple[str, ...]

    def stale(self, package: Path) -> str:
        """Why it cannot be applied; "" where it can."""
        file = package / self.file
        count = file.read_text(encoding="utf-8").count(self.old) if file.is_file() else 0
        gone = [t for t in self.tests if not _there(package.parent / "tests", t)]
        if gone:
            return f"{self.file}, {self.changes}: there is no test {gone[0]}"
        return "" if count == 1 else f"{self.old!r} occurs {count} times in {self.file}"


def _there(folder: Path, test: str) -> bool:
    """Whether the file of a test's id is there, with the function that it names."""
    name, _, function = test.partition("::")
    file = folder / name
    found = file.read_text(encoding="utf-8") if file.is_file() else ""
    return bool(found) and (not function or f"def {function.partition('[')[0]}(" in found)


def mutant(file: str, old: str, new: str, changes: str, *tests: str) -> Mutant:
    return Mutant(file, old, new, changes, tests)


LEARNED = "test_learning.py::test_what_is_taught_in_part_is_learned_and_scored_in_each_pictures_own_pixels"
GOLDEN = "test_golden.py::test_losses_are_those_of_before"
STRUCTURE = "test_structure.py"
CHOICE = "test_transfer.py::test_the_sweep_chooses_on_validation_the_least_of_an_error"
REPORT = "test_report.py"
JACKKNIFE = "test_jackknife.py"
AMOUNTS = "test_task_contract.py::test_losses_of_parts_of_a_batch_make_the_batchs_by_their_amounts"
ANYWHERE = "test_train.py::test_a_label_counts_alike_wherever_it_is"
TOWERS = "test_towers.py::"
TAUGHT = "test_train.py::test_what_each_label_set_teaches_is_said_before_and_recorded"
COMBINED = "test_batches.py::test_teachers_are_combined_as_asked"
MERGED = "test_objectives.py::test_people_win_over_a_teacher_without_outlines_and_with_another_order"
NAMES = "test_objectives.py::test_names_in_any_order_are_one_objective_with_the_names_of_people"
REVIEWED = "test_detection.py::test_a_teachers_boxes_are_tidied_and_peoples_are_refused_or_counted"
OUTLINED = "test_detection.py::test_an_outline_and_its_box_are_of_one_place"
BROKEN = "test_label.py::test_a_teacher_that_works_no_longer_stops_the_run_and_what_is_done_is_kept"
AP = ("test_precision.py", "test_detection.py::test_ap_agrees_with_pycocotools")

MUTANTS = (
    # the student and its blocks
    mutant("model/student.py", "index = torch.tensor(here,", "index = torch.arange(len(here),",
           "labels are trained on other images' features", f"{LEARNED}[segmentation]"),
    mutant("model/student.py", "(images.to(self.mean.dtype) - self.mean) / self.std",
           "images.to(self.mean.dtype) / self.std", "pixels keep their mean",
           f"{STRUCTURE}::test_pixels_are_standardised_as_the_backbone_expects"),
    mutant("model/student.py", "[-1].float().mean((2, 3))", "[-1].float().amax((2, 3))",
           "probes read the largest feature, not the mean",
           f"{STRUCTURE}::test_pooled_features_are_means_of_the_last_map"),
    mutant("model/student.py", "self.training, self.mean.device\n        self.eval()", "self.training, self.mean.device",
           "answers, so validation too, in training mode", "test_student.py::test_answers_do_not_depend_on_the_mode"),
    mutant("model/student.py", "task.view(target, back)", "target", "answers are not put back on the image",
           f"{LEARNED}[depth]"),
    mutant("model/student.py", "views[i].inverse()", "views[0].inverse()",
           "answers are put back as the batch's first image was seen", f"{LEARNED}[depth]"),
    mutant("model/student.py", "getattr(self, part).eval()", "getattr(self, part).train(mode)",
           "frozen parts change their statistics",
           "test_transfer.py::test_frozen_parts_do_not_move_and_the_rest_does"),
    mutant("model/student.py", 'if k.partition(".")[0] in parts}', "}", "heads are taken over, whatever parts say",
           "test_transfer.py::test_what_is_taken_is_what_parts_say_and_heads_are_always_new"),
    mutant("model/student.py", "load_task(self.objectives[name].task), [t for",
           "load_task(self.objectives[name].task), [answers[here[0]] for",
           "every image is taught the first one's target", f"{LEARNED}[segmentation]"),
    mutant("ground/layers.py", "torch.stack(every).sum(0)", "torch.stack(every).mean(0)",
           "P2 is the mean of the levels, not the sum", f"{STRUCTURE}::test_fused_p2_is_the_sum_of_all_levels"),
    mutant("ground/layers.py", 'if name.startswith("p") and name != "p2"', 'if name in ("p3", "p4", "p5")',
           "P6 and P7 are not fused", f"{STRUCTURE}::test_fused_p2_is_the_sum_of_all_levels"),
    mutant("ground/layers.py", "hidden: int = 3", "hidden: int = 2", "pixel heads have two hidden convolutions",
           f"{STRUCTURE}::test_a_pixel_task_has_three_hidden_convolutions_and_a_linear_one"),
    mutant("ground/layers.py", "max(channels // 8, 1)", "channels", "groups of one channel: instance normalisation",
           f"{STRUCTURE}::test_a_pixel_task_has_three_hidden_convolutions_and_a_linear_one"),
    mutant("ground/layers.py", "GroupNorm(channels), nn.ReLU()", "GroupNorm(channels), nn.Identity()",
           "hidden convolutions are linear",
           f"{STRUCTURE}::test_a_pixel_task_has_three_hidden_convolutions_and_a_linear_one"),
    mutant("ground/layers.py", 'scale_factor=4, mode="bilinear"', 'scale_factor=4, mode="nearest"',
           "maps are enlarged in blocks",
           f"{STRUCTURE}::test_a_pixel_task_has_three_hidden_convolutions_and_a_linear_one"),
    mutant("ground/layers.py", "x + self.up(", "self.up(", "adapters begin at zero, not as the identity",
           "test_adapters.py"),
    # classes of images
    mutant("tasks/classification.py", ".softmax(-1).cpu()", ".softmax(0).cpu()",
           "probabilities add up over images, not classes",
           "test_metrics.py::test_a_decoded_class_vector_is_the_softmax_over_classes"),
    mutant("tasks/classification.py", '["c5"].mean((-2, -1))', '["c5"].amax((-2, -1))', "pooling takes the largest",
           f"{STRUCTURE}::test_classes_are_read_from_the_mean_of_c5_by_one_linear_layer"),
    mutant("tasks/classification.py", "soft / soft.sum(1, keepdim=True)", "soft",
           "class vectors rounded on disk are not normalised",
           "test_metrics.py::test_the_class_loss_is_the_cross_entropy_with_a_normalised_vector"),
    mutant("tasks/classification.py", "if not policy.soft:", "if policy.soft:", "soft labels become hard",
           "test_batches.py::test_the_policy_is_for_pseudo_labels_only"),
    mutant("tasks/classification.py", "(p.max() / p.sum())", "(p.min() / p.sum())",
           "confidence is the least likely class's",
           "test_losses_switches.py::test_a_picture_counts_by_its_likeliest_class_also_when_hard"),
    mutant("tasks/_classification_metric.py", "p.probability.topk(min(5,", "p.probability.topk(min(4,", "top-5 is top-4",
           "test_metrics.py::test_top_k_is_torchmetrics"),
    mutant("tasks/classification.py", "(near.values - 1) / TEMPERATURE", "(near.values - 1) * TEMPERATURE",
           "neighbours vote almost alike", "test_transfer.py::test_neighbours_vote_as_written_down"),
    mutant("tasks/classification.py", "setting / 2 * weight", "setting * weight",
           "the probe's penalty is twice what it says",
           "test_transfer.py::test_regression_finds_the_minimum_of_its_loss"),
    mutant("tasks/classification.py", "float(top >= policy.score)", "float(top < policy.score)",
           "labelling reports the share of unsure pictures",
           "test_metrics.py::test_labelling_counts_what_reaches_the_threshold"),
    mutant("tasks/contract.py", "/ weight.sum().clamp(min=1e-6)", "/ max(weight.numel(), 1)",
           "weighted means divide by the number of labels",
           "test_losses_switches.py::test_a_pixel_counts_by_its_probability"),
    # classes of pixels
    mutant("tasks/segmentation.py", ".softmax(1).max(1)", ".softmax(2).max(1)",
           "probabilities add up over rows, not classes",
           "test_metrics.py::test_a_decoded_map_is_the_likeliest_class_and_its_probability"),
    mutant("tasks/segmentation.py", "total / valid.sum().clamp(min=1)", "total / valid.numel()",
           "ignored pixels count in the mean",
           "test_metrics.py::test_pixel_loss_is_minus_log_probability_of_known_pixels"),
    mutant("tasks/segmentation.py", "masked_fill(p < least_score(", "masked_fill(p <= least_score(",
           "a pixel at the threshold is ignored",
           "test_metrics.py::test_pixels_below_the_threshold_are_ignored_and_only_those"),
    mutant("tasks/segmentation.py", "p if policy.confidence else torch.ones_like(p)", "p",
           "pixels always count by their probability",
           "test_losses_switches.py::test_a_pixel_counts_by_its_probability"),
    mutant("tasks/segmentation.py", "weighted_mean(each, weight * valid)", "weighted_mean(each, weight)",
           "ignored pixels count in the weighted mean",
           "test_losses_switches.py::test_a_pixel_counts_by_its_probability"),
    mutant("tasks/_segmentation_metric.py", "seen = union > 0", "seen = self.true > 0",
           "mIoU averages over the truth's classes alone",
           "test_metrics.py::test_a_class_that_only_the_prediction_shows_counts"),
    mutant("tasks/segmentation.py",
           "view.dense(target.category, IGNORE), probability=view.dense(target.probability, 0)",
           "view.dense(target.category, 0), probability=view.dense(target.probability, 1)",
           "what lies beyond the picture is taught as class 0",
           "test_task_contract.py::test_pixels_beyond_the_picture_are_not_learned"),
    # depth
    mutant("tasks/depth.py", "(2 * valid.sum((1, 2))", "(1 * valid.sum((1, 2))", "the absolute term is not halved",
           "test_metrics.py::test_relative_loss_is_the_formula"),
    mutant("tasks/depth.py", "GRADIENT_WEIGHT = 4, 0.5", "GRADIENT_WEIGHT = 3, 0.5", "three scales of gradients",
           "test_metrics.py::test_relative_loss_is_the_formula"),
    mutant("tasks/depth.py", "known.nanmedian(1).values", "known.nanmean(1)", "maps are shifted by their mean",
           "test_metrics.py::test_relative_loss_is_the_formula"),
    mutant("tasks/depth.py", "loss.sum() / informative.sum().clamp(min=1)", "loss.mean()",
           "images that say nothing count in the mean",
           "test_metrics.py::test_a_flat_or_unknown_truth_teaches_nothing_and_breaks_nothing"),
    mutant("tasks/depth.py", ".log()).abs()", ".log()).square()", "metric depth learns squared logarithms",
           "test_metrics.py::test_metric_loss_is_the_mean_logarithm_of_the_ratio_and_predictions_are_positive"),
    mutant("tasks/depth.py", "clamp(-9, 11).exp()", "clamp(-9, 11)", "metres are logarithms of metres",
           "test_metrics.py::test_metric_loss_is_the_mean_logarithm_of_the_ratio_and_predictions_are_positive"),
    mutant("tasks/_depth_metric.py", "guess = aligned(guess, truth)", "pass", "relative depth is scored without alignment",
           "test_metrics.py::test_relative_depth_does_not_see_scale_and_shift"),
    mutant("tasks/_depth_metric.py", "error.square().mean().sqrt()", "error.square().mean()", "RMSE is the mean square",
           "test_dense_metrics.py::test_depth"),
    mutant("tasks/_depth_metric.py", "ratio < 1.25**k", "ratio < 1.25 * k", "delta < 1.25 * k",
           "test_dense_metrics.py::test_depth"),
    mutant("tasks/depth.py", 'frozenset({"AbsRel", "RMSE"})', 'frozenset({"AbsRel"})', "a larger RMSE is better",
           CHOICE),
    mutant("tasks/depth.py", "view.dense(target.valid, 0)", "view.dense(target.valid, 1)",
           "what lies beyond the picture is learned as depth 0",
           "test_task_contract.py::test_pixels_beyond_the_picture_are_not_learned"),
    # answers that are none
    mutant("teachers/_transformers_asking.py", "refuse_nan(found, self.place)", "pass", "NaN is no object",
           "test_teachers_silent.py::test_a_detector_that_answers_nan_finds_not_nothing"),
    mutant("teachers/_transformers_grounding.py", "refuse_nan(made, self.place)", "pass", "NaN is no object",
           "test_prompts.py::test_a_detector_that_answers_nan_finds_not_nothing"),
    mutant("teachers/torchvision_models.py", "part.register_forward_hook(_refuse_nan)", "pass", "NaN is no object",
           "test_teachers_silent.py::test_torchvisions_detectors_that_answer_nan_find_not_nothing"),
    mutant("tasks/detection.py", "both.ignore[m].all() for m", "both.ignore[m].any() for m",
           "one who ignores a box makes all ignore it",
           "test_teachers_silent.py::test_what_all_ignore_is_ignored_by_their_one_voice"),
    mutant("loading/reader.py", "sources.add(labels.given)", "pass", "boxes and their outlines are two voices",
           "test_teachers_silent.py::test_a_source_is_no_second_voice_beside_what_was_made_of_it"),
    # backbones
    mutant("model/backbones/timm_models.py", "last = dict(zip(reductions, info.out_indices, strict=True))",
           "last = {r: i for i, r in enumerate(reductions)}", "maps are told by their place",
           "test_backbones.py::test_maps_are_of_the_strides_that_are_said_whatever_timm_says_of_them"),
    mutant("model/backbones/timm_models.py", "if shapes == wanted:", "if True:", "maps of other strides are taken",
           "test_backbones.py::test_what_has_no_such_maps_is_refused_when_it_is_built"),
    # plain backbones
    mutant("model/backbones/_plain.py", "max((k + 1) * layers // DEPTHS - 1, 0) for k", "layers - 1 for k",
           "maps of all depths are the last", "test_plain.py::test_layers_are_taken_as_dpt_takes_them"),
    mutant("model/backbones/_timm_plain.py", "else prefix[:, 0]", "else prefix[:, -1]",
           "a register is taken for the class token",
           "test_plain.py::test_maps_are_what_timms_own_pass_makes[vit_small_patch14_reg4_dinov2-size2-14]"),
    mutant("model/backbones/_timm_plain.py", "if others or (high * patch, wide * patch) != size:", "if others:",
           "patches that do not fill the image are taken",
           "test_plain.py::test_what_a_plain_one_cannot_take_is_refused_when_it_is_built"),
    mutant("model/plain_pyramid.py", "F.interpolate(padded, scale_factor=factor, mode", "F.interpolate(padded[..., : x.shape[2], : x.shape[3]], size=size, mode",
           "maps of patches of 14 are stretched to the image", "test_plain.py::test_what_is_interpolated_lies_where_it_was"),
    mutant("model/plain_pyramid.py", "return {**pyramid, **own} if own else pyramid", "return pyramid",
           "boxes are found on the levels for pixels", "test_plain.py::test_boxes_are_found_on_levels_of_their_own"),
    mutant("tasks/_detection_head.py", "if not any(side % 32 for side in image_list.tensors.shape[-2:]):", "if True:",
           "anchors lie closer than the cells of an odd map",
           "test_plain.py::test_every_head_answers_in_the_pixels_of_the_image"),
    mutant("ground/layers.py", "return fine[..., :height, :width]", "return fine",
           "maps reach beyond the image", "test_plain.py::test_every_head_answers_in_the_pixels_of_the_image"),
    mutant("model/backbones/_timm_plain.py", 'changed["pos_embed"] = resample', '_ = resample',
           "a run of one size begins none of another",
           "test_plain.py::test_a_run_of_one_size_begins_another_of_another[cait_xxs24_224]"),
    # weights to start from
    mutant("ground/weights.py", "if value.is_floating_point() and not bool(value.isfinite().all()):", "if False:",
           "weights of NaN are taken",
           "test_plain.py::test_weights_that_are_no_numbers_are_refused_before_anything_is_written"),
    mutant("model/backbones/_timm_checkpoint.py", "    _sure(file, taken, others, made)\n", "",
           "one of two networks is guessed", "test_plain.py::test_which_of_two_networks_is_meant_is_not_guessed"),
    mutant("model/student.py", "norm.register_forward_pre_hook(_by_statistics)", "_by_statistics(norm, None)",
           "statistics are kept until the next step",
           "test_finetuning.py::test_statistics_that_are_kept_are_those_of_the_checkpoint"),
    mutant("training/record.py", '{"backbone_sha256": tower} if tower else {}', "{}",
           "a run goes on with another normalisation",
           "test_towers.py::test_a_run_goes_on_with_the_normalisation_that_it_began_with"),
    # embedding
    mutant("tasks/embedding.py", "COSINE, SMOOTH_L1 = 0.9, 0.1", "COSINE, SMOOTH_L1 = 0.5, 0.5", "another loss",
           "test_embedding.py::test_the_loss_is_the_papers_formula"),
    mutant("tasks/embedding.py", "raw - how.mean[:, None, None]) * how.scale", "raw) * how.scale",
           "features keep their mean", "test_embedding.py::test_the_loss_is_the_papers_formula"),
    mutant("tasks/embedding.py", "known(target.feature).flatten() > 0].double()", "known(target.feature).flatten() >= 0].double()",
           "unknown cells count in the standardisation",
           "test_embedding.py::test_cells_of_zeros_are_not_counted_in_the_standardisation"),
    mutant("tasks/embedding.py", "head.scale.fill_(variance**-0.5)", "head.scale.fill_(1.0)", "features keep their scale",
           "test_embedding.py::test_standardised_features_have_no_mean_and_variance_one_in_every_channel_and_come_back"),
    mutant("tasks/embedding.py", "t = (-both + math.sqrt", "t = (both + math.sqrt", "channels of several variances",
           "test_embedding.py::test_a_rotation_gives_every_channel_the_mean_variance"),
    mutant("model/student.py", "if not k.startswith(left_out)}", "}", "the student keeps heads of training",
           "test_embedding.py::test_features_of_two_networks_are_two_heads_and_none_is_in_the_student"),
    mutant("teachers/features_models.py", "cells[:, :m, :n]", "cells", "a map shows the frame, not the image",
           "test_features.py::test_models_of_one_shape_see_the_whole_image_in_a_frame"),
    mutant("teachers/_features_transformers.py", "tokens[:, self.prefix :]", "tokens[:, : tokens.shape[1] - self.prefix]",
           "the class's token is a cell",
           "test_features.py::test_an_image_of_the_models_size_has_the_models_tokens"),
    # normals
    mutant("tasks/normals.py", "new_tensor([-1, 1, 1])", "new_tensor([1, 1, 1])", "a mirrored normal keeps its x",
           "test_task_contract.py::test_answer_of_the_mirrored_world_is_the_mirrored_answer"),
    mutant("tasks/normals.py", "* squares.rsqrt()", "* 1", "the loss rewards long vectors",
           "test_metrics.py::test_loss_of_normals_is_one_minus_the_cosine_of_what_was_turned"),
    mutant("tasks/normals.py", "(error * valid).sum() / valid.sum().clamp(min=1)", "(error * valid).mean()",
           "unknown pixels count in the mean", "test_metrics.py::test_unknown_normals_do_not_dilute_the_loss"),
    mutant("tasks/normals.py", "vector.norm(dim=1,", "vector.norm(dim=2,", "vectors are normalised over rows",
           "test_task_contract.py::test_predictions_become_checked_targets_of_the_original_size"),
    mutant("tasks/_normals_metric.py", "(n + 1) // 2)", "(n + 1) // 4)", "the median is a quartile",
           "test_dense_metrics.py::test_normals"),
    mutant("tasks/normals.py", "view.dense(target.valid, 0)", "view.dense(target.valid, 1)",
           "what lies beyond the picture is learned",
           "test_task_contract.py::test_pixels_beyond_the_picture_are_not_learned"),
    # detection
    mutant("tasks/_detection_head.py", "conv_depth=2", "conv_depth=1", "proposals have one hidden convolution",
           f"{STRUCTURE}::test_proposals_come_from_two_hidden_convolutions_on_p3_to_p7"),
    mutant("tasks/_detection_head.py", "[channels] * 4, [width]", "[channels] * 3, [width]",
           "the box head has three hidden convolutions",
           f"{STRUCTURE}::test_boxes_have_four_hidden_convolutions_and_one_connected_layer"),
    mutant("tasks/_detection_head.py", "(channels,) * 4, 1", "(channels,) * 3, 1",
           "the mask head has three hidden convolutions",
           f"{STRUCTURE}::test_masks_have_four_hidden_convolutions_and_what_is_learned_beside_boxes"),
    mutant("tasks/_detection_head.py", "(32 * 2**k,)", "(64 * 2**k,)", "anchors are twice as long",
           f"{STRUCTURE}::test_anchors_are_four_strides_long_in_three_aspects"),
    mutant("tasks/_detection_head.py", "nms_thresh=0.5,", "nms_thresh=0.9,", "boxes are suppressed at 0.9",
           "test_detection.py::test_decoded_boxes_keep_the_documented_bounds"),
    mutant("tasks/_detection_head.py", "score_thresh=FLOOR", "score_thresh=0.0", "boxes of any score are kept",
           "test_detection.py::test_decoded_boxes_keep_the_documented_bounds"),
    mutant("tasks/_detection_head.py", 'found["labels"] - 1', 'found["labels"]', "answers are one class too high",
           f"{LEARNED}[detection]"),
    mutant("tasks/_detection_head.py", "torch.where(target.ignore, -1,", "torch.where(target.ignore, 0,",
           "ignored objects are learned", "test_detection.py::test_an_image_of_ignored_objects_teaches_no_box"),
    mutant("tasks/detection.py", "kept = rows(target, target.score >= least_score(",
           "kept = rows(target, target.score > least_score(", "a box at the threshold is left out",
           "test_detection.py::test_a_box_at_the_threshold_is_kept"),
    mutant("tasks/detection.py", "kept if policy.confidence else", "kept if not policy.confidence else",
           "boxes count by their score unless asked to", "test_detection.py::test_threshold_keeps_whole_rows"),
    mutant("tasks/detection.py", "\nKEPT = 0.1", "\nKEPT = 0.0", "slivers of boxes are learned",
           "test_detection.py::test_views_keep_the_boxes_that_keep_a_tenth"),
    mutant("tasks/_detection_head.py", "\nCROWDED = 0.7", "\nCROWDED = 0.95", "crowds are learned as background",
           "test_detection.py::test_what_lies_inside_an_ignored_crowd_is_no_background"),
    mutant("tasks/_detection_head.py", "torch.stack(parts).sum()", "torch.stack(parts).mean()",
           "the loss is a mean of its parts", f"{GOLDEN}[detection boxes]"),
    mutant("tasks/_detection_head.py", ".where(classes > 0, one)", ".where(classes >= 0, one)",
           "background counts by a score", f"{GOLDEN}[detection by confidence]"),
    mutant("tasks/_detection_metric.py", "precision[5]", "precision[4]", "AP75 is AP70", AP[1]),
    mutant("tasks/_detection_drawing.py", "reversed(shown.unbind())", "shown.unbind()", "the worst outline is on top",
           "test_detection.py::test_where_outlines_overlap_the_best_is_drawn"),
    mutant("tasks/_detection_head.py", "box, *size) > 0.5", "box, *size) > 0.9", "outlines are drawn too tight",
           "test_detection.py::test_an_outline_is_where_it_is_likelier_than_not"),
    mutant("tasks/detection.py", "good = int((target.score >= policy.score).sum())",
           "good = int((target.score < policy.score).sum())", "labelling counts the boxes below the threshold",
           "test_metrics.py::test_labelling_counts_what_reaches_the_threshold"),
    # batches
    mutant("store/label_set.py", "task.validate(answer, size, self.space)", "pass", "what store check refuses is learned",
           "test_batches.py::test_nothing_is_learned_from_what_check_refuses"),
    mutant("store/label_set.py", "if ids[i] != image.id:", "if False:", "an answer of another image is learned",
           "test_batches.py::test_an_answer_of_another_image_is_not_learned"),
    mutant("ground/images.py", "sorted(size) != sorted(image.size)", "False", "another size is seen after unpacking",
           "test_images.py::test_another_size_is_seen_before_anything_is_unpacked"),
    mutant("loading/plan.py", "lambda s: not by_people(s)", "lambda s: by_people(s)", "teachers win over people",
           "test_batches.py::test_people_win_then_the_order_given_and_absent_adds_nothing"),
    mutant("loading/reader.py", "if by_people(labels):\n                return target",
           "if by_people(labels):\n                return task.pseudo(target, self.policy)",
           "people's labels are thresholded", "test_batches.py::test_the_policy_is_for_pseudo_labels_only"),
    mutant("loading/reader.py", "if answer is None or people:", "if True:",
           "teachers' labels are not thresholded", "test_batches.py::test_the_policy_is_for_pseudo_labels_only"),
    mutant("loading/samples.py", "task.view(target, view)", "target",
           "targets do not move with the view", "test_batches.py::test_image_and_targets_share_one_view"),
    mutant("loading/sampler.py", "default_rng([self.seed, epoch]).permutation", "default_rng([self.seed]).permutation",
           "row groups have the same order in every epoch",
           "test_batches.py::test_epochs_order_row_groups_and_images_anew"),
    mutant("loading/sampler.py", "default_rng([self.seed, epoch, window])", "default_rng([self.seed, window])",
           "images have the same order in every epoch",
           "test_batches.py::test_epochs_order_row_groups_and_images_anew"),
    mutant("loading/samples.py", 'draw = random.Random(f"{self.seed}-{epoch}-{image}{salt}")',
           'draw = random.Random(f"{self.seed}-{image}{salt}")', "an image has the same view in every epoch",
           "test_batches.py::test_every_epoch_has_another_view_of_an_image"),
    mutant("loading/transport.py", "range(self.start, self.stop, self.every)", "range(self.start, self.stop)",
           "every process learns from all passes",
           "test_torchrun.py::test_the_shares_of_the_processes_are_the_whole_stream"),
    # train
    mutant("training/train.py", "settings.lr, whole_batch, optimisation", "settings.lr, optimisation.batch_size, optimisation",
           "the rule takes one pass's batch, not the step's",
           "test_train.py::test_the_rule_counts_the_batch_of_the_step_not_of_a_pass"),
    mutant("training/weights.py", "batch_size * lr / (b * learning_rate)", "b * learning_rate / (batch_size * lr)",
           "the rule is upside down", "test_train.py::test_rule_against_hand_computation"),
    mutant("training/train.py", "0.32 * batch / 256", "0.32 * o.batch_size / 256", "the rate follows one pass's batch",
           "test_train.py::test_the_rule_counts_the_batch_of_the_step_not_of_a_pass"),
    mutant("training/train.py", "* images // batch)", "* images // o.batch_size)",
           "an epoch sees every image `accumulate` times",
           "test_train.py::test_the_rule_counts_the_batch_of_the_step_not_of_a_pass"),
    mutant("training/train.py", '"batch_size": job.batch', '"batch_size": asked.optimisation.batch_size',
           "as a teacher it records one pass's batch",
           "test_train.py::test_the_rule_counts_the_batch_of_the_step_not_of_a_pass"),
    mutant("training/train.py", "views.augment), job.policy, seed)", "views.augment), type(job.policy)(), seed)",
           "the policy is asked for and not used", f"{GOLDEN}[classification by confidence]"),
    mutant("training/train.py", "Augment(size, views.scale, views.mirror,", "Augment(size, views.scale, 0.0,",
           "no view is mirrored", f"{GOLDEN}[segmentation]"),
    # the loop
    mutant("training/settings.py", "math.cos(math.pi * done)", "math.cos(math.pi * done / 2)", "the rate ends at a half",
           "test_train.py::test_momentum_and_schedule_by_hand"),
    mutant("training/settings.py", "(step + 1) / settings.warmup", "step / settings.warmup", "the first step has a rate of 0",
           "test_train.py::test_momentum_and_schedule_by_hand"),
    mutant("training/averaging.py", "min(self.decay, (1 + step)", "max(self.decay, (1 + step)", "the average forgets too slowly",
           "test_train.py::test_average_by_hand"),
    mutant("training/loop.py", "{name: first_share(counted[rank], name, s) for name in losses}", "dict.fromkeys(losses, 1.0)",
           "gradients grow with the number of passes",
           "test_train.py::test_accumulation_equals_the_whole_batch", f"{GOLDEN}[all together]"),
    mutant("training/loop.py", "self.model.train()\n", "self.model.eval()\n", "networks are trained in evaluation mode",
           f"{GOLDEN}[classification]"),
    mutant("training/loop.py", "self.model.load_state_dict(self.average.state)", "pass",
           "the last weights are kept, not the average", "test_train.py::test_the_averaged_weights_are_the_result"),
    mutant("training/loop.py", "(0.0, [p for p in", "(s.weight_decay, [p for p in", "norms and biases decay",
           "test_train.py::test_decay_spares_norms_and_biases"),
    # fine-tuning
    mutant("training/layers.py", "[decay ** (units - d) for", "[decay ** (units - 1 - d) for", "the last unit learns as fast as heads",
           "test_finetuning.py::test_a_plain_vit_decays_as_timm_has_it"),
    mutant("training/loop.py", 'group["lr"] = lr * group["scale"]', 'group["lr"] = lr', "all depths learn as fast",
           "test_finetuning.py::test_a_step_is_scaled_by_depth_and_the_heads_step_as_ever"),
    mutant("training/layers.py", "-(-thaw * (units - d) // units)", "-(-thaw * d // units)", "backbones thaw from the stem up",
           "test_finetuning.py::test_when_each_unit_joins"),
    mutant("training/layers.py", "module.train(step >= first)", "module.train()", "normalisation of frozen units moves",
           "test_finetuning.py::test_units_thaw_from_the_top_down[sgd]"),
    mutant("training/layers.py", "                p.grad = None\n", "                pass\n", "frozen units learn under --shard",
           "test_sharded.py::test_weights_in_parts_are_fine_tuned_as_whole_ones_and_go_on"),
    mutant("training/recomputation.py", "m.momentum, m.num_batches_tracked = 0.0, None", "pass",
           "batch normalisation counts batches twice", "test_finetuning.py::test_the_same_gradients_from_fewer_activations"),
    mutant("model/units.py", "return units(backbone, prefix, called)", "return units(backbone, prefix)",
           "the pooling of a ViT is a unit", "test_finetuning.py::test_what_no_map_needs_is_no_unit"),
    mutant("model/units.py", "if deep and begun:", "if begun:", "normalisation is a unit of its own",
           "test_finetuning.py::test_a_resnet_by_hand"),
    mutant("model/backbones/_timm_weights.py", "    if not used:", "    if False:", "--drop-path is ignored in silence",
           "test_finetuning.py::test_a_backbone_without_stochastic_depth_is_refused"),
    mutant("transferring/job.py", "thaw=s.thaw", "thaw=0", "transfers do not thaw slowly",
           "test_finetuning.py::test_a_transfer_is_tuned_too"),
    mutant("training/loop.py", "nesterov=s.nesterov", "nesterov=False", "Nesterov momentum is plain",
           "test_train.py::test_momentum_and_schedule_by_hand"),
    mutant("training/loop.py", "self.settings.clip or math.inf", "math.inf", "gradients are not clipped",
           "test_train.py::test_clipping_bounds_the_whole_gradient"),
    mutant("training/loop.py", "self.optimizer.zero_grad(set_to_none=True)", "pass", "gradients of all steps add up",
           f"{GOLDEN}[classification]"),
    mutant("training/mixture.py", "torch.exp(-s) * term + s / 2", "torch.exp(-s) * term + s",
           "learned weights have another optimum", "test_train.py::test_learned_weights_learn_towards_their_optimum"),
    mutant("training/mixture.py", "len(counted) / max(len(counted) - len(out), 1)", "1.0", "terms that are kept are not scaled",
           "test_losses_switches.py::test_the_objective_that_learned_least_always_stays_and_terms_are_scaled"),
    # transfer
    mutant("transferring/job.py", 'c["validation"] if self.downstream.higher else -c["validation"]', 'c["validation"]',
           "the best cell of an error is the one with the most", CHOICE),
    mutant("transferring/sweep.py", "job.score(student, job.downstream.images.validation, 0)",
           "job.score(student, job.downstream.images.test, 0)", "a sweep chooses on the test split", CHOICE),
    mutant("transferring/probes.py", "answer(setting, first), d.images.validation, 0)", "answer(setting, first), d.images.test, 0)",
           "a probe chooses on the test split",
           "test_transfer.py::test_a_probe_chooses_the_best_setting_on_validation"),
    mutant("transferring/job.py", "return max(cells, key=", "return min(cells, key=", "a probe takes its worst setting",
           "test_transfer.py::test_a_probe_chooses_the_best_setting_on_validation"),
    mutant("transferring/sweep.py", "job.score(student, job.downstream.images.test, job.setup.resamples)",
           "job.score(student, job.downstream.images.validation, job.setup.resamples)",
           "the score is of the validation images", CHOICE),
    mutant("transferring/sweep.py", 'lr, n = best["lr"], best["steps"]', "lr, n = grid[0]", "the first cell is chosen", CHOICE),
    mutant("transferring/job.py", 'student.freeze(taken) if s.mode == "frozen" else student', "student",
           "frozen parts are trained", "test_transfer.py::test_frozen_parts_do_not_move_and_the_rest_does"),
    mutant("transferring/job.py", '("backbone", "pyramid") if part == "pyramid" else', "", "the pyramid is never taken over",
           "test_transfer.py::test_frozen_parts_do_not_move_and_the_rest_does"),
    mutant("transferring/budget.py", "ranked(ids, str(seed))[: max(", 'ranked(ids, "0")[: max(',
           "every seed has the same images", "test_transfer.py::test_budgets_nest_and_shots_count_classes"),
    mutant("transferring/probes.py", "targets += [samples.target(i, name) for i, _ in good]",
           "targets += [samples.target(i, name) for i, _ in good[::-1]]",
           "a probe learns other images' classes",
           "test_transfer.py::test_a_probe_chooses_the_best_setting_on_validation"),
    # evaluate
    mutant("transferring/scoring.py", "zip(answers, good, strict=True)", "zip(answers[::-1], good, strict=True)",
           "answers are scored against other images", f"{JACKKNIFE}::test_what_is_left_out_is_left_out"),
    mutant("transferring/scoring.py", "(values * weight).sum(0)", "values.sum(0)", "no image is left out",
           f"{JACKKNIFE}::test_what_is_left_out_is_left_out"),
    mutant("transferring/scoring.py", "draws(scores[name], left,", "draws(float(np.mean(left)), left,",
           "draws lie about the mean of what is left, not about the score",
           f"{JACKKNIFE}::test_draws_of_a_test_lie_about_its_score"),
    mutant("ground/jackknife.py", "np.where(of == group, 1, KEPT)", "np.where(of == group, KEPT, 1)",
           "all groups but one are left out", f"{JACKKNIFE}::test_every_image_is_left_out_once_with_about_as_many"),
    mutant("ground/jackknife.py", "np.sqrt((len(values) - 1) / len(values) *", "np.sqrt(1 / (len(values) - 1) *",
           "the error is that of independent scores", f"{JACKKNIFE}::test_the_error_of_a_mean_is_the_textbooks"),
    mutant("ground/jackknife.py", "(values - values.mean()) * np.sqrt((g - 1) / g)",
           "(values - values.mean()) * np.sqrt(1 / (g - 1))", "draws are as narrow as the scores that are left",
           f"{JACKKNIFE}::test_draws_are_students_t"),
    mutant("ground/jackknife.py", "np.sqrt((g - 1) / random.chisquare(g - 1, (half, 1)))", "1.0",
           "draws are normal, however few groups there are", f"{JACKKNIFE}::test_draws_are_students_t"),
    mutant("ground/jackknife.py", "[moved, -moved,", "[moved, moved,", "draws have no mirror image",
           f"{JACKKNIFE}::test_no_interval_excludes_its_estimate_and_pairs_cancel"),
    mutant("tasks/_detection_metric.py", "self._ranking(\"segm\").coco(counts * known,", "self._ranking(\"segm\").coco(counts,",
           "masks of images without outlines count",
           "test_detection.py::test_mask_scores_are_of_the_images_whose_truth_has_masks"),
    mutant("ground/jackknife.py", "[2.5, 97.5]", "[5, 95]", "an interval of 90 %",
           f"{JACKKNIFE}::test_an_interval_leaves_out_a_fortieth_at_each_end"),
    # labelling
    mutant("labelling/part.py", "else checked(found[i], key, size, labels)", "else found[i][key]",
           "answers are kept unchecked", "test_label.py::test_bad_answers_are_recorded_and_cost_no_other_image"),
    mutant("labelling/part.py", "self._asked(asker, sets, list(good.values()), wanted), strict=True))",
           "self._asked(asker, sets, list(good.values()), wanted)[::-1], strict=True))", "answers go to other images",
           "test_label.py::test_every_image_gets_the_teachers_answer"),
    mutant("labelling/part.py", "{answer}\" if isinstance(answer, str | Unfit) else answer", "{answer}\" and None",
           "nothing is asked again where the boxes failed", "test_sam.py::test_a_retry_asks_both"),
    mutant("labelling/part.py", "self.latest[id(source)].get(image, self.answers[id(source)][image])",
           "self.answers[id(source)][image]", "what was just answered is not given on",
           "test_sam.py::test_a_chain_labels_after_its_source_whatever_the_order"),
    mutant("labelling/chain.py", "if maker not in waiting]", "]", "masks are asked for before there are boxes",
           "test_sam.py::test_the_order_of_a_chain"),
    mutant("labelling/asking.py", "example = self.examples(images[:1])", "example = given[:1]",
           "what a chain costs depends on the first image's boxes", "test_sam.py::test_what_a_chain_costs_is_counted"),
    mutant("labelling/summary.py", "labels.statistics(score)", "labels.statistics()",
           "labelling reports at 0.5 whatever is asked",
           "test_label.py::test_what_is_reported_is_about_the_threshold_that_was_asked_for"),
    # geometry
    mutant("ground/geometry.py", "[w - x1, y0, w - x0, y1]", "[w - x0, y0, w - x1, y1]", "mirrored boxes are inside out",
           "test_geometry.py::test_boxes_by_hand"),
    mutant("ground/geometry.py", "start + (torch.arange(out, dtype=torch.float64) + 0.5)",
           "start + torch.arange(out, dtype=torch.float64)",
           "maps are seen from pixels' corners",
           "test_geometry.py::test_a_map_is_seen_as_torchvision_crops_and_resizes_it"),
    mutant("ground/geometry.py", "return out.flip(-1) if self.mirrored else out", "return out",
           "pictures are never mirrored", "test_geometry.py::test_the_picture_and_a_map_of_it_are_seen_alike"),
    mutant("ground/geometry.py", "scale = max(source[0] / size[0],", "scale = min(source[0] / size[0],",
           "the view cuts a part of the picture off",
           "test_geometry.py::test_fit_shows_all_of_the_source_with_its_aspect_kept"),
    mutant("ground/geometry.py", "low * (high / low) ** draw.random()", "low + (high - low) * draw.random()",
           "large scales are likelier", "test_geometry.py::test_scale_jitter_is_log_uniform_and_keeps_the_aspect"),
    mutant("ground/geometry.py", "left = vw - (left + sw * kx)", "pass", "mirrored answers are put back shifted",
           "test_geometry.py::test_the_inverse_puts_what_was_seen_back"),
    # without labels
    mutant("training/pretrain.py", "device=z.device), -torch.inf)", "device=z.device), 0.0)",
           "a view is compared with itself", "test_pretrain.py::test_nt_xent_is_equation_1_of_the_paper"),
    mutant("training/pretrain.py", ".roll(len(one))", ".roll(1)", "the partner is another image",
           "test_pretrain.py::test_nt_xent_is_equation_1_of_the_paper"),
    mutant("training/pretrain.py", "one, other = z[0::2], z[1::2]", "one, other = z.chunk(2)", "two images make a pair",
           f"{GOLDEN}[without labels]"),
    mutant("training/pretrain.py", "nt_xent(one, other, temperature)", "nt_xent(one, other, 1.0)",
           "the temperature is asked for and not used", f"{GOLDEN}[without labels]"),
    # labels for other tools
    mutant("writers/coco.py", '"iscrowd": int(thing.ignore)', '"iscrowd": 0', "crowds are written as objects",
           "test_export_labels.py::test_coco_is_what_pycocotools_reads"),
    mutant("writers/yolo.py", "(x0 + x1) / 2 / width", "x0 / width", "boxes are written by their corner",
           "test_export_labels.py::test_yolo_by_hand"),
    mutant("writers/_objects.py", "if not about.people and score < about.score:", "if False:",
           "pseudo boxes of any score become labels", "test_export_labels.py::test_ids_stay_and_scores_are_kept"),
    mutant("writers/masks.py", "torch.tensor([1.0, -1.0, -1.0])", "torch.tensor([1.0, 1.0, 1.0])",
           "normals are written in other axes", "test_export_labels.py::test_normals_as_colours"),
    mutant("writers/_outlines.py", "[(np.nonzero(rising), 0, 1), (np.nonzero(rising), 1, 0)]",
           "[(np.nonzero(rising), 0, 0), (np.nonzero(rising), 1, 1)]", "parts that touch at a corner are tangled",
           "test_export_labels.py::test_outlines_are_drawn_again_by_the_even_odd_rule"),
    mutant("ground/geometry.py", "(index <= int(filled[-1]))", "(index < int(filled[-1]))",
           "outlines lose their last row and column", "test_geometry.py::test_outlines_are_what_dense_makes_of_masks"),
    # answers
    mutant("labelling/frames.py", "range(0, count, every)", "range(count)", "every frame of a video is answered",
           "test_predict.py::test_every_nth_frame_of_videos_is_an_image"),
    mutant("labelling/predict.py", "self.teacher(good) if good", "self.teacher(good[::-1]) if good",
           "files get other files' answers", f"{LEARNED}[segmentation]"),
    mutant("teachers/own.py", "self.student.answer(images, self.size)", "self.student.answer(images, (32, 32))",
           "a student answers at another size than it was trained at",
           "test_student.py::test_own_students_answer_at_the_size_of_their_training"),
    # reports
    mutant("reporting/compare.py", "np.stack([t.resamples for t in tests]).mean(0)", "tests[0].resamples",
           "one seed makes the interval",
           f"{REPORT}::test_seeds_and_pretrainings_are_pooled_and_the_interval_is_about_test_images"),
    mutant("reporting/compare.py", "interval(sign * (first.samples - second.samples))",
           "interval(first.samples - second.samples)", "the interval of an error's difference has the wrong sign",
           f"{REPORT}::test_wins_ties_and_losses_by_paired_differences"),
    mutant("reporting/compare.py", '"win" if interval[0] > 0', '"win" if interval[1] > 0', "ties are wins",
           f"{REPORT}::test_wins_ties_and_losses_by_paired_differences"),
    mutant("reporting/compare.py", "column.sign * (c.validation or 0.0)", "(c.validation or 0.0)",
           "the better parts are those with more error",
           f"{REPORT}::test_the_better_parts_of_an_error_are_those_with_less_of_it"),
    mutant("reporting/compare.py", "(c.sign * x.mean, r) for r in grid.rows if is_", "(x.mean, r) for r in grid.rows if is_",
           "the best specialist has the largest error",
           f"{REPORT}::test_the_best_specialist_is_chosen_for_every_task"),
    mutant("reporting/compare.py", "/ (high.mean - low.mean)", "/ high.mean", "the scale does not reach 1",
           f"{REPORT}::test_normalised_scores_and_their_average"),
    mutant("reporting/compare.py", "value = statistics.fmean(s.value", "value = statistics.median(s.value",
           "the average over tasks is a median", f"{REPORT}::test_the_average_over_tasks_is_the_mean"),
    mutant("reporting/compare.py", "return statistics.stdev(self.values)", "return statistics.pstdev(self.values)",
           "the spread is that of a whole population",
           f"{REPORT}::test_seeds_and_pretrainings_are_pooled_and_the_interval_is_about_test_images"),
    mutant("reporting/results.py", "if t.at == self.chosen and", "if t.at != self.chosen and",
           "parts are chosen by cells that were not",
           f"{REPORT}::test_the_better_parts_are_judged_by_the_cell_that_was_chosen"),
    mutant("reporting/results.py", 't.at["lr"] == self.chosen.get("lr")', 't.at["lr"] != self.chosen.get("lr")',
           "curves over steps are of another rate",
           f"{REPORT}::test_validation_over_steps_is_that_of_the_chosen_rate"),
    # answers held against people's
    mutant("evaluation/account.py", "(self.tally, self.paired) if by_all else (self.tally,)", "(self.tally, self.paired)",
           "rivals are compared on images that not all answered",
           "test_evaluate.py::test_rivals_are_compared_on_what_all_answered"),
    mutant("evaluation/account.py", "pairs[0] * (classes + 1) + pairs[1]", "pairs[1] * (classes + 1) + pairs[0]",
           "what is right and what was said change places in the matrix of confusion",
           "test_evaluate.py::test_confusion_and_calibration_by_hand"),
    mutant("evaluation/account.py", " and not _flat(true, self.task.confidence)", "",
           "maps of a flat wall look broken", "test_evaluate.py::test_constant_maps"),
    mutant("evaluation/result.py", "x[name] - y[name] for x, y", "x[name] + y[name] for x, y",
           "the interval of a difference is that of a sum", "test_evaluate.py::test_intervals_by_hand"),
    mutant("evaluation/result.py", "np.abs(sure - right).sum()", "np.abs((sure - right).sum())",
           "bins that are too sure make up for those that are not sure enough",
           "test_evaluate.py::test_confusion_and_calibration_by_hand"),
    mutant("evaluation/matching.py", "len(shared.names), True)", "len(shared.names), False)",
           "images of classes that nobody could say count",
           "test_evaluate.py::test_images_of_classes_that_the_answers_do_not_know_are_left_out"),
    mutant("tasks/_average_precision.py", "for able in (alike, ~alike):", "for able in (alike | ~alike,):",
           "an object of another class takes the one of the right class away",
           "test_evaluate.py::test_boxes_that_are_confused_by_hand"),
    mutant("tasks/_average_precision.py", "counted &= hit | fits", "counted &= True",
           "answers of another size are false", "test_evaluate.py::test_sizes_of_boxes_are_those_of_pycocotools"),
    # average precision
    mutant("tasks/_average_precision.py", "chosen = np.where(np.where(found[:, None], real, able), overlap[d], -1).argmax(1)",
           "chosen = np.where(found[:, None], real, able).argmax(1)",
           "an answer takes any object that it overlaps enough", *AP),
    mutant("tasks/_average_precision.py", "free[used, chosen[used]] = False", "pass", "an object is found many times", *AP),
    mutant("tasks/_average_precision.py", "found | ~any_found", "True", "answers on crowds are false", *AP),
    mutant("tasks/_average_precision.py", "near = overlap.max(1) >= 0.5", "near = overlap.max(1) > 0.5",
           "VOC's threshold is above a half", "test_voc_ap.py"),
    mutant("tasks/_average_precision.py", "(recall[t], recalls, side=\"left\")", "(recall[t], recalls, side=\"right\")",
           "a recall that is just reached does not count", *AP),
    mutant("tasks/_average_precision.py", "    return best\n", "    return precision\n", "precision is not the best from there on",
           *AP),
    mutant("tasks/_average_precision.py", "np.arange(11) * objects", "np.arange(10) * objects", "VOC 2007 has ten points",
           "test_voc_ap.py"),
    mutant("tasks/_average_precision.py", "np.lexsort((-score, category))", "np.lexsort((score, category))",
           "the worst answers rank first", *AP),
    mutant("tasks/_average_precision.py", "\nMOST = 100", "\nMOST = 50", "COCO looks at 50 answers",
           "test_precision.py::test_only_the_hundred_best_answers_of_a_class_count"),
    # what a pass counts in its step
    mutant("training/mixture.py", "tuple(mine / total if total > 0 else 1 / there[name] for mine", "tuple(1 / there[name] for mine",
           "passes with one label count as much as those with many", ANYWHERE),
    mutant("training/loop.py", "+ first_share(share, name, s) * value", "+ value / s.accumulate",
           "the log's losses are means over passes", ANYWHERE),
    mutant("training/mixture.py", "if len(parts) > 1 and parts[0] > 0}", "if len(parts) > 9 and parts[0] > 0}",
           "outlines count by the images without them",
           "test_train.py::test_outlines_weigh_as_much_beside_images_without_objects"),
    mutant("training/mixture.py", "part / parts[0] for part in parts[1:]", "part for part in parts[1:]",
           "the parts of a loss are weighed twice",
           "test_train.py::test_outlines_weigh_as_much_beside_images_without_objects"),
    mutant("tasks/classification.py", "sum(1.0 if t.confidence is None else float(t.confidence) for t in targets)",
           "len(targets)", "unsure pictures make a pass count as much as sure ones", AMOUNTS),
    mutant("tasks/segmentation.py", "float(t.probability[t.category != IGNORE].sum())", "t.category.numel()",
           "passes count by their pixels, whether these are labelled or not", AMOUNTS),
    mutant("tasks/depth.py", "int((t.valid & (t.value > 0)).sum())", "t.valid.numel()",
           "passes count by their pixels, whether these are known or not", AMOUNTS),
    mutant("tasks/depth.py", "int(_informative(t.value.float()[None], t.valid[None])[2])", "1",
           "images that say nothing make a pass count", AMOUNTS),
    mutant("tasks/normals.py", "int(t.valid.sum()) for t in targets", "t.valid.numel() for t in targets",
           "passes count by their pixels, whether these are known or not", AMOUNTS),
    # metres and zoom, what half precision keeps
    mutant("loading/samples.py", "target = task.zoomed(task.view(target, view), view.zoom, objective.space)",
           "target = task.view(target, view)", "metres stay what they were, however near the view is",
           f"{GOLDEN}[depth metric]"),
    mutant("tasks/depth.py", "target.value / zoom)", "target.value * zoom)", "what is enlarged is farther away",
           "test_metrics.py::test_metres_are_those_of_a_camera_as_much_nearer_as_things_look_larger"),
    mutant("ground/geometry.py", "draw.random() < mirror, factor)", "draw.random() < mirror)", "a view does not know its zoom",
           "test_geometry.py::test_a_view_knows_how_much_larger_things_look_than_in_the_fitted_picture"),
    mutant("ground/geometry.py", "self.mirrored, 1 / self.zoom)", "self.mirrored, self.zoom)",
           "what was enlarged is enlarged again when it is put back",
           "test_geometry.py::test_a_view_knows_how_much_larger_things_look_than_in_the_fitted_picture"),
    mutant("tasks/depth.py", "DepthTarget(value=storable(value, valid), valid=valid)",
           "DepthTarget(value=value.float().masked_fill(~valid, 0), valid=valid)",
           "relative depth of a small range loses its values",
           "test_metrics.py::test_relative_depth_of_any_range_keeps_its_values_in_float16"),
    mutant("tasks/depth.py", "for candidate in (exact, scaled):", "for candidate in (exact,):",
           "relative depth is moved where scaling would do",
           "test_metrics.py::test_relative_depth_that_float16_holds_is_not_touched"),
    mutant("ground/geometry.py", ".where((near >= 0) & (near < length), 0)", ".where(near == near, 0)",
           "thin pictures are darker at their ends",
           "test_geometry.py::test_a_picture_put_together_is_what_padding_makes_of_it"),
    # which label sets share a head, and how their answers are put together
    mutant("loading/objectives.py", "tuple(at[_composed(named[m].names[t])] for t in moved)", "moved",
           "classes in another order are taken by their number", NAMES),
    mutant("loading/objectives.py", "next((m for m in group if by_people(sets[m])), group[0])", "group[0]",
           "the names are the first teacher's", NAMES),
    mutant("loading/objectives.py", "    if unsaid:\n", "    if False:\n", "numbers of different origin are one vocabulary",
           "test_objectives.py::test_numbers_are_no_names"),
    mutant("tasks/detection.py", "return MASKS if len(kinds) > 1", "return BOXES if len(kinds) > 1",
           "outlines are lost beside labels without them", MERGED),
    mutant("tasks/detection.py", "category=index[target.category]", "category=target.category",
           "a teacher's boxes keep its own numbers", MERGED),
    mutant("tasks/classification.py", "index_add(0, index, p)", "index_copy(0, index, p)",
           "of classes that become one the last alone counts",
           "test_objectives.py::test_probabilities_and_maps_follow_the_names"),
    mutant("tasks/segmentation.py", "masked_fill(ignored, 0)].masked_fill(ignored, IGNORE)", "masked_fill(ignored, 0)]",
           "ignored pixels become a class where names are mapped",
           "test_objectives.py::test_pixels_that_are_ignored_stay_so_where_names_are_mapped"),
    mutant("loading/reader.py", "max(found, key=lambda a: task.sureness", "min(found, key=lambda a: task.sureness",
           "the least sure teacher is taken", f"{COMBINED}[best-shares1-second1-fourth1]"),
    mutant("tasks/detection.py", "both.score.double(), both.category, SAME)",
           "both.score.double(), torch.zeros_like(both.category), SAME)",
           "objects of other classes suppress one another", f"{COMBINED}[union-shares2-second2-fourth2]"),
    mutant("tasks/detection.py", "target.score[target.score >= policy.score].sum()", "target.score.mean()",
           "one sure box is worth more than many",
           "test_batches.py::test_the_surest_detector_is_the_one_that_expects_to_have_found_the_most_objects"),
    mutant("tasks/classification.py", "torch.stack([t.probability for t in targets]).mean(0)",
           "torch.stack([t.probability for t in targets]).amax(0)", "teachers' probabilities are not averaged",
           "test_batches.py::test_classes_and_pixels_of_two_teachers"),
    mutant("tasks/segmentation.py", "masked_fill(t.category == IGNORE, -1) for t in seen]).argmax(",
           "masked_fill(t.category == IGNORE, -1) for t in seen]).argmin(", "of every pixel the less probable class",
           "test_batches.py::test_classes_and_pixels_of_two_teachers"),
    mutant("loading/plan.py", "(mask & ~taken).sum()", "mask.sum()", "answers that do not count are counted", MERGED),
    mutant("loading/plan.py", "out[i, labels.task, labels.name] = (\n", "out[-1, labels.task, labels.name] = (\n",
           "a teacher that teaches nothing is not told", TAUGHT),
    mutant("training/briefing.py", "doubt = labels.doubt(_own(", "doubt = \"\" and labels.doubt(_own(",
           "labels that are all empty are not told", TAUGHT),
    mutant("labelling/summary.py", "doubt := labels.doubt(Policy(score=score))", "doubt := \"\"",
           "a teacher that always says the same is not told",
           "test_label.py::test_a_teacher_that_says_the_same_of_every_image_is_told"),
    mutant("labelling/summary.py", "idle = idle_sets(team.store)", "idle = {}", "a second teacher that is not used is not told",
           "test_label.py::test_a_second_teacher_of_the_same_classes_is_told_that_it_would_not_be_used"),
    mutant("store/statistics.py", "bool(self._reasons[\"\"]) and not self._same and not self._one_class",
           "bool(self._reasons[\"\"])",
           "one answer that says something is taken for labels that vary",
           "test_stores.py::test_info_warns_of_labels_that_can_hardly_teach"),
    mutant("training/weights.py", "if objective == name and n and not by_people(s)", "if objective == name and not by_people(s)",
           "the rule asks a teacher whose answers count for no image",
           "test_train.py::test_the_rule_does_not_ask_a_teacher_whose_answers_count_for_no_image"),
    mutant("training/weights.py", "for teacher, (lr, b, by) in known if by == optimizer]", "for teacher, (lr, b, by) in known]",
           "the rule compares rates of other optimisers",
           "test_train.py::test_the_rule_compares_learning_rates_of_one_optimiser_alone"),
    mutant("training/weights.py", "values |= {name: value / mean for", "values |= {name: value for",
           "the rule's ratios are taken for AdamW's steps",
           "test_train.py::test_a_run_says_how_it_was_trained_and_as_a_teacher_is_compared",
           "test_train.py::test_the_rule_compares_learning_rates_of_one_optimiser_alone"),
    # what strangers' uris and archives may do
    mutant("ground/uris.py", "if not self.named and _inside(address):", "if False:", "a uri reaches the machine's own network",
           "test_uris.py::test_the_own_network_is_refused_after_its_name_was_looked_up",
           "test_uris.py::test_redirects"),
    mutant("ground/uris.py", "        if not limits.allows(address):", "        if False:", "redirects lead anywhere",
           "test_uris.py::test_redirects"),
    mutant("ground/limits.py", 'self.path.startswith(f"{folder}/")', "self.path.startswith(folder)",
           "a beginning allows its neighbours", "test_uris.py::test_a_beginning_is_compared_by_its_parts"),
    mutant("datasets/tar.py", "if problem is None and size > most:", "if False:", "a member of any size is unpacked",
           "test_ingest.py::test_a_tar_member_that_is_too_large_is_skipped"),
    # people's boxes
    mutant("curation/look.py", "review(answer, size, self.sets[task].space, drawn.where.get(task, ()))",
           "review(load_task(task).check(answer, size, self.sets[task].space), size, self.sets[task].space)",
           "people's mistakes are tidied away",
           "test_ingest.py::test_people_are_taken_at_their_word_whatever_the_format"),
    mutant("tasks/detection.py", "x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0", "x0 >= width or y0 >= height",
           "boxes before the picture's corner are not outside", REVIEWED),
    mutant("tasks/detection.py", "low < -allowed or high > side + allowed", "low < -allowed",
           "boxes may reach beyond the right and lower edge", REVIEWED),
    mutant("tasks/detection.py", "max(pixels, share * side)", "min(pixels, share * side)",
           "rounding in small pictures is an error", REVIEWED),
    mutant("tasks/detection.py", "] += share < 0.5", "] += share < 0.05", "outlines beside their boxes are not told",
           OUTLINED),
    mutant("tasks/detection.py", "if not share:", "if share < 0:", "outlines of another place are taken", OUTLINED),
    # what a stranger's file may do
    mutant("ground/texts.py", "lambda m: m[1] or _escaped(m[0])", "lambda m: m[0]", "names steer the terminal",
           "test_texts.py::test_tables_hold_text_alone[30]"),
    mutant("model/backbones/_transformers_config.py", 'if (key in ELSEWHERE and inner) or', "if",
           "a run's configuration names code", TOWERS + "test_a_strangers_configuration_is_one_line"),
    mutant("model/student.py", 'about.object("backbone_config")', "pass", "a stranger's run names a folder to read",
           TOWERS + "test_a_run_reads_no_folder_that_a_stranger_names"),
    mutant("model/backbones/transformers_models.py", "model.config.mask_ratio = 0.0", "pass", "patches are left out",
           TOWERS + "test_plain_towers_say_what_transformers_says[vit_mae-size0]"),
    mutant("model/backbones/_transformers_towers.py", "[*(hidden[k] for k in self._taken[:-1]), last]",
           "[hidden[k] for k in self._taken]", "the last map is not normalised",
           TOWERS + "test_plain_towers_say_what_transformers_says[dinov2-size0]"),
    mutant("model/backbones/_transformers_towers.py", "tokens[:, prefix:]", "tokens[:, : tokens.shape[1] - prefix]",
           "maps are shifted by the tokens before them",
           TOWERS + "test_cells_lie_where_the_image_changes[dinov2_with_registers]"),
    mutant("model/backbones/_transformers_towers.py", "return given, {**named, BEFORE: True}", "return given, named",
           "Swin's maps are those that the next stage begins with",
           TOWERS + "test_pyramids_say_what_transformers_says[swinv2-size0]"),
    mutant("model/backbones/transformers_models.py", "[x / factor for x in std]", "list(std)",
           "pixels of another scale are normalised as if they were of 0..1",
           TOWERS + "test_normalisation_is_that_of_the_folder"),
    mutant("ground/hub_names.py", "and any(map(path.is_relative_to, homes))", "", "a description's link is followed",
           "test_teachers.py::test_onnx_names_come_from_a_file_of_the_descriptions_own_folder[names.txt]"),
    mutant("teachers/_onnx_layouts.py", "value[:, 5 : 5 + k] * value[:, 4:5]", "value[:, 5 : 5 + k]",
           "YOLOv5's object probability is left out", "test_onnx_layouts.py::test_yolov5_multiplies_the_objects_probability"),
    mutant("teachers/_onnx_layouts.py", "cells[:, 0] ** 0.6 * best.values**0.4", "cells[:, 0] * best.values",
           "FastestDet's score is another", "test_onnx_layouts.py::test_fastestdet_by_its_published_loop"),
    mutant("teachers/_onnx_boxes.py", "score.softmax(1)[:, :-1]", "score[:, :-1].softmax(1)",
           "DETR's no object takes no share", "test_onnx_layouts.py::test_detr_leaves_its_last_class_out"),
    mutant("teachers/_onnx_boxes.py", "one.score[order].double(), one.category[order], self.overlap",
           "one.score[order].double(), one.category[order] * 0, self.overlap", "boxes of other classes are dropped too",
           "test_onnx_layouts.py::test_yolov8_by_its_own_metadata"),
    mutant("teachers/_onnx_boxes.py", "size, box, seen, least=0, cut=True)", "size, box, seen, least=0, cut=False)",
           "outlines reach beyond their boxes", "test_onnx_layouts.py::test_masks_from_prototypes"),
    mutant("teachers/_onnx_input.py", "[[width, height]] * count", "[[height, width]] * count",
           "RT-DETR is told height before width", "test_onnx_layouts.py::test_rt_detr_is_told_the_inputs_size"),
    mutant("teachers/_onnx_input.py", "return self._fitted(image, self.longest / max(size), None)",
           "return self._fitted(image, self.longest / min(size), None)", "graphs of any size get larger images",
           "test_onnx_layouts.py::test_graphs_of_any_size_are_fitted_too"),
    mutant("tasks/detection.py", "share = min(len(members), len(targets)) / len(targets)", "share = 1",
           "what one teacher found alone scores in full", "test_fuse.py::test_boxes_are_fused_as_the_paper_says"),
    mutant("tasks/segmentation.py", "votes = torch.stack([(p * (category == c)).sum(0) for c in category]) / len(targets)",
           "votes = p / len(targets)", "pixels take the surest teacher's class",
           "test_fuse.py::test_pixels_vote_with_their_probabilities"),
    mutant("tasks/depth.py", "agreed = ((near & valid).sum(0) * 2 > len(targets))", "agreed = (valid.sum(0) > 0)",
           "depth that teachers do not agree on is learned", "test_fuse.py::test_metres_are_the_median_where_most_agree"),
    mutant("loading/reader.py", 'elif self.plan.combine == "fuse":', 'elif self.plan.combine == "fused":',
           "fuse takes the best teacher", "test_batches.py::test_teachers_are_combined_as_asked"),
    mutant("ground/names.py", "known = kind in DEVICES or", "known = True or", "any word is a device",
           "test_options.py::test_what_is_no_device"),
    mutant("loading/transport.py", "signal.signal(signal.SIGTERM, _linger)", "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
           "SIGTERM to the whole group ends data workers before the last step",
           "test_train.py::test_signals_leave_a_checkpoint_and_the_same_command_goes_on"),
    mutant("ground/weights.py", "if any(f.compress_type for f in found) or", "if", "packed weights are unpacked, of any size",
           "test_teachers.py::test_hostile_pickles_are_refused_in_one_sentence_and_nothing_runs"),
    mutant("datasets/nyu.py", "if found.is_virtual or found.external:", "if found.is_virtual:",
           "any file's bytes become pictures", "test_dataset_nyu.py::test_no_other_file_is_opened[raw]"),
    # teachers
    mutant("teachers/timm_models.py", "use_test_size=t) for t in", "use_test_size=False) for t in",
           "classifiers see the size of their training",
           "test_teachers.py::test_timm_sees_what_its_own_validation_does[resnet50.a1_in1k]"),
    mutant("teachers/torchvision_models.py", "super().__init__(model, device, precision, _lowered(model))",
           "super().__init__(model, device, precision)", "boxes are suppressed in half precision",
           "test_teachers.py::test_torchvision_boxes_stay_exact_in_low_precision[faster r-cnn-bf16]"),
    mutant("teachers/_transformers_boxes.py", "device, precision, _features(model))", "device, precision)",
           "boxes have steps of 2^-8", "test_teachers.py::test_transformers_boxes[detr]"),
    mutant("teachers/_transformers_grounding.py", "score, \"amax\")", "score, \"sum\")", "a class's prompts add up",
           "test_prompts.py::test_several_prompts_are_one_class_by_the_best_of_them[owlv2]"),
    mutant("teachers/_transformers_grounding.py", "(max(size),) * 2 if self.square else size", "size",
           "boxes are fractions of the image without its padding",
           "test_prompts.py::test_one_prompt_a_class_finds_the_librarys_boxes[owlv2]"),
    mutant("teachers/_transformers_grounding.py", "at += len(ids) + 1", "at += len(ids)",
           "a prompt is scored by another's tokens",
           "test_prompts.py::test_several_prompts_are_one_class_by_the_best_of_them[mm_grounding]"),
    mutant("teachers/_transformers_grounding.py", "category, SAME)", "category * 0, SAME)",
           "a box of another class suppresses", "test_prompts.py::test_one_prompt_a_class_finds_the_librarys_boxes[owlvit]"),
    mutant("teachers/_transformers_prompts.py", "normalize(sums / of.bincount()[:, None], dim=-1)", "threshold(sums / of.bincount()[:, None], -9, 0)",
           "a class of several prompts is less probable",
           "test_prompts.py::test_several_prompts_are_the_mean_of_their_embeddings[clip]"),
    mutant("teachers/sam_models.py", "ignore=target.ignore | ~mask.flatten(1).any(1)", "ignore=target.ignore",
           "an empty outline is learned", "test_sam.py::test_a_box_in_which_nothing_is_marked_is_ignored"),
    mutant("teachers/sam_models.py", "torch.tensor([inner[1] / size[1], inner[0] / size[0]])", "torch.tensor([1.0, 1.0])",
           "outlines are of other boxes", "test_sam.py::test_masks_are_those_of_the_library[sam]"),
    mutant("tasks/_detection_head.py", "f.new_zeros(1).float().expand(f.shape)", "f.new_zeros(1).expand(f.shape)",
           "anchors are rounded to half precision",
           "test_detection.py::test_anchors_do_not_depend_on_the_precision_of_the_features"),
    mutant("teachers/transformers_models.py", "    teacher.try_out()", "", "a model that fails at every image is a teacher",
           "test_transformers.py::test_every_class[Siglip2ForImageClassification]"),
    mutant("teachers/_transformers_asking.py", "failed.append(e)", "raise", "a model that fails at one size is no teacher",
           "test_transformers.py::test_a_model_that_fails_at_one_size_alone_is_a_teacher"),
    mutant("teachers/_transformers_depth.py", "if known and wanted:", "if False:", "what is said of depth is passed over",
           "test_transformers.py::test_what_is_said_may_not_contradict_the_model"),
    mutant("teachers/_maps.py", "torch.tensor(sign, device=field.device)", "torch.tensor([1, 1, 1], device=field.device)",
           "normals point the other way", "test_transformers.py::test_every_class[Sapiens2ForNormalEstimation]"),
    mutant("teachers/_transformers_masks.py", "self.tokens[key]", 'self.tokens["segmentation"]',
           "OneFormer is told one task for both answers",
           "test_transformers.py::test_oneformer_is_told_its_task_for_each_answer"),
    mutant("teachers/_transformers_masks.py", "if size[0] > size[1] else (pieces.shape[2], longer)", "",
           "pieces of wide images are put together as tall ones",
           "test_transformers.py::test_eomt_in_pieces_is_put_together"),
    mutant("teachers/_transformers_boxes.py", "query, size = pair // logits.shape[1]", "query, size = pair % len(logits)",
           "boxes have the outlines of others", "test_transformers.py::test_every_class[RfDetrForInstanceSegmentation]"),
    mutant("teachers/_transformers_boxes.py", "base = base.model\n", "break\n", "boxes of outlines have steps of 2^-8",
           "test_transformers.py::test_boxes_keep_their_precision[rf_detr-RfDetrForInstanceSegmentation]"),
    mutant("teachers/_transformers_files.py", 'lines.append(f"{name} {sha256(file)}")', "lines.append(name)",
           "another configuration has the same hash",
           "test_transformers.py::test_the_hash_is_of_all_that_determines_the_answer"),
    mutant("ground/hub_models.py", '{"class_info_file": None} if "class_info_file" in configured else {}', "{}",
           "a file of classes anywhere on the machine is read",
           "test_transformers.py::test_oneformers_class_file_stays_in_its_folder"),
    mutant("teachers/_transformers_places.py", "(x.shape[-2], x.shape[-1]))[:, top : top + height, left : left + width]",
           "(x.shape[-2], x.shape[-1]))", "maps show the padding too", "test_teachers.py::test_padding_is_cut_off"),
    mutant("teachers/_transformers_depth.py", "whole[:, :, top : top + height, left : left + width]", "whole",
           "depth shows the padding too", "test_teachers.py::test_transformers_depth_without_the_padding"),
    mutant("teachers/_transformers_places.py", "left * right, top * down", "0.0, 0.0",
           "boxes are counted from the padding's corner",
           "test_teachers.py::test_boxes_of_the_padded_input_are_counted_from_the_images_corner"),
    mutant("labelling/asking.py", "if not memory and is_dead(e, place):", "if not memory and False:",
           "a dead device is recorded as failed images", BROKEN),
    mutant("labelling/asking.py", "if self.failures >= SUSPECT:", "if False:",
           "a teacher that works no longer is found out late",
           "test_label.py::test_a_teacher_that_works_no_longer_is_found_out_after_a_few_images_of_a_long_part"),
    mutant("labelling/asking.py", "if len(reasons) == len(said):", "if len(reasons) > len(said):",
           "a teacher that works no longer is recorded as failed images", BROKEN),
    # what goes on, and what is told
    mutant("training/state.py", "return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)",
           "return value", "moments are paired with other numbers in channels_last",
           "test_train.py::test_a_run_in_another_memory_layout_goes_on_exactly[adamw]"),
    mutant("training/loop.py", "while self._held and self._held[0][0].query():", "while self._held:",
           "a batch is let go before it is copied", "test_train.py::test_a_batch_is_held_until_its_copy_is_done"),
    mutant("curation/split.py", "_write(store, lambda id: drawn(group(id), fractions, seed), progress)",
           "_write(store, lambda id: drawn(id, fractions, seed), progress)", "groups are torn apart",
           "test_splits.py::test_groups_stay_together[pattern]"),
    mutant("curation/split.py", "f\"{seed}\\0{key}\"", "f\"{key}\"", "every seed makes the same splits",
           "test_splits.py::test_fractions_are_met_as_by_chance"),
    mutant("curation/split.py", "        end += fraction\n", "        end = fraction\n", "all but the first split lose images",
           "test_splits.py::test_fractions_are_met_as_by_chance"),
    mutant("verbs/predict.py", "return int(unanswered > 0)", "return 0", "a picture without an answer is a success",
           "test_predict.py::test_the_others_are_answered_and_the_status_is_one[broken.jpg]"),
    mutant("command.py", "getattr(e, \"status\", 2)", "0", "what went wrong is a success",
           "test_predict.py::test_the_others_are_answered_and_the_status_is_one[broken.jpg]"),
    # what strangers' datasets may cost
    mutant("datasets/_files.py", "if (height, width) != size:", "if False:",
           "a class map is unpacked at whatever size its head says",
           "test_dataset_coco.py::test_panoptic_maps_that_are_missing_or_no_map"),
    mutant("datasets/_coco_outlines.py", "> _EDGES:", "> 1e30:", "an outline takes as much memory as its points are apart",
           "test_dataset_coco.py::test_a_broken_annotation_spoils_its_image_only[edges without end]"),
    # practitioners' label files
    mutant("datasets/yolo.py", "(x - w / 2, y - h / 2, x + w / 2, y + h / 2)", "(x, y, x + w, y + h)",
           "the centre of a box is its corner", "test_dataset_yolo.py::test_boxes_are_fractions_of_centre_and_size"),
    mutant("datasets/yolo.py", "distinct.setdefault(numbers, where)", "distinct.setdefault((*numbers, where), where)",
           "a line that comes twice is two objects",
           "test_dataset_yolo.py::test_a_line_that_comes_twice_is_one_object_and_told"),
    mutant("datasets/yolo.py", "if found is None and absolute:", "if found is None:",
           "a split is taken from a shorter path", "test_dataset_yolo.py::test_a_split_is_never_taken_from_a_shorter_path"),
    mutant("datasets/_class_maps.py", "if self.binary and set(found.tolist()) == {0, _VOID}:", "if False:",
           "a second class of 255 is taken for unknown", "test_dataset_masks.py::test_0_and_255_are_asked_about"),
    mutant("datasets/depth_png.py", "valid = ~np.isin(pixels, self.unknown)", "valid = np.ones(pixels.shape, dtype=bool)",
           "what was not measured is relative depth",
           "test_dataset_depth_png.py::test_relative_depth_keeps_its_values"),
    mutant("datasets/_voc_own.py", "count_from = int(first) if first else int(said.lowest >= 1)", "count_from = 1",
           "boxes that are counted from 0 lie a pixel off",
           "test_dataset_voc_own.py::test_boxes_that_are_counted_from_0"),
    mutant("datasets/_objects.py", "turn = np.deg2rad(degrees)", "turn = -np.deg2rad(degrees)",
           "boxes are turned the other way", "test_dataset_cvat.py::test_a_turn_is_clockwise_as_it_is_seen"),
    mutant("datasets/cvat.py", "reshape(height, width)", "reshape(width, height).T", "masks run down, not along",
           "test_dataset_cvat.py::test_outlines_of_every_kind"),
    # public data sets' own files
    mutant("datasets/lvis.py", "if unsaid and not values[\"unlabelled\"]:", "if False:",
           "classes that nobody looked for are background in silence",
           "test_dataset_lvis.py::test_what_is_not_said_of_classes_stops_until_it_is_decided"),
    mutant("datasets/cityscapes.py", "if not (category != IGNORE).any():", "if False:",
           "the empty maps of test are labels", "test_dataset_cityscapes.py::test_a_map_that_shows_void_alone_says_nothing"),
    mutant("datasets/cityscapes.py", "runs[above][2] <= first", "runs[above][2] < first",
           "groups that touch by a corner are one", "test_dataset_cityscapes.py::test_regions_are_those_of_scipy"),
    mutant("datasets/kitti.py", "for i in range(len(self._names))]", "for i in range(1)]",
           "a detection where nobody looked is wrong, of all classes but one",
           "test_dataset_kitti.py::test_what_nobody_cares_for_counts_neither_way"),
    mutant("datasets/bdd100k.py", "(x1, y1, x2 + 1, y2 + 1)", "(x1, y1, x2, y2)", "the last pixel is outside of its box",
           "test_dataset_bdd100k.py::test_the_last_pixel_is_inside"),
    mutant("datasets/openimages.py", "number_of.argsort(kind=\"stable\")", "np.arange(len(number_of))",
           "rows that stand apart are lost", "test_dataset_openimages.py::test_rows_of_an_image_may_stand_apart"),
    # care for pseudo labels
    mutant("tasks/detection.py", "judged.category[judged.counted[0]], judged.category[judged.hit[0]]",
           "judged.category, judged.category[judged.hit[0]]", "a box in a crowd counts as a wrong one",
           "test_care.py::test_boxes_by_hand"),
    mutant("tasks/_agreement.py", "found[found < self.classes].bincount", "found.clamp(max=self.classes - 1).bincount",
           "classes that only one of both has are counted", "test_care.py::test_some_classes_of_boxes_and_pixels"),
    mutant("tasks/classification.py", "said = predicted.probability[: self.classes].argmax()",
           "said = predicted.probability.argmax()", "a class that people do not have is a wrong answer",
           "test_care.py::test_some_classes_in_common_are_compared_and_that_is_said"),
    mutant("tasks/segmentation.py", "valid = true.category < self.classes", "valid = true.category >= 0",
           "pixels that people ignored are compared", "test_care.py::test_pixels_by_hand_and_by_torchmetrics"),
    mutant("tasks/depth.py", "value=(1 / target.value.where(valid, 1))", "value=(-target.value.where(valid, 1))",
           "metres are compared with relative depth without their inverse",
           "test_care.py::test_metres_and_relative_depth_are_compared_up_to_scale_and_shift"),
    mutant("loading/held.py", "policy = Policy(score=score, confidence=True)", "policy = Policy(score=0.0, confidence=True)",
           "labels below the threshold are held against people's", "test_care.py::test_boxes_by_hand"),
    mutant("loading/held.py", "starts = np.arange(runs, dtype=np.int64) * count // runs",
           "starts = np.arange(runs, dtype=np.int64) * RUN", "only the first images are compared",
           "test_care.py::test_of_many_images_an_even_share_is_taken_and_said"),
    mutant("loading/objectives.py", "theirs = set(map(_composed, other.names))\n    names = tuple(n for n in one.names if",
           "theirs = set(map(_composed, other.names))\n    names = tuple(n for n in one.names if True or",
           "all of people's classes are compared", "test_care.py::test_some_classes_in_common_are_compared_and_that_is_said"),
    mutant("labelling/summary.py", "for found in held(labels, every, score):", "for found in ():",
           "nothing is told of people's labels", "test_care.py::test_labelling_and_info_tell_it"),
    mutant("curation/calibrate.py", "first, second = halves.evidence", "second, first = halves.evidence",
           "the halves are changed over", "test_calibrate.py::test_a_temperature_is_the_likeliest_of_one_half_and_told_on_the_other"),
    mutant("curation/calibrate.py", "before, after = reliability(second), reliability(second, found)",
           "before, after = reliability(first), reliability(first, found)", "what was fitted is what is told",
           "test_calibrate.py::test_a_temperature_is_the_likeliest_of_one_half_and_told_on_the_other"),
    mutant("curation/calibrate.py", "if after.nll >= before.nll:", "if False:", "a calibration that makes it worse is kept",
           "test_calibrate.py::test_what_is_as_good_as_it_can_be_told_to_be_stays"),
    mutant("curation/temperature.py", "return Calibration(1 / float(at[0])", "return Calibration(float(at[0])",
           "the temperature is its inverse", "test_calibrate.py::test_temperature_and_shift_are_a_logistic_regression"),
    mutant("curation/temperature.py", "sum(n * abs(sure - share)", "sum(n * (sure - share)",
           "bins of too much and too little confidence cancel out", "test_calibrate.py::test_bins_by_hand"),
    mutant("tasks/contract.py", "(odds / calibration.temperature + calibration.shift).sigmoid()",
           "((odds + calibration.shift) / calibration.temperature).sigmoid()", "the shift is divided too",
           "test_calibrate.py::test_boxes_and_pixels_are_calibrated_by_hand"),
    mutant("tasks/classification.py", "probability.double().log() / calibration.temperature)",
           "probability.double().log() * calibration.temperature)", "classes become surer instead of less sure",
           "test_calibrate.py::test_what_is_learned_is_calibrated_and_what_is_stored_is_not"),
    mutant("loading/reader.py", "answer = labels.calibrated(answer, self.policy)", "answer = answer",
           "calibrations are kept and not used", "test_calibrate.py::test_what_is_learned_is_calibrated_and_what_is_stored_is_not"),
    mutant("training/train.py", "found = labels.calibration() if policy.calibrated else None", "found = None",
           "a run goes on with another calibration",
           "test_calibrate.py::test_a_run_records_it_and_another_calibration_is_another_training"),
    mutant("loading/thresholds.py", "values[np.flatnonzero(above >= share * above[0] - 1e-9)[-1]]",
           "values[np.flatnonzero(above > share * above[0])[-1]]", "one more than the share is kept",
           "test_thresholds.py::test_the_best_share_of_boxes_of_each_class"),
    mutant("loading/thresholds.py", "if answer is None or people:", "if answer is None:",
           "people's labels take part of the share", "test_thresholds.py::test_what_people_labelled_is_no_pseudo_label_and_takes_no_share"),
    mutant("loading/thresholds.py", "least = policy.score if load_task(objective.task).by_score else 0.0",
           "least = policy.score", "images are held against --score as soon as one class has a threshold",
           "test_thresholds.py::test_images_below_their_class_are_not_learned"),
    mutant("tasks/classification.py", "if isinstance(policy, ByClass) and bool(", "if False and bool(",
           "least scores of classes do nothing to images", "test_thresholds.py::test_images_below_their_class_are_not_learned"),
    mutant("labelling/varied.py", "back = view.inverse()", "back = View(view.size, 0, 0, *view.size, view.source)",
           "mirrored answers are not mirrored back", "test_varied.py::test_classes_are_the_mean",
           "test_varied.py::test_boxes_that_only_one_view_has_are_worth_half"),
    mutant("labelling/varied.py", "checked: Target = task.check(target, (int(seen.shape[1]), int(seen.shape[2])), objective.space)",
           "checked: Target = target", "what is unfit is hidden by what is not",
           "test_varied.py::test_an_answer_that_is_unfit_in_one_view_is_no_answer"),
    mutant("labelling/team.py", 'info["views"] = asking.views', "pass", "half a label set is asked in another way",
           "test_varied.py::test_a_store_is_labelled_so_and_says_so"),
    mutant("model/backbones/_timm_checkpoint.py", "kind = 0 if words & set(AVERAGES)", "kind = 1 if words & set(AVERAGES)",
           "the last weights are taken where a file has their average",
           "test_checkpoints.py::test_what_fits_is_taken_and_said"),
    mutant("model/backbones/_timm_checkpoint.py", "(k.partition(\".\")[0] in own or k in TOKENS)", "False",
           "a deeper network is cut off without a word", "test_checkpoints.py::test_what_does_not_fit_is_said_in_one_line"),
    mutant("model/student.py", '        if "backbone" in parts:\n            self._normalise_as(about)\n', "",
           "weights of a run are shown pixels that are normalised otherwise",
           "test_starts.py::test_a_folder_of_timms_gives_weights_and_what_pixels_are_normalised_by"),
    mutant("model/backbones/_timm_weights.py", 'said = {"mean": about.mean, "std": about.std}', "said = {}",
           "what a config.json says of pixels is not used",
           "test_starts.py::test_a_folder_of_timms_gives_weights_and_what_pixels_are_normalised_by"),
    mutant("model/export.py", "pretrained_cfg\": known | seen | student.normalisation", "pretrained_cfg\": known | seen",
           "an exported backbone is shown pixels that are normalised otherwise",
           "test_export.py::test_what_pixels_are_normalised_by_goes_along"),
    mutant("model/export.py", 'given.get(made.same.get(k, ""), v)', "given.get(k, v)",
           "layers that share weights are exported as they were drawn",
           "test_export.py::test_timm_gives_the_features_of_the_run"),
)  # fmt: skip
"""In the order of the method."""


@dataclass
class Result:
    """How tests ended. code: pytest's, or LATE. failed: the first that failed. seconds: of each that ran, by its id."""

    code: int
    failed: str
    seconds: dict[str, float]
    said: str


class Recorder:
    """A pytest plugin that notes which test failed first, and how long each took."""

    def __init__(self) -> None:
        self.failed = ""
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        id = report.nodeid.removeprefix("tests/")
        self.seconds[id] = self.seconds.get(id, 0.0) + report.duration
        if report.failed and not self.failed:
            self.failed = id


def ran(folder: Path, tests: Sequence[str]) -> int:
    """In a fork: the tests on the copy in `folder`; leaves result.json there. Returns pytest's code."""
    import pytest

    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    noted = Recorder()
    # without the checks of shapes and without rewritten assertions: behaviour alone, and sooner
    options = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--assert=plain", "-o", "addopts=", "-rN"]
    options += ["--hypothesis-profile", "ci", f"--basetemp={folder / 'tmp'}"]
    code = int(pytest.main([*options, *(f"tests/{t}" for t in tests)], plugins=[noted]))
    own = Path(sys.modules["polyteach"].__file__ or "") if "polyteach" in sys.modules else folder
    if not own.is_relative_to(folder):
        raise RuntimeError(f"{own} was tested, not the copy in {folder}")
    (folder / "result.json").write_text(json.dumps(vars(noted)), encoding="utf-8")
    return code


def forked(folder: Path, tests: Sequence[str]) -> int:
    """The process id of a fork that runs the tests there, in a group of its own; what it says is in said.txt."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which wait
        pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        out = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        code = ran(folder, tests)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(pid: int, folder: Path, code: int) -> Result:
    """What the fork in `folder` left behind; its children end with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    file, said = folder / "result.json", folder / "said.txt"
    noted = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"failed": "", "seconds": {}}
    return Result(code, **noted, said=said.read_text(encoding="utf-8", errors="replace") if said.exists() else "")


Work = tuple[int, Path, Sequence[str], float]
"""Number, folder, tests and limit in seconds."""


def together(work: Iterator[Work], jobs: int) -> Iterator[tuple[int, Result]]:
    """Every piece of work in a fork, `jobs` at a time; (number, result) as they end."""
    running: dict[int, tuple[int, Path, float, float]] = {}
    while True:
        while len(running) < jobs and (piece := next(work, None)) is not None:
            number, folder, tests, limit = piece
            running[forked(folder, tests)] = (number, folder, time.monotonic(), limit)
        if not running:
            return
        pid, status = os.waitpid(-1, os.WNOHANG)
        late = [p for p, (_, _, start, limit) in running.items() if time.monotonic() - start > limit]
        if not pid and late:
            pid = late[0]
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            status = None
        if not pid:
            time.sleep(0.05)
            continue
        number, folder, _, _ = running.pop(pid)
        yield number, ended(pid, folder, LATE if status is None else os.waitstatus_to_exitcode(status))
        shutil.rmtree(folder, ignore_errors=True)


def copy(source: Path, folder: Path) -> Path:
    """What the tests need, with the byte code that is there."""
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, dirs_exist_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, folder / name)
    return folder


def baseline(clean: Path, tests: Collection[str], jobs: int, within: Path) -> dict[str, float]:
    """Seconds that every id takes on the unchanged package.

    Raises:
        SystemExit: one fails there, or is not there; says which and why.
    """
    files = sorted({t.partition("::")[0] for t in tests})
    by_file = [sorted(t for t in tests if t.partition("::")[0] == f) for f in files]
    work = ((i, copy(clean, within / f"clean-{i}"), ids, CLEAN) for i, ids in enumerate(by_file))
    seconds: dict[str, float] = {}
    for i, found in together(work, jobs):
        if found.code != PASSED:
            raise SystemExit(f"{files[i]} does not pass without any change (code {found.code}):\n{found.said[-3000:]}")
        for id in by_file[i]:
            parts = [s for t, s in found.seconds.items() if t == id or t.startswith((f"{id}[", f"{id}::"))]
            if not parts:
                raise SystemExit(f"tests/{id}: no test ran")
            seconds[id] = sum(parts)
    return seconds


def mutated(clean: Path, folder: Path, m: Mutant) -> Path:
    """A copy with the change."""
    file = copy(clean, folder) / "polyteach" / m.file
    file.write_text(file.read_text(encoding="utf-8").replace(m.old, m.new), encoding="utf-8")
    return folder


def line(m: Mutant) -> str:
    """Where the mutant is and what it changes."""
    text = (ROOT / "polyteach" / m.file).read_text(encoding="utf-8")
    return f"{m.file}:{text[: text.find(m.old)].count(chr(10)) + 1} {m.changes}"


def judged(found: Result) -> str:
    """What the table says of it."""
    if found.code == FAILED and found.failed:
        return f"killed by {found.failed}"
    if found.code == LATE:
        return "killed: its tests did not end"
    return "SURVIVED" if found.code == PASSED else f"BROKEN (code {found.code}): {found.said.strip()[-300:]}"


def main() -> None:
    """The command of the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="those with one of these texts anywhere")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    options = parser.parse_args()
    about = {m: " ".join((m.file, m.changes, *m.tests)).lower() for m in MUTANTS}
    chosen = [m for m in MUTANTS if any(text.lower() in about[m] for text in options.only)]
    table = {i: f"STALE: {why}" for i, m in enumerate(chosen) if (why := m.stale(ROOT / "polyteach"))}
    if options.list:
        for i, m in enumerate(chosen):
            print(table.get(i) or line(m), *m.tests, sep="\n    ")
        raise SystemExit(bool(table))
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    sys.path[:] = [p for p in sys.path if p != str(ROOT / "tests")]
    for name in LIBRARIES:
        importlib.import_module(name)
    if any(name.partition(".")[0] == "polyteach" for name in sys.modules):
        raise SystemExit("a library has imported polyteach, so no copy of it can be tested")
    alive = [i for i in range(len(chosen)) if i not in table]
    with tempfile.TemporaryDirectory(prefix="mutants") as given:
        within = Path(given).resolve()
        clean = copy(ROOT, within / "clean")
        compileall.compile_dir(clean, quiet=2)  # byte code that all copies take along
        seconds = baseline(clean, {t for i in alive for t in chosen[i].tests}, options.jobs, within)
        print(f"{len(seconds)} tests pass without a change, in {sum(seconds.values()):.0f} s", file=sys.stderr)
        limits = {i: max(LEAST, TIMES * sum(seconds[t] for t in chosen[i].tests)) for i in alive}
        work = ((i, mutated(clean, within / f"{i}", chosen[i]), chosen[i].tests, limits[i]) for i in alive)
        for i, found in together(work, options.jobs):
            table[i] = judged(found)
            print(f"{len(table)}/{len(chosen)} {line(chosen[i])}: {table[i]}", file=sys.stderr, flush=True)
    for i, m in enumerate(chosen):
        print(f"{line(m)}\n    {table[i]}")
    counts = [sum(t.startswith(w) for t in table.values()) for w in ("killed", "SURVIVED", "STALE", "BROKEN")]
    print("{} mutants: {} killed, {} survived, {} stale, {} broken".format(len(chosen), *counts))
    raise SystemExit(counts[0] < len(chosen))


if __name__ == "__main__":
    main()
