"""What a training shows: one bar and a table of the groups on a terminal, a few plain lines elsewhere."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, TrainerState, TrainingArguments

from clp_hf.base.group_table import best_step, evaluations, group_table
from clp_hf.base.progress import GroupProgress, group_progress
from clp_hf.metrics import GroupMetrics

NAMES = ["small", "middle", "large"]
GROUPS = [f"{name}_on_{ground}" for name in NAMES for ground in ("dark", "light")]


def terminal(width=80):
    return Console(file=io.StringIO(), force_terminal=True, width=width)


def pipe():
    return Console(file=io.StringIO(), force_terminal=False, width=100)


def trained(make_trainer, console, **kwargs):
    settings = {
        "callbacks": [GroupProgress(console)], "compute_metrics": GroupMetrics(NAMES, GROUPS), "meta_every": 0,
        "eval_strategy": "steps", "eval_steps": 2, "disable_tqdm": False,
    }  # fmt: skip
    trainer = make_trainer(**settings | kwargs)
    trainer.train()
    return trainer, console.file.getvalue()


def cells(text, row):
    """The numbers of the row of that name, of every table."""
    return [line.split()[-3:] for line in text.splitlines() if line.startswith(row)]


def test_a_pipe_has_tables_of_plain_text_and_the_log_stays_whole(make_trainer, capfd):
    trainer, text = trained(make_trainer, pipe())
    assert not {"\r", "\x1b", "{"} & set(text)
    assert text.splitlines()[0] == f"Training 4 steps, 1 epoch, into {trainer.args.output_dir}"
    assert "validation, step 2 of 4, loss " in text
    assert "validation, step 4 of 4, loss " in text
    assert all(line == line.rstrip() for line in text.splitlines())
    told = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in told] == [2, 4]
    for group in GROUPS:
        first, second = cells(text, group)
        values = [f"{100 * entry[f'eval_accuracy_group_{group}']:.1f}" for entry in told]
        assert first == ["–", values[0], values[0]]
        assert second[:2] == values
    assert len([entry for entry in trainer.state.log_history if "grad_norm" in entry]) == 4
    printed = capfd.readouterr()
    assert "eval_loss" not in printed.out + printed.err
    assert "it/s" not in printed.err


def test_a_long_training_in_a_pipe_says_some_ten_lines_of_its_own(make_trainer):
    _, text = trained(make_trainer, pipe(), max_steps=40, eval_strategy="no")
    lines = [line for line in text.splitlines() if line.startswith("step ")]
    assert [int(line.split()[1]) for line in lines] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]


@pytest.mark.parametrize("width", [80, 30])
def test_a_terminal_has_one_bar_below_the_table(make_trainer, width):
    _, text = trained(make_trainer, terminal(width))
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor was hidden once, and given back
    last = text[text.rindex("validation, step 4 of 4"[:width]) :]
    assert "4/4" in last
    assert (", loss " in last.split("4/4")[1]) == (width == 80)


def test_disable_tqdm_means_no_bar_on_a_terminal_either(make_trainer):
    _, text = trained(make_trainer, terminal(), disable_tqdm=True)
    assert "\x1b[?25l" not in text
    assert "validation, step 4 of 4" in text


def test_an_error_gives_the_terminal_back(make_trainer):
    def broken(prediction):
        raise RuntimeError("no metrics today")

    console = terminal()
    with pytest.raises(RuntimeError, match="no metrics today"):
        trained(make_trainer, console, compute_metrics=broken)
    assert console.file.getvalue().count("\x1b[?25h") == 1


def test_an_evaluation_outside_of_a_training_leaves_nothing(make_trainer):
    console = terminal()
    trainer = make_trainer(
        callbacks=[GroupProgress(console)],
        meta_every=0,
        disable_tqdm=False,
        compute_metrics=GroupMetrics(NAMES, GROUPS),
    )
    trainer.evaluate()
    text = console.file.getvalue()
    assert "evaluating" in text
    assert "accuracy" not in text
    assert text.endswith("\x1b[1A\x1b[2K")  # the bar is wiped away


def test_other_processes_say_nothing(make_trainer):
    progress = GroupProgress(pipe())
    trainer = make_trainer(meta_every=0)
    trainer.state.is_world_process_zero = False
    for event in (progress.on_train_begin, progress.on_step_end, progress.on_train_end):
        event(trainer.args, trainer.state, trainer.control)
    progress.on_prediction_step(trainer.args, trainer.state, trainer.control, eval_dataloader=[1])
    progress.on_log(trainer.args, trainer.state, trainer.control, logs={"loss": 1.0})
    assert progress.console.file.getvalue() == ""


def test_a_trainer_of_ones_own_keeps_its_bar_unless_asked(make_trainer):
    def kinds(trainer):
        return [type(callback) for callback in trainer.callback_handler.callbacks]

    assert ProgressCallback in kinds(make_trainer(meta_every=0, disable_tqdm=False))
    assert not {GroupProgress, PrinterCallback} & set(kinds(make_trainer(meta_every=0, disable_tqdm=True)))
    for disabled in (False, True):
        with group_progress():
            shown = kinds(make_trainer(meta_every=0, disable_tqdm=disabled))
        assert shown.count(GroupProgress) == 1
        assert not {ProgressCallback, PrinterCallback} & set(shown)


# ---- the table -------------------------------------------------------------------------------------------------------


def logged(step, prefix="eval_", **metrics):
    return {"step": step} | {f"{prefix}{name}": value for name, value in {"runtime": 1.0, **metrics}.items()}


def drawn(history, metrics, best=None, metric=None, width=100, selects=True):
    console = Console(file=io.StringIO(), force_terminal=False, width=width)
    console.print(group_table(evaluations(history, metrics), best, metric, 100, selects))
    return console.file.getvalue()


def test_of_many_classes_the_worst_ten_and_the_mean_of_the_others():
    def accuracies(worst):
        values = {f"accuracy_class_kind {index:03}": (index + 1) / 200 for index in range(200)}
        return values | {"accuracy": 0.5, "worst_class_accuracy": worst, "worst_group_accuracy": worst, "loss": 1.25}

    history = [logged(1, **accuracies(0.1)), logged(2, **accuracies(0.2))]
    text = drawn(history, history[-1], 2, "worst_group_accuracy")
    rows = text.splitlines()
    assert len(rows) == 2 + 10 + 1 + 2
    assert [row.split("  ")[0] for row in rows[2:12]] == [f"kind {index:03}" for index in range(10)]
    assert cells(text, "mean of the other 190") == [["52.8"] * 3]
    assert cells(text, "worst class (selects)") == [["10.0", "20.0", "20.0"]]


@pytest.mark.parametrize("width", [34, 60])
def test_a_narrow_terminal_cuts_names_and_no_row_is_broken(width):
    names = {f"accuracy_group_{'a very long name of a group ' * 3}{index}": 0.5 for index in range(3)}
    text = drawn([logged(1, **names)], logged(1, **names), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) == 2 + 3
    assert text.count(" 50.0") == 3


def test_names_are_shown_letter_by_letter():
    metrics = {"accuracy_group_[red]a\x1b[31m\nb[/red]": 0.5, "accuracy_group_:bird:": 1.0}
    text = drawn([logged(1, **metrics)], logged(1, **metrics))
    assert "[red]a [31m b[/red]" in text
    assert ":bird:" in text
    assert "\x1b" not in text


def test_nothing_is_said_to_select_where_the_last_step_stays():
    history = [logged(1, worst_class_accuracy=0.2)]
    text = drawn(history, history[-1], 1, "worst_class_accuracy", selects=False)
    assert "worst class" in text
    assert "selects" not in text


def test_what_is_no_accuracy_of_groups_has_its_row_where_it_selects():
    history = [logged(1, loss=1.0, f_beta=0.25), logged(2, loss=0.5, f_beta=0.125)]
    text = drawn(history, history[-1], 1, "f_beta")
    assert cells(text, "f_beta (selects)") == [["0.25", "0.125", "0.25"]]
    assert "loss 0.5" in text


def test_every_evaluation_set_is_compared_with_itself():
    near, far = ({"accuracy_class_a": value, "accuracy": value} for value in (0.75, 0.25))
    history = [logged(1, "eval_near_", **near), logged(1, "eval_far_", **far), logged(2, "eval_near_", **far)]
    found = evaluations(history, history[-1])
    assert [entry["step"] for entry in found] == [1, 2]
    text = drawn(history, history[-1])
    assert "validation near, step 2" in text
    assert cells(text, "average") == [["75.0", "25.0", "–"]]


@pytest.mark.parametrize(
    ("selects", "best_so_far", "saved", "expected"),
    [(True, 1, False, 1), (True, 1, True, 3), (True, None, False, None), (False, None, False, 3)],
)
def test_the_best_step_is_one_that_can_be_loaded_at_the_end(selects, best_so_far, saved, expected):
    args = SimpleNamespace(
        load_best_model_at_end=selects, metric_for_best_model="accuracy" if selects else None, greater_is_better=None
    )
    history = [logged(step, accuracy=value) for step, value in ((1, 0.5), (2, 0.75), (3, 0.875))]
    state = TrainerState(log_history=history, best_global_step=best_so_far, global_step=3)
    assert best_step(args, state, saved) == expected


def test_a_loss_is_best_where_it_is_least(tmp_path):
    args = TrainingArguments(str(tmp_path), metric_for_best_model="loss", use_cpu=True)
    state = TrainerState(log_history=[logged(1, loss=0.5), logged(2, loss=1.5)], global_step=2)
    assert best_step(args, state, True) == 1
