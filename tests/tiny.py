"""Tiny models with random weights, one of every class of transformers' Auto tables, with a small image processor.

What is not said here of a class is the library's default, and what a class of a newer release needs is unknown: `tiny`
then fails, and the class is untested (`benchmarks/models.py` says so in its table).
"""

import copy
import inspect

import torch
import transformers
from torch import nn
from transformers.models.auto import image_processing_auto, modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SIDE = 64
"""Height and width of what the models see."""
TABLES = {
    "image classification": "IMAGE_CLASSIFICATION",
    "object detection": "OBJECT_DETECTION",
    "semantic segmentation": "SEMANTIC_SEGMENTATION",
    "universal segmentation": "UNIVERSAL_SEGMENTATION",
    "instance segmentation": "INSTANCE_SEGMENTATION",
    "depth estimation": "DEPTH_ESTIMATION",
    "normal estimation": "NORMAL_ESTIMATION",
    "zero-shot object detection": "ZERO_SHOT_OBJECT_DETECTION",
    "zero-shot image classification": "ZERO_SHOT_IMAGE_CLASSIFICATION",
}
"""What is asked about -> the middle of the name of the library's table."""
GENERAL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": SIDE,
    "patch_size": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "num_queries": 6,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16, "embed_dim": 8,
    "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1],
}  # fmt: skip
"""Sizes that most configurations have under these names."""
_VIT = {k: GENERAL[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
_SEES = {**_VIT, "image_size": SIDE, "patch_size": 16}
_TEXT = {
    **_VIT,
    "vocab_size": 64,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}  # fmt: skip
_DETR = {"backbone_config": {**_RESNET, "out_features": ["stage4"]}, "use_timm_backbone": False, "d_model": 16}
_ALL_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_HGNET = {
    "model_type": "hgnet_v2", "stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 8, 8], "embedding_size": 8,
    "stage_mid_channels": [8, 8, 8, 8], "stage_out_channels": [8, 8, 8, 8], "hidden_sizes": [8, 8, 8, 8],
    "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [1, 1, 1, 1], "depths": [1, 1, 1, 1],
}  # fmt: skip
_RT_DETR = {
    "encoder_hidden_dim": 16, "encoder_in_channels": [8, 8, 8], "decoder_in_channels": [16, 16, 16], "num_queries": 8,
    "d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_layers": 2,
    "decoder_attention_heads": 2, "num_denoising": 0, "decoder_n_points": 2,
}  # fmt: skip
_RT_RESNET = {**_RESNET, "model_type": "rt_detr_resnet", "out_features": ["stage2", "stage3", "stage4"]}
_HG = {**_HGNET, "out_features": ["stage2", "stage3", "stage4"]}
_DINO = {
    **_VIT, "num_hidden_layers": 4, "mlp_ratio": 2, "image_size": 56, "patch_size": 14, "model_type": "dinov2",
    "out_features": _ALL_STAGES, "reshape_hidden_states": False,
}  # fmt: skip
_DEPTH_ANYTHING = {
    "backbone_config": _DINO, "reassemble_hidden_size": 16, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8,
    "head_hidden_size": 8, "patch_size": 14,
}  # fmt: skip
_PYRAMID = {
    "hidden_sizes": [8, 8, 8, 8], "num_attention_heads": [1, 1, 1, 1], "depths": [1, 1, 1, 1],
    "mlp_ratios": [2, 2, 2, 2], "decoder_hidden_size": 16,
}  # fmt: skip
_SWIN = {"window_size": 4, "patch_size": 4, "image_size": SIDE, "embed_dim": 8}
_QUERIES = {
    "backbone_config": {
        **_SWIN, "model_type": "swin", "depths": [1] * 4, "num_heads": [1] * 4, "out_features": _ALL_STAGES,
    },
    "hidden_dim": 32, "encoder_feedforward_dim": 16, "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2,
    "dim_feedforward": 16, "num_queries": 5,
}  # fmt: skip
_DPT = {
    **_SEES, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8, "is_hybrid": False,
}  # fmt: skip
_BEIT = {
    **_SEES, "num_hidden_layers": 4, "out_indices": [1, 2, 3, 4], "auxiliary_channels": 8,
    "reshape_hidden_states": True,
}  # fmt: skip
_EOMT = {**_SEES, "num_blocks": 1, "num_queries": 5, "num_upscale_blocks": 1, "num_register_tokens": 1}
_RF = {
    "backbone_config": {
        **_VIT, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": 16, "num_register_tokens": 0,
        "model_type": "rf_detr_dinov2", "out_features": ["stage2", "stage4"], "num_windows": 1,
    },
    "d_model": 16, "decoder_layers": 2, "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2,
    "num_queries": 8, "group_detr": 1, "decoder_ffn_dim": 16, "decoder_n_points": 2,
}  # fmt: skip
OWN = {
    "clip": {"vision_config": _SEES, "text_config": _TEXT},
    "metaclip_2": {"vision_config": _SEES, "text_config": _TEXT},
    "siglip": {"vision_config": _SEES, "text_config": _TEXT},
    "siglip2": {"vision_config": {**_VIT, "patch_size": 16, "num_patches": 16}, "text_config": _TEXT},
    "convnext": {"patch_size": 4, "hidden_sizes": [8] * 4},
    "convnextv2": {"patch_size": 4, "hidden_sizes": [8] * 4},
    "bit": {"hidden_sizes": [32] * 4, "embedding_size": 32, "num_groups": 4},
    "cvt": {"embed_dim": [8, 8, 8], "num_heads": [1, 1, 1], "depth": [1, 2, 3]},
    "donut-swin": _SWIN | {"depths": [1, 1], "num_heads": [1, 1]},
    "swin": _SWIN | {"depths": [1, 1], "num_heads": [1, 1]},
    "swinv2": _SWIN,
    "efficientnet": {"num_block_repeats": [1] * 7, "hidden_dim": 256, "width_coefficient": 0.2},
    "hgnet_v2": _HGNET,
    "hiera": {"image_size": [SIDE, SIDE], "patch_size": [7, 7], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
    "imagegpt": {"n_embd": 16, "n_layer": 1, "n_head": 2},
    "levit": {"hidden_sizes": [16] * 3, "num_attention_heads": [1, 1, 1], "depths": [1, 1, 1], "key_dim": [8, 8, 8]},
    "mobilevit": {"patch_size": 2, "hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [8] * 7},
    "mobilevitv2": {"patch_size": 2, "width_multiplier": 0.25},
    "perceiver": {
        "num_latents": 8, "d_latents": 16, "num_self_attends_per_block": 1, "num_self_attention_heads": 1,
        "num_cross_attention_heads": 1,
    },
    "poolformer": {"hidden_sizes": [8] * 4, "patch_size": 16},
    "pvt": {**_PYRAMID, "num_labels": 3, "sequence_reduction_ratios": [8, 4, 2, 1]},
    "pvt_v2": _PYRAMID,
    "regnet": {"hidden_sizes": [8] * 4, "embedding_size": 8, "groups_width": 8},
    "resnet": {"hidden_sizes": [8] * 4, "embedding_size": 8, "layer_type": "basic"},
    "segformer": _PYRAMID,
    "shieldgemma2": {
        "vision_config": {**_SEES, "vision_use_head": False},
        "text_config": {**_VIT, "vocab_size": 300, "head_dim": 8, "num_key_value_heads": 1},
        "boi_token_index": 297, "eoi_token_index": 298, "image_token_index": 299, "mm_tokens_per_image": 4,
    },
    "timm_wrapper": {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, SIDE, SIDE]}},
    "conditional_detr": _DETR,
    "dab-detr": {**_DETR, "hidden_size": 16},
    "detr": _DETR,
    "table-transformer": _DETR,
    "deformable_detr": {
        **_DETR, "backbone_config": {**_RESNET, "out_features": _ALL_STAGES[1:]}, "d_model": 64,
        "num_feature_levels": 4,
    },
    "d_fine": {**_RT_DETR, "backbone_config": _HG},
    "deimv2": {**_RT_DETR, "backbone_config": _HG},
    "rt_detr": {**_RT_DETR, "backbone_config": _RT_RESNET},
    "rt_detr_v2": {**_RT_DETR, "backbone_config": _RT_RESNET},
    "lw_detr": {
        "backbone_config": {
            **_VIT, "num_hidden_layers": 4, "image_size": SIDE, "patch_size": 16, "model_type": "lw_detr_vit",
            "out_indices": [2, 4], "window_block_indices": [0, 2], "num_windows": 4,
        },
        "d_model": 16, "decoder_layers": 2, "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2,
        "num_queries": 8, "group_detr": 1, "decoder_ffn_dim": 16, "decoder_n_points": 2,
        "projector_scale_factors": [1.0], "c2f_num_blocks": 1, "projector_out_channels": 16,
    },
    "pp_doclayout_v2": {
        **_RT_DETR, "backbone_config": _HG, "class_thresholds": [0.1] * 3, "class_order": [0, 1, 2],
        "reading_order_config": {**_VIT, "vocab_size": 64, "max_position_embeddings": 64},
    },
    "pp_doclayout_v3": {**_RT_DETR, "backbone_config": {**_HGNET, "out_features": _ALL_STAGES}, "x4_feat_dim": 8},
    "pp_doclayout_v4": {**_RT_DETR, "backbone_config": _HG, "hidden_size": 16},
    "pp_ocrv5_server_det": {
        "backbone_config": {**_HGNET, "out_features": _ALL_STAGES}, "neck_out_channels": 16, "kernel_list": [3, 2, 2],
        "intraclass_block_number": 0,
    },
    "pp_ocrv6_medium_det": {"kernel_list": [3, 2, 2], "intraclass_block_number": 0},
    "rf_detr": _RF,
    "yolos": {"image_size": [SIDE, SIDE], "num_detection_tokens": 8},
    "beit": _BEIT,
    "data2vec-vision": _BEIT,
    "dpt": _DPT,
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "sapiens2": {
        **_SEES, "num_register_tokens": 1, "num_first_full_attention_layers": 1, "num_last_full_attention_layers": 1,
        "num_key_value_attention_heads": 2,
        "head_config": {"upsample_out_channels": [8, 8, 8, 8], "conv_out_channels": [8]},
    },
    "upernet": {
        "backbone_config": {**_RESNET, "out_features": _ALL_STAGES}, "hidden_size": 16, "auxiliary_channels": 8,
    },
    "tipsv2_dpt": {
        "backbone_config": {
            **_VIT, "num_hidden_layers": 4, "image_size": 56, "patch_size": 14, "model_type": "tipsv2_vision_model",
            "out_indices": [1, 2, 3, 4], "apply_layernorm": True, "reshape_hidden_states": False,
        },
        "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "num_depth_bins": 8,
    },
    "eomt": {**_EOMT, "mlp_ratio": 2},
    "eomt_dinov3": _EOMT,
    "videomt": {**_EOMT, "mlp_ratio": 2},
    "mask2former": {**_QUERIES, "feature_size": 32, "mask_feature_size": 32},
    "maskformer": {
        "backbone_config": {**_RESNET, "out_features": _ALL_STAGES}, "fpn_feature_size": 32, "mask_feature_size": 32,
        "decoder_config": {**_DETR, "d_model": 32, "model_type": "detr", "num_queries": 6, "decoder_layers": 2},
    },
    "oneformer": {
        **_QUERIES, "conv_dim": 32, "mask_dim": 32, "text_encoder_width": 16, "text_encoder_num_layers": 1,
        "text_encoder_vocab_size": 64, "task_seq_len": 16, "text_encoder_context_length": 16, "query_dec_layers": 1,
    },
    "chmv2": {
        "backbone_config": {
            **_SEES, "num_hidden_layers": 4, "model_type": "dinov3_vit", "out_indices": [1, 2, 3, 4],
            "num_register_tokens": 1, "reshape_hidden_states": True, "apply_layernorm": True,
            "return_class_token": True,
        },
        "post_process_channels": [8, 8, 8, 8], "fusion_hidden_size": 8, "head_hidden_size": 8,
        "number_output_channels": 8,
    },
    "depth_anything": _DEPTH_ANYTHING,
    "prompt_depth_anything": _DEPTH_ANYTHING,
    "depth_pro": {
        "patch_size": 32, "fusion_hidden_size": 8, "intermediate_hook_ids": [1, 0], "intermediate_feature_dims": [8, 8],
        "scaled_images_feature_dims": [8, 8, 8], "num_fov_head_layers": 0,
        **{
            f"{x}_model_config": {**_DINO, "image_size": 32, "patch_size": 8, "out_features": ["stage4"]}
            for x in ("image", "patch", "fov")
        },
    },
    "glpn": _PYRAMID,
    "zoedepth": {
        "backbone_config": {**_BEIT, "model_type": "beit", "reshape_hidden_states": False}, "fusion_hidden_size": 8,
        "neck_hidden_sizes": [8, 8, 8, 8], "bottleneck_features": 8, "bin_embedding_dim": 8, "num_relative_features": 4,
    },
}  # fmt: skip
"""Sizes of a configuration, by model_type, that are not the general ones."""
BY_CLASS = {
    "DetrForSegmentation": {"d_model": 32, "encoder_attention_heads": 8, "decoder_attention_heads": 8,
                            "backbone_config": {**_RESNET, "out_features": _ALL_STAGES}},
    "Sapiens2ForNormalEstimation": {"num_labels": 3},
}  # fmt: skip
"""Further ones, by class."""
SEEN = {
    "depth_anything": {"size": {"height": 56, "width": 56}, "ensure_multiple_of": 14},
    "prompt_depth_anything": {"size": {"height": 56, "width": 56}, "ensure_multiple_of": 14},
    "tipsv2_dpt": {"size": {"height": 56, "width": 56}},
    "eomt": {"size": {"shortest_edge": SIDE, "longest_edge": SIDE}, "do_pad": True},
    "eomt_dinov3": {"size": {"shortest_edge": SIDE, "longest_edge": SIDE}, "do_pad": True},
    "detr": {"size": {"shortest_edge": 48, "longest_edge": 96}},
    "oneformer": {"size": {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}},
    "maskformer": {"size": {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}, "size_divisor": 32},
    "mask2former": {"size": {"height": SIDE, "width": SIDE}, "size_divisor": 32},
    "depth_pro": {"size": {"height": 128, "width": 128}},
    "siglip2": {"max_num_patches": 16, "patch_size": 16},
    "convnext": {"size": {"shortest_edge": SIDE}},
    "convnextv2": {"size": {"shortest_edge": SIDE}},
    "cvt": {"size": {"shortest_edge": SIDE}},
    "regnet": {"size": {"shortest_edge": SIDE}},
    "resnet": {"size": {"shortest_edge": SIDE}},
    "textnet": {"size": {"shortest_edge": SIDE}, "size_divisor": 32},
    "imagegpt": {"clusters": [[x, x, x] for x in (-1.0, 0.0, 1.0)], "size": {"height": 8, "width": 8}},
    "timm_wrapper": {"pretrained_cfg": {"input_size": [3, SIDE, SIDE]}, "architecture": "test_resnet"},
}  # fmt: skip
"""What a processor does, by model_type, that is not resizing to `SIDE` both ways."""

BORROWED = {
    "d_fine": "RTDetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
    "dab-detr": "ConditionalDetrImageProcessor",
    "dinov2_with_registers": "BitImageProcessor",
    "hgnet_v2": "ViTImageProcessor",
}
"""Processors of published models of a model_type with which the library pairs none."""


def names(count):
    """Class names for a configuration."""
    return {"id2label": {i: f"class {i}" for i in range(count)}, "label2id": {f"class {i}": i for i in range(count)}}


def architectures():
    """What is asked about, model_type and class, for every row of the library's Auto tables."""
    for task, table in TABLES.items():
        for kind, found in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES", {}).items():
            for name in (found,) if isinstance(found, str) else found:
                yield task, kind, name


def configuration(kind, name, **more):
    """A tiny configuration of a model_type for a class of that name."""
    made = CONFIG_MAPPING[kind]
    fields = set(getattr(made, "__dataclass_fields__", {})) | set(inspect.signature(made.__init__).parameters)
    said = {k: v for k, v in GENERAL.items() if k in fields} | names(3) | OWN.get(kind, {}) | BY_CLASS.get(name, {})
    return made(**copy.deepcopy(said | more))


def processor(kind, **more):
    """A small image processor, of the class that the library pairs with a model_type."""
    found = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(kind, {})
    made = getattr(transformers, BORROWED.get(kind) or found.get("torchvision") or found["pil"])
    said = SEEN.get(kind, {"size": {"height": SIDE, "width": SIDE}})
    crop = {"crop_size": {"height": SIDE, "width": SIDE}} if getattr(made, "crop_size", None) else {}
    return made(**crop | said | more)


def words(length=16):
    """A tokenizer of letters for OneFormer, as CLIP's, whose every word is cut into them."""
    letters = [chr(x) for x in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


def kept(folder, model, *parts):
    """The folder with all of it, as save_pretrained writes it."""
    for part in (model, *parts):
        part.save_pretrained(folder)
    return str(folder)


def tiny(kind, name, **more):
    """The model and what its folder holds beside it: an image processor, and a tokenizer where it is told words.

    more: of the configuration.
    """
    torch.manual_seed(0)
    model = lively(getattr(transformers, name)(configuration(kind, name, **more)))
    if kind == "depth_pro":  # answers 1 over this, which is near 0 as it was drawn
        torch.nn.init.constant_(model.head.layers[4].bias, 50.0)
    if kind == "videomt":
        return model, transformers.VideomtVideoProcessor()
    return model, processor(kind), *([words()] if kind == "oneformer" else [])


def lively(model, seed=0):
    """Random weights that make a model's answers depend on its input: as drawn, most are flat."""
    draw = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.dim() > 1:
            with torch.no_grad():
                fan = p[0].numel()
                p.copy_(torch.randn(p.shape, generator=draw) * (2 / fan) ** 0.5)
        elif "bias" in name:
            nn.init.zeros_(p)
    return model.eval()
