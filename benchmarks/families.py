"""The families of image classifiers that `compatibility.py` asks about: one small member of each."""

from collections.abc import Callable
from dataclasses import dataclass

import transformers
from transformers import PreTrainedModel

from clp_hf.modeling import load_image_classifier

NUM_LABELS = 3


@dataclass(frozen=True)
class Family:
    """One small member of a family.

    Attributes:
        library: timm or transformers.
        architecture: the name there.
        size: of its square images, in pixels.
        build: gives it with random weights.
    """

    library: str
    architecture: str
    size: int
    build: Callable[[], PreTrainedModel]


def _timm(architecture: str, size: int = 64, **model_args) -> Family:
    def build():
        return load_image_classifier(
            architecture, num_labels=NUM_LABELS, pretrained=False, image_size=size, model_args=model_args
        )

    return Family("timm", architecture, size, build)


def _fixed(architecture: str, size: int = 64, **model_args) -> Family:
    """An architecture that is built for one image size."""
    return _timm(architecture, size, img_size=size, **model_args)


def _transformers(name: str, size: int = 32, suffix: str = "", **config) -> Family:
    architecture = f"{name}ForImageClassification{suffix}"

    def build():
        model_class = getattr(transformers, architecture)
        return model_class(model_class.config_class(num_labels=NUM_LABELS, **config))

    return Family("transformers", architecture, size, build)


WINDOWS = {"window_size": 4, "embed_dim": 24, "depths": [1, 1, 1, 1]}
VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PATCHES = {**ENCODER, "image_size": 32, "patch_size": 8}

FAMILIES = {
    # the modules of timm
    "beit": _fixed("beit_base_patch16_224", **VIT),
    "byoanet": _timm("lambda_resnet26t"),
    "byobnet": _timm("test_byobnet"),
    "cait": _fixed("cait_xxs24_224", depth=2),
    "coat": _fixed("coat_lite_tiny"),
    "convit": _fixed("convit_tiny", depth=3, local_up_to_layer=2),
    "convmixer": _timm("convmixer_768_32"),
    "convnext": _timm("test_convnext"),
    "cpubone": _timm("cpubone_nano"),
    "crossvit": _fixed("crossvit_tiny_240", 240),
    "csatv2": _timm("csatv2", 128),
    "cspnet": _timm("cs3darknet_s"),
    "cspnext": _timm("cspnext_tiny"),
    "davit": _timm("davit_tiny", depths=[1, 1, 1, 1], embed_dims=[16, 32, 64, 64], num_heads=[1, 2, 4, 4]),
    "deit": _fixed("deit3_small_patch16_224", **VIT),
    "deit_distilled": _fixed("deit_tiny_distilled_patch16_224", **VIT),
    "densenet": _timm("densenet121", growth_rate=8, block_config=[2, 2]),
    "dla": _timm("dla46_c"),
    "dpn": _timm("dpn48b"),
    "edgenext": _timm("edgenext_xx_small"),
    "efficientformer": _timm("efficientformer_l1", 224),
    "efficientformer_v2": _fixed("efficientformerv2_s0"),
    "efficientnet": _timm("test_efficientnet"),
    "efficientvim": _timm("efficientvim_m1"),
    "efficientvit_mit": _timm("efficientvit_b0"),
    "efficientvit_msra": _fixed("efficientvit_m0"),
    "eva": _fixed("eva02_tiny_patch14_224", 56, depth=2),
    "fasternet": _timm("fasternet_t0"),
    "fastvit": _timm("fastvit_t8"),
    "focalnet": _timm("focalnet_tiny_srf"),
    "gcvit": _fixed("gcvit_xxtiny"),
    "ghostnet": _timm("ghostnet_050"),
    "hardcorenas": _timm("hardcorenas_a", 128),
    "hgnet": _timm("hgnetv2_b0"),
    "hiera": _fixed("hiera_tiny_224", stages=[1, 1, 1, 1], embed_dim=24),
    "hieradet_sam2": _timm("hieradet_small", 128),
    "hrnet": _timm("hrnet_w18_small"),
    "iformer": _timm("iformer_t"),
    "inception_next": _timm("inception_next_atto"),
    "inception_resnet_v2": _timm("inception_resnet_v2", 96),
    "inception_v3": _timm("inception_v3", 80),
    "inception_v4": _timm("inception_v4", 96),
    "lcnetv2": _timm("lcnetv2_small"),
    "levit": _fixed("levit_128s"),
    "lowformer": _timm("lowformer_b0"),
    "mambaout": _timm("test_mambaout"),
    "maxxvit": _fixed("test_maxvit"),
    "metaformer": _timm("poolformer_s12"),
    "mlp_mixer": _fixed("gmlp_ti16_224"),
    "mobilenetv3": _timm("mobilenetv3_small_050"),
    "mobilenetv5": _timm("mobilenetv5_base"),
    "mobilevit": _timm("mobilevit_xxs"),
    "mvitv2": _fixed("mvitv2_tiny"),
    "naflexvit": _timm("naflexvit_base_patch16_gap", **VIT),
    "nest": _fixed("nest_tiny"),
    "nextvit": _timm("nextvit_small"),
    "nfnet": _timm("test_nfnet"),
    "pit": _fixed("pit_ti_224", depth=[1, 1, 1]),
    "pvt_v2": _timm("pvt_v2_b0"),
    "rdnet": _timm("rdnet_tiny"),
    "regnet": _timm("regnetx_002"),
    "repghost": _timm("repghostnet_050", 128),
    "repvit": _timm("repvit_m0_9"),
    "res2net": _timm("res2net50_48w_2s", layers=[1, 1, 1, 1]),
    "resnest": _timm("resnest14d"),
    "resnet": _timm("resnet10t"),
    "resnetv2": _timm("resnetv2_18"),
    "rexnet": _timm("rexnetr_100"),
    "selecsls": _timm("selecsls42"),
    "senet": _timm("legacy_seresnet18"),
    "sequencer": _timm("sequencer2d_s", layers=[1, 1, 1, 1], embed_dims=[24, 48, 48, 48], hidden_sizes=[6, 12, 12, 12]),
    "shvit": _timm("shvit_s1"),
    "sknet": _timm("skresnet18"),
    "starnet": _timm("starnet_s050"),
    "swiftformer": _timm("swiftformer_xs"),
    "swin_transformer": _fixed("swin_tiny_patch4_window7_224", **WINDOWS),
    "swin_transformer_v2": _fixed("swinv2_tiny_window8_256", **WINDOWS),
    "swin_transformer_v2_cr": _fixed("swinv2_cr_tiny_224", **WINDOWS),
    "tiny_vit": _timm("tiny_vit_5m_224"),
    "tnt": _fixed("tnt_s_patch16_224", depth=2),
    "tresnet": _timm("tresnet_m"),
    "twins": _fixed("twins_pcpvt_small", depths=[1, 1, 1, 1]),
    "vgg": _timm("vgg11", mlp_ratio=0.03125),
    "visformer": _fixed("visformer_tiny", depth=[1, 1, 1]),
    "vision_transformer": _fixed("test_vit"),
    "vision_transformer_hybrid": _fixed("vit_tiny_r_s16_p8_224", depth=2),
    "vision_transformer_relpos": _fixed("test_vit_relpos"),
    "vision_transformer_sam": _fixed("samvit_base_patch16_224", **VIT, global_attn_indexes=[1]),
    "vitamin": _fixed("vitamin_small_224"),
    "volo": _fixed("volo_d1_224"),
    "vovnet": _timm("ese_vovnet19b_slim"),
    "xception": _timm("legacy_xception", 96),
    "xception_aligned": _timm("xception41", 96),
    "xcit": _fixed("xcit_nano_12_p16_224", depth=2),
    # transformers
    "Beit": _transformers("Beit", **PATCHES, drop_path_rate=0.2),
    "Bit": _transformers("Bit", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_groups=8),
    "CLIP": _transformers("CLIP", vision_config={**PATCHES}),
    "ConvNext": _transformers("ConvNext", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]),
    "ConvNextV2": _transformers("ConvNextV2", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]),
    "Cvt": _transformers("Cvt", embed_dim=[16, 32, 48], num_heads=[1, 2, 3], depth=[1, 2, 3]),
    "Data2VecVision": _transformers("Data2VecVision", **PATCHES),
    "DeiT": _transformers("DeiT", **PATCHES),
    "DeiTWithTeacher": _transformers("DeiT", suffix="WithTeacher", **PATCHES),
    "Dinov2": _transformers("Dinov2", **PATCHES),
    "Dinov2WithRegisters": _transformers("Dinov2WithRegisters", **PATCHES),
    "DonutSwin": _transformers(
        "DonutSwin", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "EfficientNet": _transformers("EfficientNet", 64, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    "FocalNet": _transformers(
        "FocalNet", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3]
    ),
    "HGNetV2": _transformers("HGNetV2", 64),
    "Hiera": _transformers(
        "Hiera",
        64,
        image_size=[64, 64],
        embed_dim=16,
        depths=[1, 1, 1],
        num_heads=[1, 2, 4],
        masked_unit_size=[4, 4],
        num_query_pool=2,
    ),
    "IJepa": _transformers("IJepa", **PATCHES),
    "ImageGPT": _transformers("ImageGPT", n_embd=32, n_layer=2, n_head=2),
    "Levit": _transformers(
        "Levit",
        64,
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[1, 2, 3],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    "LevitWithTeacher": _transformers(
        "Levit",
        64,
        suffix="WithTeacher",
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[1, 2, 3],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    "MobileNetV1": _transformers("MobileNetV1", depth_multiplier=0.25, min_depth=4),
    "MobileNetV2": _transformers("MobileNetV2", depth_multiplier=0.25, min_depth=4),
    "MobileViT": _transformers(
        "MobileViT", 64, image_size=64, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 80]
    ),
    "MobileViTV2": _transformers("MobileViTV2", 64, image_size=64, width_multiplier=0.25),
    "PoolFormer": _transformers("PoolFormer", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "PPLCNet": _transformers("PPLCNet", 64, scale=0.25),
    "Pvt": _transformers(
        "Pvt", 64, image_size=64, hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]
    ),
    "PvtV2": _transformers(
        "PvtV2", 64, image_size=64, hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]
    ),
    "RegNet": _transformers(
        "RegNet", embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], groups_width=8
    ),
    "ResNet": _transformers("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
    "Segformer": _transformers(
        "Segformer", 64, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]
    ),
    "Siglip": _transformers("Siglip", vision_config=PATCHES),
    "SwiftFormer": _transformers("SwiftFormer", 64, image_size=64, embed_dims=[16, 24, 32, 40], depths=[1, 1, 1, 1]),
    "Swin": _transformers(
        "Swin", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "Swinv2": _transformers(
        "Swinv2", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "TextNet": _transformers("TextNet", 64),
    "ViT": _transformers("ViT", **PATCHES),
    "ViTMSN": _transformers("ViTMSN", **PATCHES),
}
