"""The model card, and its upload to a local stand-in of the Hub's API."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard

from refocus import Recipe
from refocus.errors import InputError
from refocus.figures.escape import inline
from refocus.records import to_json
from refocus.reports.card import card_text, push, write_card
from refocus.results import (
    Accuracy,
    Classification,
    Compared,
    Estimate,
    Evaluation,
    SuiteEntry,
)
from refocus.tuning.results import Candidate, Verdict
from tests.makers import run, tune_results, tuned


class Hub(BaseHTTPRequestHandler):
    """Makes repositories, and takes files as one commit of JSON lines."""

    repositories: dict[str, dict[str, bytes]]
    made: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            said = json.loads(body)
            if said["name"] == "refused":
                self._answer({"error": "You are not allowed to do that"}, 403)
                return
            self.made.append(said)
            self._answer({"url": f"http://{self.headers['Host']}/you/{said['name']}"})
        elif parts[-1] == "validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif parts[-2] == "preupload":
            files = json.loads(body)["files"]
            said = [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self._answer({"files": said})
        elif parts[-2] == "commit":
            kept = self.repositories.setdefault("/".join(parts[2:4]), {})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    kept[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/you/my-vit/commit/0"
            done = {"commitUrl": url, "commitOid": "0" * 40, "hookOutput": "", "success": True}
            self._answer(done)
        else:
            self._answer({"error": f"no {self.path}"}, 404)

    def do_GET(self) -> None:
        if "refused" in self.path:
            self._answer({"error": "no such model"}, 404)
            return
        self._answer({"siblings": [], "id": "you/my-vit", "sha": "0" * 40, "valid": True})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[type[Hub], HfApi]]:
    kind = type("Here", (Hub,), {"repositories": {}, "made": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind, HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_test")
    server.shutdown()
    server.server_close()


def finished(folder: Path) -> Path:
    """A run that is complete, without weights."""
    content = {
        "recipe.json": Recipe("m", "images", "masks").to_dict(),
        "selection.json": {"train": [], "select": [], "check": []},
        "results.json": to_json(tune_results()),
        "model/config.json": {"architecture": "vit"},
        "manifest.json": {},
    }
    (folder / "model").mkdir(parents=True)
    for name, value in content.items():
        (folder / name).write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_that_cannot_be_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    closed = HfApi(endpoint="http://127.0.0.1:9", token="hf_test")
    with pytest.raises(InputError, match=r"^repo me/x: the Hub cannot be reached \(.+\)$"):
        push(finished(tmp_path / "run"), "me/x", api=closed)


def test_a_fault_in_code_is_not_laid_at_the_hubs_door(tmp_path: Path) -> None:
    class Faulty(HfApi):
        def create_repo(self, *args: Any, **kwargs: Any) -> Any:
            raise TypeError("a fault")

    with pytest.raises(TypeError, match="a fault"):
        push(finished(tmp_path / "run"), "me/x", api=Faulty())


def measured(folder: Path, value: float) -> None:
    """A report of the held-out images, with the model's accuracy."""
    nothing = Estimate(None, None, 0)
    answers = Classification(Accuracy(Estimate(value, None, 9), nothing, nothing, {}))
    entry = SuiteEntry("classification", 9, {"standard": answers})
    folder.mkdir()
    found = to_json(Evaluation("tuned", None, 0, {"held-out": entry}))
    (folder / "results.json").write_text(json.dumps(found))
    (folder / "manifest.json").write_text("{}")


@pytest.mark.parametrize(("shown", "value"), [(None, 10), ("proof", 1), ("proof-2", 2)])
def test_the_card_has_the_numbers_of_the_page(
    tmp_path: Path, shown: str | None, value: int
) -> None:
    folder = finished(tmp_path / "run")
    for number in (1, 2, 10):
        measured(folder / ("proof" if number == 1 else f"proof-{number}"), number)
    if shown:
        (folder / "report.json").write_text(json.dumps({"records": shown}))
    assert f"| {value}.0 |" in card_text(folder, "me/vit", "mit")


def test_a_card_that_nobody_edited_is_written_again(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    write_card(folder)
    written = write_card(folder, repo="anna/vit", licence="mit").read_text()
    assert "license: mit" in written
    assert "# vit\n" in written
    assert "YOU/MODEL" not in written
    measured(folder / "proof", 61.2)
    written = write_card(folder, repo="anna/vit").read_text()
    assert "license: mit" in written  # as it was stated before
    assert "| 61.2 |" in written


@pytest.mark.parametrize(
    ("text", "licence", "said"),
    [
        (None, "apache-2.0", r"licence apache-2.0: .*README.md was edited and .* 'mit'; write"),
        ("no metadata", "mit", r"licence mit: .*README.md was edited and .* 'unknown'; write"),
        ("---\nlicense: [\n---\n", "mit", r"README.md: its metadata, .*, are no YAML \("),
        (None, "mit", None),
        (None, "unknown", None),
    ],
)
def test_an_edited_card_is_kept(
    hub: tuple[type[Hub], HfApi],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
    licence: str,
    said: str | None,
) -> None:
    folder = finished(tmp_path / "run")
    card = write_card(folder, licence="mit")
    text = text or card.read_text().replace("## Limits", "## Limits\n\nMine.")
    card.write_text(text)
    if said is not None:
        for write in (write_card, partial(push, repo="you/my-vit", api=hub[1])):
            with pytest.raises(InputError, match=said):
                write(folder, licence=licence)
    else:
        with caplog.at_level("INFO", "refocus"):
            push(folder, "you/my-vit", licence=licence, api=hub[1])
            write_card(folder, licence=licence)
        kept = "README.md: was edited, so it is kept as it is; it still calls the model YOU/MODEL"
        assert caplog.text.count(kept) == 2
        assert hub[0].repositories["you/my-vit"]["README.md"].decode() == text
    assert card.read_text() == text


def test_the_card_promises_only_what_holds_for_the_weights_in_it(tmp_path: Path) -> None:
    advised = "Ship the tuned model: it gains by at least 3.2 points. Each bound holds."
    found = tune_results(
        candidates=tuple(
            Candidate(share, *(Compared(Estimate(80.0, (75, 85), 300)),) * 2)
            for share in (0.0, 0.5, 1.0)
        ),
        verdict=Verdict(True, 0.5, advised),
    )
    folder = finished(tmp_path / "run")

    def card(**changes: Any) -> str:
        kept = to_json(replace(found, **changes))
        (folder / "results.json").write_text(json.dumps(kept))
        return card_text(folder, "me/vit", "mit")

    text = card()
    assert advised in text
    assert "300 images that chose the weights, so this is not an independent test" in text
    text = card(chosen_share=1.0)
    assert "at least 3.2 points" not in text
    assert (
        "The do-no-harm rule was switched off: this model has the tuned weights, and the rule "
        "advises weights averaged 50/50 with the original." in text
    )
    assert "chose the weights" not in text
    keep = Verdict(False, 0.0, "Keep the original model: that is no gain.")
    text = card(chosen_share=1.0, advised_share=0.0, verdict=keep)
    assert f"which the rule does not advise. {keep.sentence}" in text


@pytest.mark.parametrize(
    ("model", "shown", "base"),
    [
        ("/home/me/vit?names=/home/me/kept/classes.txt", "vit", None),
        ("vit_small_patch16_224?names=/home/me/c.txt?order=natural", "vit_small_patch16_224", None),
        ("hf:google/vit?names=/home/me/classes.txt", "hf:google/vit", "google/vit"),
        ("hf:/home/me/vit", "vit", None),
        ("local-dir:/home/me/vit", "vit", None),
        ("~/me/vit", "vit", None),
        ("py:pkg:build@/home/me/run/model", "py:pkg:build@model", None),
        ("/home/me/vit.pth?arch=vit_small_patch16_224", "vit.pth", None),
    ],
)
def test_the_card_tells_nothing_of_a_machine(
    tmp_path: Path, model: str, shown: str, base: str | None
) -> None:
    folder = finished(tmp_path / "run")
    places = {
        row.name: f"/home/me/{row.name}"
        for row in fields(Recipe)
        if "PathText" in str(row.type) or "Reference" in str(row.type)
    }
    recipe = Recipe(**{**places, "model": model, "teacher": "torchvision:resnet18@/home/me/r.pth"})
    (folder / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    card = ModelCard(card_text(folder, "me/vit", "mit"))
    assert "/me" not in str(card).replace("me/vit", "")
    assert f"Original model: {inline(shown)}. " in card.text
    assert card.data.base_model == base
    settings = json.loads(card.text.split("```json")[1].split("```")[0])
    assert settings["teacher"] == "torchvision:resnet18@r.pth"
    assert settings["adain"] == "adain"


@pytest.mark.slow
def test_push_sends_model_and_card(
    hub: tuple[type[Hub], HfApi],
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, api = hub
    out = tuned(monkeypatch, model_folder, image_folders, tmp_path / "run")
    address = push(out, "you/my-vit", licence="mit", private=True, api=api)
    assert address.endswith("/you/my-vit")
    assert "private" in (kind.made[0].get("visibility"), *kind.made[0])
    sent = kind.repositories["you/my-vit"]
    for name in ("config.json", "model.safetensors"):
        assert sent[name] == (out / "model" / name).read_bytes()
    card = ModelCard(sent["README.md"].decode())
    assert card.data.license == "mit"
    assert card.data.library_name == "timm"
    assert 'timm.create_model("hf-hub:you/my-vit", pretrained=True)' in card.text
    assert str(tmp_path) not in sent["README.md"].decode()  # nothing of this machine
    with pytest.raises(InputError, match=r"repo you/refused: the Hub refused .*(403|not allowed)"):
        push(out, "you/refused", api=api)


@pytest.mark.slow
def test_the_card_has_the_reports_numbers_with_intervals(
    model_folder: Path,
    image_folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tuned(monkeypatch, model_folder, image_folders, tmp_path / "run")
    text = write_card(out).read_text(encoding="utf-8")
    assert "license: unknown" in text
    assert "None is stated" in text
    assert "the do-no-harm rule, which was switched off (`refocus report` measures more)" in text
    verdict = json.loads((out / "results.json").read_text())["verdict"]["sentence"]
    assert verdict.split(";")[0][:40] in text
    assert "switched off: this model has the tuned weights, which the rule does not" in text
    assert run(monkeypatch, "report", out, "--most", 4) == 0
    assert json.loads((out / "report.json").read_text()) == {"records": "proof"}
    results = out / "proof" / "results.json"
    before = results.read_bytes()
    results.unlink()  # is made again from the records
    assert run(monkeypatch, "report", out, "--most", 4) == 0
    assert results.read_bytes() == before
    assert run(monkeypatch, "push", out, "--card-only", "--license", "apache-2.0") == 0
    text = (out / "README.md").read_text(encoding="utf-8")
    found = json.loads((out / "proof" / "results.json").read_text())["suites"]["held-out"]
    top1 = found["protocols"]["standard"]["model"]["top1"]
    low, high = top1["interval"]
    assert f"| {top1['value']:.1f} | {low:.1f} to {high:.1f} |" in text
    assert "`refocus report` measures more" not in text
    (out / "README.md").write_text("mine", encoding="utf-8")
    assert run(monkeypatch, "push", out, "--card-only") == 0
    assert (out / "README.md").read_text(encoding="utf-8") == "mine"


def test_what_is_no_finished_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="not a finished run"):
        write_card(tmp_path)
    assert run(monkeypatch, "push", tmp_path) == 2
    assert "REPO: missing; give OWNER/NAME, or --card-only" in capsys.readouterr().err
