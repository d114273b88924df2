"""Reports of real runs: what they say, what they refuse, and how a browser shows them."""

import json
import shutil
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import open_browser

from clp_hf.base.publishing import PublishingTrainer
from clp_hf.data import embedded_birds
from clp_hf.segmentation import mask_counts

pytest.importorskip("pytorch_grad_cam")

from clp_hf.report import write_report
from clp_hf.report.methods import method_of

RECIPES = Path(__file__).parents[2] / "recipes"
VOID = ("img", "meta", "source")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """ERM and CLP as `recipes/waterbirds.py --compare` leaves them, and ERM repaired by `recipes/hsfm.py`."""
    folder = tmp_path_factory.mktemp("birds")
    for name, split in embedded_birds(n_train=48, n_validation=32, n_test=24, image_size=32).items():
        (folder / "data").mkdir(exist_ok=True)
        split.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    masks = {"images": 24, "coverage": 0.2, "empty": [3, 7], "full": [5]}
    (folder / "data" / "masks.json").write_text(json.dumps({"settings": {}, "splits": {"test": masks}}))
    common = [
        "--dataset_name", str(folder / "data"), "--image_size", "32", "--use_cpu", "true", "--disable_tqdm", "true",
        "--report_to", "none", "--token", "hf_secret", "--meta_images", "8",
    ]  # fmt: skip
    training = [
        "--model_name_or_path", "cifar_resnet20", "--freeze_batch_norm", "false", "--max_steps", "2",
        "--eval_steps", "1", "--save_steps", "1", "--logging_steps", "1", "--attribution", "--compare",
        "--output_dir", str(folder / "runs"),
    ]  # fmt: skip
    repair = ["--model_name_or_path", str(folder / "runs" / "erm"), "--epochs", "2", "--support_size", "4",
              "--output_dir", str(folder / "runs" / "hsfm")]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PublishingTrainer, "_save_pictures", lambda *args: {})  # of the cards, which nobody reads here
        patch.syspath_prepend(str(RECIPES))
        import hsfm
        import waterbirds

        for recipe, flags in ((waterbirds, training), (hsfm, repair)):
            patch.setattr(sys, "argv", [recipe.__name__ + ".py", *common, *flags])
            recipe.main()
    return folder / "runs"


class Page(HTMLParser):
    """Tables by caption, images, headings and text of a report; fails where elements are not nested."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.images, self.headings, self.texts, self.open = {}, [], [], [], []
        self.feed(Path(path).read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables.setdefault(self.caption, []).append(self.rows)

    def handle_data(self, data):
        text = " ".join(data.split())
        if not text or "style" in self.open:
            return
        self.texts.append(text)
        if "caption" in self.open:
            self.caption = text
        elif "tr" in self.open:
            self.rows[-1][-1] += f"{text} "
        if self.open[-1] in ("h1", "h2", "h3", "h4"):
            self.headings.append((self.open[-1], text))


def percent(value):
    return f"{100 * value:.1f}"


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    output = tmp_path_factory.mktemp("report") / "new" / "report.html"
    assert write_report([runs / "erm", str(runs / "clp"), runs / "hsfm"], output) == output
    return output


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_results_are_those_of_the_runs_and_the_best_are_marked(runs, report):
    page = Page(report)
    results = {name: json.loads((runs / name / "all_results.json").read_text()) for name in ("erm", "clp", "hsfm")}
    (table,) = page.tables["Results of all runs, %"]
    assert [row[0].strip() for row in table[1:]] == ["erm (ERM, class-balanced sampling)", "clp (CLP)", "hsfm (HSFM)"]
    column = [title.strip() for title in table[0]].index("test average")
    shown = [row[column] for row in table[1:]]
    values = [results[name]["test_accuracy"] for name in results]
    assert [text.split()[0] for text in shown] == list(map(percent, values))
    if len(set(values)) > 1:
        assert ["(best)" in text for text in shown] == [value == max(values) for value in values]
    for table, name in zip(page.tables["Accuracy by group, %"], results, strict=True):
        titles = [title.strip() for title in table[0]]
        for row in table[1:]:
            assert row[titles.index("test")].strip() == percent(results[name][f"test_accuracy_group_{row[0].strip()}"])
            assert row[titles.index("test images")].strip() == "6"


def test_only_settings_that_differ_are_compared_and_commands_are_told(report):
    page = Page(report)
    (table,) = page.tables["Settings that differ"]
    differing = {row[0].strip(): [text.strip() for text in row[1:]] for row in table[1:]}
    assert differing["meta_every"] == ["0", "1", "–"]
    assert not {"learning_rate", "mask_shape"} & set(differing)  # HSFM has none, and ERM and CLP have the same
    assert not {"image_size", "seed", "dataset_name", "output_dir"} & set(differing)
    text = " ".join(page.texts)
    assert "python waterbirds.py --dataset_name" in text
    assert "--max_steps 2" in text
    assert "--token TOKEN" in text
    assert "hf_secret" not in text
    assert sys.executable not in report.read_text()


def test_hsfm_is_shown_with_what_it_started_from(runs, report):
    by_group = Page(report).tables["Accuracy by group, %"][2]
    titles = [title.strip() for title in by_group[0]]
    before = json.loads((runs / "erm" / "all_results.json").read_text())
    for row in by_group[1:]:
        assert row[titles.index("test, before")].strip() == percent(before[f"test_accuracy_group_{row[0].strip()}"])


def test_pictures_of_every_run_are_inside_and_described(report):
    page = Page(report)
    titles = [text for level, text in page.headings if level == "h4"]
    assert titles.count("Loss") == 3
    effects = {"Perturbation by group", "Perturbation by class", "Loss raised, by group", "What the network answers to"}
    assert all(titles.count(title) == 1 for title in effects)
    assert sum(image["src"].startswith("data:image/png") for image in page.images) == 2  # Grad-CAM; HSFM had no flag
    assert all(image["src"].startswith("data:image/") and len(image["alt"]) > 20 for image in page.images)
    levels = [int(level[1]) for level, _ in page.headings]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert "http" not in report.read_text().replace("http://www.w3.org", "").replace("http-equiv", "")


def test_images_without_masks_are_named(runs, report):
    text = " ".join(Page(report).texts)
    assert "test: 3 of 24 images (2 where nothing was found, 1 without background): 3, 5, 7" in text
    assert mask_counts(runs) == {}


def test_one_run_is_compared_with_nothing(runs, tmp_path):
    page = Page(write_report([runs / "erm"], tmp_path / "report.html"))
    assert "Results of all runs, %" not in page.tables
    assert page.headings[0] == ("h1", "data: erm")
    assert "set in bold" not in " ".join(page.texts)


# ---- what it refuses -------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the CLP run that a test may spoil, without its weights, which no report reads."""
    shutil.copytree(runs / "clp", tmp_path / "clp", ignore=shutil.ignore_patterns("checkpoint-*"))
    (tmp_path / "clp" / "model.safetensors").unlink()
    return tmp_path / "clp"


@pytest.mark.parametrize(
    ("file", "writer"),
    [
        ("_run.json", "trainer.create_model_card()"),
        ("trainer_state.json", "trainer.save_state()"),
        ("all_results.json", "trainer.save_metrics(split, trainer.evaluate(…))"),
        ("perturbation_network/model.safetensors", "trainer.save_model()"),
    ],
)
def test_what_a_folder_lacks_is_named_with_what_writes_it(copied, file, writer):
    (copied / file).unlink()
    with pytest.raises(ValueError, match="clp is not the folder of a complete run") as error:
        write_report([copied], copied / "report.html")
    assert f"it lacks {file} (written by {writer})." in str(error.value)
    assert not (copied / "report.html").exists()


def test_what_is_not_a_list_of_runs_is_refused(runs, copied, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("no_run")
    output, clp = tmp_path / "report.html", runs / "clp"
    for folders, message in (
        ([], "There is no run to report on"),
        (str(clp), r"expected a list of folders: \['"),
        ([clp, runs / "erm" / ".." / "clp"], r"erm/../clp is named twice"),
        ([tmp_path / "nowhere"], "nowhere is not a folder"),
        ([tmp_path], "There is no run in"),
    ):
        with pytest.raises(ValueError, match=message):
            write_report(folders, output)
    with pytest.raises(ValueError, match="name the file to write"):
        write_report([clp], tmp_path)
    (copied / "trainer_state.json").write_text('{"log_history": [')
    with pytest.raises(ValueError, match=r"trainer_state.json is not valid JSON"):
        write_report([copied], output)


def test_runs_on_different_data_are_shown_and_not_compared(runs, tmp_path):
    fish = shutil.copytree(runs / "erm", tmp_path / "fish", ignore=shutil.ignore_patterns("checkpoint-*"))
    record = json.loads((fish / "_run.json").read_text())
    record |= {"dataset": "fish", "label_names": ["cod", "eel"], "group_names": None}
    (fish / "_run.json").write_text(json.dumps(record))
    page = Page(write_report([runs / "erm", fish], tmp_path / "report.html"))
    assert [text for level, text in page.headings if level == "h2"][1:] == [  # after the masks
        "Not all runs are on the same data", "erm", "fish", "Terms",
    ]  # fmt: skip
    told = " ".join(page.texts)
    assert "'data' with 2 classes (landbird, waterbird), 4 groups, 24 test images" in told
    assert "'fish' with 2 classes (cod, eel)" in told
    assert "Results of all runs, %" not in page.tables


def test_a_folder_around_runs_stands_for_them(runs, tmp_path):
    page = Page(write_report([runs], tmp_path / "report.html"))
    (table,) = page.tables["Results of all runs, %"]
    assert [row[0].split()[0] for row in table[1:]] == ["clp", "erm", "hsfm"]


def test_every_run_shows_the_worst_images_of_every_group(runs, report):
    page = Page(report)
    record = json.loads((runs / "erm" / "_run.json").read_text())
    walls = [text for level, text in page.headings if level == "h4"]
    assert all(walls.count(name) == 3 for name in record["group_names"])
    pictures = [image["alt"] for image in page.images if image["src"].startswith("data:image/jpeg")]
    assert sum(alt.startswith("Grad-CAM") for alt in pictures) == len(pictures) // 2 == 3 * 4 * 6
    (differences,) = page.tables["Differences from erm on the same test images, points"]
    assert [title.strip() for title in differences[0]] == ["group", "clp", "hsfm"]
    assert [row[0].strip() for row in differences[1:]] == [*record["group_names"], "worst group", "average"]


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    copied = shutil.copytree(runs / "erm", tmp_path / "erm", ignore=shutil.ignore_patterns("checkpoint-*"))
    page = Page(write_report([runs / "erm", copied], tmp_path / "report.html"))
    names = [text for level, text in page.headings if level == "h2"]
    assert {f"{runs.name}/erm", f"{tmp_path.name}/erm"} <= set(names)
    assert "No setting differs." in page.texts


# ---- how it looks ----------------------------------------------------------------------------------------------------


def test_in_a_browser_wide_and_narrow_light_and_dark(report):
    with open_browser() as browser:
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            told, requests = [], []
            page.on("console", lambda message, told=told: told.append(message.text))
            page.on("pageerror", lambda error, told=told: told.append(str(error)))
            page.on("request", lambda request, requests=requests: requests.append(request.url))
            page.goto(report.as_uri())
            assert not told
            assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            channels = [int(value) for value in ground.removeprefix("rgb(").rstrip(")").split(",")]
            assert max(channels) < 40 if scheme == "dark" else min(channels) > 240
            for table in page.locator("table").all()[:3]:
                assert table.locator("caption").count() == 1
            page.close()


def test_the_method_of_a_plain_trainer_is_told_with_all_that_it_changed():
    facts = {"training_loss": "cross_entropy", "train_sampling": "class"}
    record = SimpleNamespace(method="plain-trainer", facts=facts, settings={"data and model": {}})
    assert method_of(record) == "ERM, class-balanced sampling"
    facts["train_sampling"] = "class_late"
    told = method_of(record)
    assert told == "ERM, class-balanced sampling late in training"
    facts |= {"train_sampling": "random", "train_infills": ["mix_rand", "random"]}
    told = method_of(record)
    assert told == "ERM, training images before other backgrounds (mix_rand, random)"


@pytest.mark.parametrize(
    ("factual", "evidence", "name"),
    [([], [], "Meta-LP"), ([], ["bias"], "CLP by evidence of bias"), (["mix_rand"], ["background"], "CLP")],
)
def test_clp_is_called_by_what_it_learns_from(factual, evidence, name):
    facts = {"infills": {"counterfactual": [], "factual": factual}}
    record = SimpleNamespace(method="clp", facts=facts, settings={"method": {"evidence": evidence}})
    assert method_of(record) == name
