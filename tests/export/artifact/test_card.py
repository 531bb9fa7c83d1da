"""The model card: metadata the hub's library reads back, tables of what the manifest holds."""

from __future__ import annotations

import ast
import json
import re
import shlex

import pytest

from export.artifact.card import MEASURED, render_card
from export.artifact.card_metadata import check_card
from export.artifact.card_tables import records_table
from export.artifact.manifest import ArtifactManifest
from export.artifact.origin import base_license, tell_language
from export.tasks.text import TextCard, choose_example
from finetune.core.errors import FolderError
from finetune.run_records import BaseRecord


@pytest.fixture(scope="module")
def manifest(make_artifact):
    return json.loads((make_artifact("lora", "roberta") / "manifest.json").read_text("utf-8"))


def render(content) -> str:
    return render_card(ArtifactManifest.model_validate(content), TextCard())


@pytest.fixture
def read_card(tmp_path):
    """A manifest's card, written and read by huggingface_hub."""
    from huggingface_hub import ModelCard

    def read(manifest) -> ModelCard:
        path = tmp_path / "README.md"
        path.write_text(render(manifest), "utf-8")
        check_card(path)
        return ModelCard.load(path)

    return read


def test_the_hubs_library_reads_the_measured_figures(make_artifact, manifest):
    from huggingface_hub import ModelCard

    data = ModelCard.load(make_artifact("lora", "roberta") / "README.md").data
    assert (data.language, data.pipeline_tag) == ("ko", "text-classification")
    assert data.library_name == "transformers.js"
    assert {"onnx", "lora"} <= set(data.tags)
    steps = {step["name"]: step for step in manifest["ladder"]}
    found = {(one.dataset_split, one.metric_name): one for one in data.eval_results}
    rows = steps["onnx-int8"]["rows"]
    int8 = found["validation", f"Accuracy (ONNX int8, {rows} rows)"]
    assert int8.metric_type == "accuracy"
    assert int8.metric_value == pytest.approx(steps["onnx-int8"]["accuracy"], abs=1e-6)
    tested = manifest["metrics"]["test"]
    f1 = found["test", f"F1 (macro, as trained, in PyTorch, {tested['rows']} rows)"]
    assert f1.metric_type == "f1"
    assert f1.metric_value == pytest.approx(tested["f1_macro"], abs=1e-6)
    assert {one.dataset_name for one in data.eval_results} == {"reviews.csv"}  # no path


def test_a_local_base_model_is_not_named_by_its_path(make_artifact, manifest, read_card):
    card = read_card(manifest)
    assert card.data.base_model is None
    assert manifest["base"]["source"] not in card.text and "`roberta`" in card.text


def test_a_base_of_the_hub_its_license_and_data_are_metadata(manifest, read_card):
    hub = {"source": "klue/roberta-large", "revision": "5193fac"}
    data = read_card(
        {
            **manifest,
            "base": hub,
            "license": "cc-by-sa-4.0",
            "data": {"origin": "NSMC, official files", "fingerprint": "4aee"},
        }
    ).data
    assert data.base_model == "klue/roberta-large"
    assert data.license == "cc-by-sa-4.0"
    assert data.datasets == ["e9t/nsmc"] and data.eval_results[0].dataset_revision == "4aee"


def test_a_step_that_rows_cannot_decide_is_told(manifest, read_card):
    note = "onnx-int8: undecided: loses 0.8 points of accuracy, allowed 0.5"
    assert f"- {note}." in read_card({**manifest, "notes": [note]}).text
    assert "undecided" not in read_card({**manifest, "notes": []}).text


TICKETS = ["My card won't work!", "Where is the refund?\nI wait.", '“Quote" and `tick` $HOME']


def test_the_example_is_a_row_of_the_run_and_quoted(manifest, read_card):
    assert manifest["example"] in read_card(manifest).text
    example = choose_example(TICKETS[2:])
    text = read_card({**manifest, "example": example}).text
    (shell,) = [line for line in text.splitlines() if line.startswith("python predict.py '")]
    assert shlex.split(shell) == ["python", "predict.py", example]
    (call,) = re.findall(r"classify\((.+), truncation=True\)", text)
    assert ast.literal_eval(call) == example
    assert choose_example(TICKETS) == TICKETS[0]
    assert choose_example(["\x07\n", " "]) is None
    assert len(choose_example(["word " * 90])) <= 60


def test_a_card_without_a_row_shows_no_one_else_s(manifest, read_card, make_artifact):
    for example in ({}, {"example": None}):
        bare = {key: value for key, value in manifest.items() if key != "example"}
        text = read_card({**bare, **example, "language": None}).text
        assert "python predict.py TEXT" in text and "영화 정말" not in text
        assert "language:" not in text.split("---")[1]
    assert "영화" not in (make_artifact("lora", "roberta") / "predict.py").read_text("utf-8")


@pytest.mark.parametrize(
    ("stated", "texts", "language"),
    [
        (None, ["배송이 늦어요", "refund please"], "ko"),
        (None, ["My card won't work"], None),  # many languages are written so
        (None, ["これは日本語の文章です", "東京"], "ja"),
        (None, ["พัสดุยังไม่มา"], "th"),
        (None, ["漢字"], None),
        (None, [], None),
        ("en", ["My card won't work"], "en"),
        ("ko", ["My card won't work"], None),  # the default of recipes of before
        ("ko", ["배송이 늦어요"], "ko"),
    ],
)
def test_the_language_is_that_of_the_data(stated, texts, language):
    assert tell_language(stated, texts) == language


def test_what_the_training_warned_of_and_rows_it_had_seen_are_told(manifest) -> None:
    sign = {"code": "truncated-texts", "message": "12.0% of the texts are cut", "figures": {}}
    data = manifest["data"] | {"test_rows_seen_in_training": 7}
    card = render(manifest | {"signs": [sign], "data": data})
    assert "- 12.0% of the texts are cut." in card
    assert "- 7 test rows have a text that also stands in training." in card
    plain = data | {key: 0 for key in data if key.endswith("seen_in_training")}
    assert "warned" not in render(manifest | {"signs": [], "data": plain})


def test_an_unknown_license_is_said_to_be_unknown(manifest, read_card):
    card = read_card({**manifest, "license": None})
    assert card.data.license == "unknown" and "license is unknown" in card.text
    assert "license is unknown" not in read_card({**manifest, "license": "mit"}).text


def test_the_license_comes_from_the_base_models_card(tmp_path):
    base = BaseRecord(source=str(tmp_path))
    assert base_license(base) is None
    (tmp_path / "README.md").write_text("# no metadata", "utf-8")
    assert base_license(base) is None
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# a base", "utf-8")
    assert base_license(base) == "apache-2.0"
    assert base_license(BaseRecord(source=str(tmp_path / "gone"))) is None


def test_the_ladder_and_what_else_was_measured_are_tables(manifest, read_card):
    bare = {key: value for key, value in manifest.items() if key not in MEASURED}
    text = read_card(bare).text
    assert "| onnx-int8 | onnx-fused |" in text
    assert "What else was tried" not in text and "## Stability" not in text
    search = [
        {"name": "int8-dynamic", "accuracy": 0.851, "accuracy_interval": [0.84, 0.86], "fits": True}
    ]
    stability = {"limit": 0.01, "cases": [{"name": "alone|8", "flips": 0, "largest": 0.0123}]}
    text = read_card({**manifest, "search": search, "stability": stability}).text
    assert "| int8-dynamic | 0.851 | 0.84 to 0.86 | yes |" in text
    assert "| alone\\|8 | 0 | 0.0123 |" in text


@pytest.mark.parametrize(
    ("content", "table"),
    [
        (None, ""),
        ([], ""),
        ({}, ""),
        ({"plain": {"p50_ms": 1.5}, "fused": {"p50_ms": None}}, "| plain | 1.5 |"),
        ({"int8": {"rows": 8, "ways": {"padded-64": {"flips": 2}}}}, "| int8, padded-64 | – | 2 |"),
        ({"chosen": "x", "candidates": [{"size_bytes": 12345}]}, "| 12,345 |"),
    ],
)
def test_records_of_any_shape(content, table):
    assert table in records_table(content)
    assert bool(records_table(content)) == bool(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# no metadata", "not complete"),
        ("---\nlicense: [\n---\n", "cannot be read"),
        ("---\nlicense: mit\nlanguage: ko\n---\n", "pipeline_tag, library_name"),
    ],
)
def test_a_card_that_is_not_valid_is_refused(tmp_path, content, message):
    (tmp_path / "README.md").write_text(content, "utf-8")
    with pytest.raises(FolderError, match=message):
        check_card(tmp_path / "README.md")
    with pytest.raises(FolderError, match="cannot be read"):
        check_card(tmp_path / "absent.md")
