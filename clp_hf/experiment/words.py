"""What help and messages say of options beside their own texts: groups, a few words each, and what others call them.

Nothing is imported here: help waits for no torch. An option that stands nowhere here is listed with the first sentence
of its own help, in the group of its dataclass.
"""

from typing import NamedTuple


class Group(NamedTuple):
    """The options of a group that `--help` explains, and those that it only names."""

    shown: tuple[str, ...]
    named: tuple[str, ...] = ()


GROUPS = {
    "method": Group(
        ("method", "preset", "compare", "on"),
        (
            "stage_options",
            "train_sampling", "train_sampling_options", "training_loss", "training_loss_options", "meta_network",
            "train_infills", "train_infill_share", "lr_decay_at", "on_nonfinite", "overwrite_output_dir", "verbose",
        ),
    ),
    "data": Group(
        (
            "dataset_name", "label_column", "attribute_column", "mask_column", "class_names", "image_size",
            "meta_samples", "meta_split", "groups",
        ),
        (
            "dataset_config_name", "dataset_revision", "train_split", "validation_split", "test_split",
            "validation_fraction",
            "max_train_samples", "image_column", "group_column", "mask_value", "box_column", "box_format",
            "attribute_names", "crop_scale", "crop_padding", "rand_augment", "train_boxes", "meta_images",
            "meta_clusters",
            "meta_cluster_model", "meta_boxes", "meta_batch_size", "meta_in_training_mode", "groups_per_class",
            "validation_images",
        ),
    ),
    "model": Group(("model_name_or_path", "pretrained"), ("freeze_batch_norm", "attribution")),
    "causal images": Group(
        ("counterfactual_infills", "factual_infills"),
        (
            "mask_shape", "factual_mask_shape", "augmented_copies", "fgsm_epsilon", "inpainting_model",
            "saliency_weight", "saliency_batch_size",
        ),
    ),
    "perturbation": Group(
        ("evidence", "perturbed_logits", "perturbation_learning_rate"),
        (
            "perturbation_bound", "class_prior", "condition_on_label", "characteristics", "evidence_every",
            "evidence_network",
            "perturbation_hidden_size", "perturbation_activation", "perturbation_optim", "perturbation_weight_decay",
            "perturbation_follows_schedule", "perturbation_start",
        ),
    ),
    "look-ahead": Group(
        ("lookahead", "lookahead_scope", "meta_every"),
        (
            "reuse_gradient", "lookahead_memory", "lookahead_ridge", "hypergradient",
            "recompute_training_forward", "perturb_meta_logits",
        ),
    ),
    "training": Group(
        (
            "num_train_epochs", "per_device_train_batch_size", "learning_rate", "seed", "metric_for_best_model",
            "resume_from_checkpoint",
        ),
    ),
    "output and hub": Group(
        ("output_dir", "push_to_hub", "hub_model_id", "report_to"),
        ("token", "revision", "cache_dir", "trust_remote_code", "feature_cache"),
    ),
}  # fmt: skip
# The group of what stands in none, by dataclass; of all others it is what the command is called.
HOMES = {
    "DataArguments": "data", "Columns": "data", "ModelArguments": "model", "MethodArguments": "method",
    "CLPTrainingArguments": "method", "PerturbationArguments": "perturbation",
}  # fmt: skip

# A line of `--help`, where the first sentence of the option's own help would be more than that.
SHORT = {
    "compare": "Train with ERM too, side by side.",
    "stage_options": "Of a method of two stages, as JSON.",
    "train_sampling": "How training images are drawn.",
    "dataset_name": "A folder, a Hub name, a parquet file.",
    "label_column": "By default label or fine_label.",
    "attribute_column": "What may mislead; by default place, background …",
    "mask_column": "Causal masks; by default mask.",
    "class_names": "Of integer labels, in their order.",
    "meta_samples": "Images of every group (or class) in the meta set.",
    "meta_split": "What the meta set is taken out of.",
    "groups": "Find groups inside the classes first, and go by these.",
    "model_name_or_path": "A folder, a Hub or timm name.",
    "pretrained": "From pretrained weights.",
    "counterfactual_infills": 'What fills the foreground, label "not y"; or none.',
    "factual_infills": "What fills the background, label y; or none.",
    "evidence": "What else tells the label; or none.",
    "perturbed_logits": "Which logits of a sample it changes.",
    "perturbation_learning_rate": "η₂, of the perturbation network.",
    "lookahead": "What the meta loss is measured after.",
    "lookahead_scope": "What takes that step.",
    "meta_every": "Look ahead at every k-th step; 0: never.",
    "num_train_epochs": "Epochs.",
    "per_device_train_batch_size": "Images a step and device.",
    "learning_rate": "Of the classifier.",
    "seed": "Of head, meta set, order and draws.",
    "metric_for_best_model": "What chooses the checkpoint.",
    "resume_from_checkpoint": "last, or a checkpoint's folder.",
    "output_dir": "Where everything is written.",
    "push_to_hub": "Publish it when trained.",
    "hub_model_id": "Its name there, me/my-birds.",
    "report_to": "Where the log goes too: wandb, tensorboard …",
}

# What each value of an option is, in a few words.
CHOICES = {
    "method": {
        "clp": "perturbs the training logits",
        "meta_lp": "clp without causal images",
        "meta_weight_net": "weights the samples",
        "l2rw": "weights the samples of each batch",
        "meta_saug": "a long tail, augments features",
        "mfrw_mes": "weights features and classes",
        "erm": "the plain classifier",
        "background_swap": "other backgrounds, by masks of all images",
        "group_reweighting": "all groups equally often",
        "group_dro": "groups by their loss",
        "lisa": "mixes groups",
        "subg": "as many of every group",
        "pde": "groups alike at first, then ever more images",
        "irm": "one head for all environments",
        "ib_irm": "irm, and narrow features",
        "v_rex": "risks alike",
        "coral": "covariances alike",
        "domain_mix": "mixes environments",
        "focal": "hard samples count more",
        "generalised_cross_entropy": "wrong labels",
        "nce_rce": "wrong labels",
        "nce_mae": "wrong labels",
        "l_dmi": "wrong labels",
        "mentor_net": "wrong labels, whose loss is large",
        "co_teaching": "wrong labels, by two networks",
        "jocor": "wrong labels, by two networks that agree",
        "lff": "what a second network fails at counts more",
        "isda": "augments features",
        "class_balanced": "a long tail",
        "class_balanced_focal": "a long tail",
        "ldam": "a long tail",
        "ldam_drw": "a long tail",
        "logit_adjustment": "a long tail",
        "balanced_softmax": "a long tail",
        "cosine": "of cosines, a long tail",
        "crt": "then a new head, classes alike",
        "lws": "then the head scaled, classes alike",
        "tde": "then the head without the mean feature",
        "self": "then the head on what it disagrees about",
        "class_balanced_fine_tuning": "a long tail",
        "ala": "a long tail",
        "lpl": "a long tail",
        "risda": "a long tail",
        "csa": "a long tail, in borrowed contexts",
        "hsfm": "edits features for the hardest images",
        "dfr": "trains on as many images of every group",
        "gsr": "weights the training images by groups",
        "afr": "trains on what it is unsure of",
        "jtt": "trains on what a first one gets wrong",
        "eiil": "group_dro of inferred environments",
        "george": "group_dro of clusters",
        "cnc": "contrasts what a first one mistakes",
        "logit_correction": "by what a biased one predicts",
        "ifl": "rare attributes, by what a first one doubts",
        "ssa": "group_dro of groups spread from the meta set",
        "glc": "wrong labels, by the meta set's clean ones",
        "regression": "classes, or groups, count alike",
    },
    "train_sampling": {
        "random": "each once an epoch",
        "class": "classes equally often",
        "group": "groups equally often",
        "group_subset": "as many of every group",
        "weight": "as a first stage has it",
        "class_late": "classes in the end",
        "expanding": "groups at first, then ever more",
        "environments": "random and weight in turn",
    },
    "meta_split": {"validation": "it has clean labels", "train": "validation stays whole"},
    "counterfactual_infills": {
        "grey": "0.5",
        "random": "noise",
        "shuffle": "its pixels permuted",
        "tile": "the background, tiled",
        "inpaint": "by a model",
        "colour": "the object's colour alone",
        "texture": "a patch of the object, tiled",
        "shape": "its outline alone",
    },
    "factual_infills": {
        "random": "noise",
        "shuffle": "its pixels permuted",
        "mix_rand": "that of another class",
        "fgsm": "attacked",
        "colour": "the object in another colour",
        "texture": "the object with another surface",
        "shape": "the object bent",
    },
    "evidence": {
        "background": "needs all masks",
        "attribute": "needs groups in the meta set",
        "bias": "needs nothing",
    },
    "perturbed_logits": {"all": "of all classes, paper", "own": "of its class, for wrong labels"},
    "lookahead": {
        "match": "the optimizer's own step",
        "sgd": "a plain step, paper",
        "converged": "the head in the end",
    },
    "lookahead_scope": {"full": "the network, paper", "head": "the last layer, cheaper"},
    "hypergradient": {
        "forward": "exact, one dual pass",
        "finite_difference": "works with every operator",
        "double_backward": "the textbook way, slow",
    },
    "mask_shape": {"box": "the smallest around it", "exact": "its shape"},
    "on": {"validation": "as published", "meta": "the few images of the meta set"},
    "profile": {"exponential": "falls from class to class", "step": "half of the classes are rare"},
    "noise": {"flip": "to similar classes", "uniform": "to any class"},
    "protocol": {"clt": "classes", "alt": "attributes", "glt": "both"},
    "train_backbone": {"erm": "plainly", "clp": "with CLP"},
}

# What the values of an option need, by which help lists them: by option, need -> values.
NEEDS = {
    "method": {
        "a meta set": ("clp", "meta_lp", "meta_weight_net", "l2rw", "meta_saug", "mfrw_mes", "ssa", "glc"),
        "no more than labels": (
            "erm", "focal", "generalised_cross_entropy", "nce_rce", "nce_mae", "l_dmi",
            "mentor_net", "co_teaching", "jocor", "lff", "isda", "class_balanced",
            "class_balanced_focal", "class_balanced_fine_tuning", "ldam", "ldam_drw", "logit_adjustment",
            "balanced_softmax", "ala", "lpl", "risda", "csa", "cosine", "crt", "lws", "tde", "self", "ifl", "jtt",
            "eiil", "george", "cnc", "logit_correction",
        ),
        "the group of every training image": (
            "group_reweighting", "group_dro", "lisa", "subg", "pde", "irm", "ib_irm", "v_rex", "coral", "domain_mix",
        ),
        "the mask of every training image": ("background_swap",),
    },
}  # fmt: skip

# What others call an option: name -> ours, the first that a command has.
OTHER_NAMES = {
    **dict.fromkeys(("epochs", "epoch", "n_epochs", "num_epochs", "max_epochs", "nb_epochs"), ("num_train_epochs",)),
    **dict.fromkeys(("steps", "iterations", "n_steps", "num_steps", "max_iter", "num_train_steps"), ("max_steps",)),
    **dict.fromkeys(
        ("batch_size", "bs", "batch", "batchsize", "train_batch_size", "mini_batch_size"),
        ("per_device_train_batch_size", "batch_size", "per_device_eval_batch_size"),
    ),
    **dict.fromkeys(("eval_batch_size", "val_batch_size", "test_batch_size"), ("per_device_eval_batch_size",)),
    **dict.fromkeys(("meta_batch", "meta_bs"), ("meta_batch_size",)),
    **dict.fromkeys(("lr", "eta", "base_lr", "step_size", "initial_lr"), ("learning_rate", "inner_rate")),
    **dict.fromkeys(("meta_lr", "perturbation_lr", "lr_meta", "eta2"), ("perturbation_learning_rate",)),
    **dict.fromkeys(("wd", "decay", "l2"), ("weight_decay",)),
    **dict.fromkeys(("momentum", "optimizer_args"), ("optim_args",)),
    **dict.fromkeys(("optimizer", "optimiser", "opt"), ("optim",)),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule", "schedule"), ("lr_scheduler_type",)),
    **dict.fromkeys(("warmup", "warmup_ratio", "warmup_epochs"), ("warmup_steps",)),
    **dict.fromkeys(("grad_clip", "clip", "clip_grad", "gradient_clip", "max_norm"), ("max_grad_norm",)),
    **dict.fromkeys(
        ("grad_accum", "accumulate", "accumulation_steps", "accum_steps", "grad_accum_steps", "accum_iter"),
        ("gradient_accumulation_steps",),
    ),
    **dict.fromkeys(("label_smoothing", "smoothing"), ("label_smoothing_factor",)),
    **dict.fromkeys(("amp", "half", "mixed_precision", "precision", "bfloat16"), ("bf16",)),
    **dict.fromkeys(("device", "no_cuda", "cpu"), ("use_cpu",)),
    **dict.fromkeys(("workers", "num_workers", "n_workers"), ("dataloader_num_workers",)),
    **dict.fromkeys(("random_seed", "manual_seed", "random_state", "rng_seed"), ("seed",)),
    **dict.fromkeys(
        ("data", "dataset", "data_dir", "data_path", "dataset_path", "folder", "root", "images", "train_dir", "path"),
        ("dataset_name",),
    ),
    **dict.fromkeys(("split",), ("test_split", "train_split")),
    **dict.fromkeys(("val_split", "valid_split", "val_fraction", "val_size"), ("validation_fraction",)),
    **dict.fromkeys(("labels", "label", "target", "target_column", "class_column"), ("label_column",)),
    **dict.fromkeys(("attribute", "attributes", "spurious", "confounder"), ("attribute_column",)),
    **dict.fromkeys(("group", "groups"), ("group_column",)),
    **dict.fromkeys(("mask", "masks", "segmentation"), ("mask_column",)),
    **dict.fromkeys(("box", "boxes", "bbox"), ("box_column",)),
    **dict.fromkeys(("classes", "names", "labels_names"), ("class_names",)),
    **dict.fromkeys(
        ("size", "resolution", "img_size", "input_size", "image_resolution", "crop_size"), ("image_size",)
    ),
    **dict.fromkeys(
        ("limit", "n_samples", "max_samples", "subset", "num_samples"),
        ("max_train_samples", "max_images"),
    ),
    **dict.fromkeys(
        ("model", "backbone", "arch", "architecture", "network", "checkpoint", "model_name", "model_path", "net"),
        ("model_name_or_path", "segmenter"),
    ),
    **dict.fromkeys(("from_scratch", "weights"), ("pretrained",)),
    **dict.fromkeys(("algorithm", "algo", "loss", "strategy"), ("method", "training_loss")),
    **dict.fromkeys(("lambda", "saliency"), ("saliency_weight",)),
    **dict.fromkeys(("infills", "infill"), ("counterfactual_infills",)),
    **dict.fromkeys(("metric", "monitor", "select_by", "best_metric", "selection_metric"), ("metric_for_best_model",)),
    **dict.fromkeys(("resume", "resume_from", "continue", "ckpt", "restart"), ("resume_from_checkpoint",)),
    **dict.fromkeys(
        ("out", "output", "output_folder", "out_dir", "outdir", "save_dir", "logdir", "log_dir", "work_dir"),
        ("output_dir", "output"),
    ),
    **dict.fromkeys(("repo", "repo_id", "hub_name", "hub_repo", "model_id", "hub_id"), ("hub_model_id",)),
    **dict.fromkeys(("push", "upload", "publish"), ("push_to_hub",)),
    **dict.fromkeys(("private", "hub_private"), ("hub_private_repo",)),
    **dict.fromkeys(("wandb", "tensorboard", "trackio", "logger", "tracker", "mlflow"), ("report_to",)),
    **dict.fromkeys(("name", "experiment_name", "exp_name"), ("run_name",)),
    **dict.fromkeys(("eval_every", "eval_interval", "val_every"), ("eval_steps",)),
    **dict.fromkeys(("save_every", "save_interval"), ("save_steps",)),
    **dict.fromkeys(("log_every", "log_interval", "print_freq", "print_every"), ("logging_steps",)),
}  # fmt: skip
# And the values of one, where they are spelled like none of ours.
OTHER_VALUES = {
    "method": {
        **dict.fromkeys(("plain", "baseline", "standard", "vanilla", "cross_entropy", "ce", "none", "normal"), "erm"),
        **dict.fromkeys(("gce",), "generalised_cross_entropy"),
        **dict.fromkeys(("mwn", "mwnet"), "meta_weight_net"),
        **dict.fromkeys(("la", "logit_adjusted"), "logit_adjustment"),
        **dict.fromkeys(("swap", "swapping"), "background_swap"),
        **dict.fromkeys(("rex", "vrex"), "v_rex"),
        **dict.fromkeys(("deep_coral",), "coral"),
        **dict.fromkeys(("domain_mixup",), "domain_mix"),
        **dict.fromkeys(("dmi",), "l_dmi"),
        **dict.fromkeys(("progressive_data_expansion",), "pde"),
        **dict.fromkeys(("adaptive_logit_adjustment",), "ala"),
        **dict.fromkeys(("logit_perturbation",), "lpl"),
        **dict.fromkeys(("reweight", "reweighting", "resampling", "balanced"), "group_reweighting"),
        **dict.fromkeys(("causal_logit_perturbation",), "clp"),
        **dict.fromkeys(("dfr_head", "last_layer"), "dfr"),
        **dict.fromkeys(("subsample", "subsampling", "group_subsampling"), "subg"),
        **dict.fromkeys(("classifier_retraining", "decoupling"), "crt"),
        **dict.fromkeys(("just_train_twice",), "jtt"),
        **dict.fromkeys(("correct_n_contrast", "correct-n-contrast"), "cnc"),
        **dict.fromkeys(("lc",), "logit_correction"),
        **dict.fromkeys(("context_shift", "context_shift_augmentation"), "csa"),
        **dict.fromkeys(("invariant_feature_learning", "invariant_features"), "ifl"),
        **dict.fromkeys(("de_confound_tde", "deconfound_tde", "de-confound-tde"), "tde"),
        **dict.fromkeys(("gold_loss_correction", "gold"), "glc"),
    },
    "lookahead": {"implicit": "converged", "one_step": "match"},
    "optim": {"adam": "adamw_torch", "adamw": "adamw_torch"},
}
