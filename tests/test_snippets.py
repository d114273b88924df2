"""The Python that the documentation shows runs when it is pasted, on the embedded birds."""

import re
from pathlib import Path

import pytest
import torch

from clp_hf import load_image_classifier

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "guides" / "python.md"]
# what a user could write in the place of it: another checkpoint, fewer and smaller birds, less training
TINY = {
    '"tf_efficientnet_lite0"': '"backbone"',
    "embedded_birds()": "embedded_birds(64, 80, 24, image_size=32)",
    "image_size=96": "image_size=32",
    "num_train_epochs=4,": "num_train_epochs=1,\n        use_cpu=True,",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_a_page_runs_when_pasted(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    load_image_classifier("test_resnet", num_labels=5, image_size=32, pretrained=False).save_pretrained("backbone")
    snippets = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    code = next(snippet for snippet in snippets if "CLPTrainer(" in snippet)
    for written, tiny in TINY.items():
        assert written in code
        code = code.replace(written, tiny)
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})
    assert "'test_worst_group_accuracy': " in capsys.readouterr().out
    assert load_image_classifier("runs/birds").config.id2label == {0: "landbird", 1: "waterbird"}
    assert (tmp_path / "runs" / "birds" / "README.md").is_file()
