"""HSFM: repair a trained classifier in seconds, by its head alone; the backbone stays as it is.

    clp-hf hsfm --model_name_or_path runs/waterbirds/erm     # what recipes/waterbirds.py saved
    clp-hf hsfm --train_backbone clp                         # trains one first
    clp-hf hsfm --model_name_or_path runs/waterbirds/erm --trials 64 --preset dominoes

The data arguments are those of recipes/waterbirds.py. Writes an ordinary checkpoint with the new head and
all_results.json (eval_* and test_* keys) to --output_dir, and prints the table of every group, before and after.
"""

import os
from dataclasses import dataclass, field, fields, replace

import waterbirds

from clp_hf import CLPTrainingArguments
from clp_hf.data import ImageClassificationDataset
from clp_hf.data.groups import counts
from clp_hf.experiment import METHODS, DataArguments, Experiment, ModelArguments, parse_arguments
from clp_hf.experiment.experiment import hub_kwargs
from clp_hf.hsfm import HSFMArguments, HSFMTrainer
from clp_hf.modeling import load_image_classifier
from clp_hf.modeling.identity import label_names


@dataclass
class RecipeArguments:
    train_backbone: str | None = field(
        default=None,
        metadata={"help": "Train the classifier first, as recipes/waterbirds.py does.", "choices": ["erm", "clp"]},
    )


def of(arguments: type) -> dict:
    """The defaults of recipes/waterbirds.py that are fields of `arguments`."""
    names = {item.name for item in fields(arguments)}
    return {name: value for name, value in waterbirds.DEFAULTS.items() if name in names}


DEFAULTS = {**of(DataArguments), "output_dir": "runs/hsfm", "seed": 0, "per_device_eval_batch_size": 64}


def main():
    recipe, data, model, args = parse_arguments(
        (RecipeArguments, DataArguments, ModelArguments, HSFMArguments), __doc__, DEFAULTS
    )
    training = CLPTrainingArguments(
        **of(CLPTrainingArguments) | {"output_dir": os.path.join(args.output_dir, "backbone"), "seed": args.seed}
    )
    data, source = waterbirds.named(data), model.model_name_or_path
    if recipe.train_backbone:
        experiment = Experiment(data, model, training)
        experiment.run(METHODS[recipe.train_backbone], training.output_dir)
        source = training.output_dir
        classifier = load_image_classifier(source, **experiment.hub_kwargs)
    else:
        classifier = load_image_classifier(source, **hub_kwargs(model))
        # the head is kept, so the data's classes take the order of the model's
        experiment = Experiment(data, model, training, known_classes=label_names(classifier))
    present = counts(experiment.splits["train"], "label")
    if missing := [name for name, count in present.items() if not count]:
        raise ValueError(
            f"{source!r} tells {len(present)} classes apart, {', '.join(present)}, and the data set has no training "
            f"image of {', '.join(missing)}: give a classifier trained on its classes, or --train_backbone erm."
        )
    trainer = HSFMTrainer(
        classifier,
        args,
        train_dataset=ImageClassificationDataset(
            experiment.splits["train"], experiment.validation.transform, name="train"
        ),
        eval_dataset=experiment.validation,
        processing_class=experiment.processor,
        compute_metrics=experiment.compute_metrics,
        card_details=replace(experiment.card_details, base_model=source),
    )
    results = {"before": experiment.evaluate(trainer)}
    trainer.save_metrics("train", trainer.train().metrics)
    trainer.save_state()
    results["HSFM"] = experiment.evaluate(trainer)
    trainer.save_or_push()
    if training.should_log:
        print(f"\n{trainer.result.settings}; {trainer.result.rule}")
        print(experiment.table(results))


if __name__ == "__main__":
    main()
