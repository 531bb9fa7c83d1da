"""kotune export, predict, verify: what is printed and with which exit code."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys

import pytest

from export.cli import read_points
from finetune.core.errors import ModelError
from finetune.core.files import sha256_file
from finetune.models.loading import load_trained
from finetune.run_folder import open_run

TEXTS = ["최고 감동 명작 추천 영화", "최악 졸작 실망 별로 영화"]


@pytest.fixture
def kotune(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        import kotune

        capsys.readouterr()  # of a run that was trained for this test
        monkeypatch.setattr(sys, "argv", ["kotune", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            kotune.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_export_prints_the_ladder_and_the_folder(kotune, make_run, tmp_path):
    code, out, _ = kotune(
        "export",
        make_run("lora", "roberta"),
        "--output",
        tmp_path / "artifact",
        "export.max_accuracy_drop=1",
        "check_rows=20",
    )
    assert code == 0
    assert "accuracy" in out and "on 20 rows" in out and "onnx-int8" in out
    assert "int8" in out.splitlines()[-1]
    code, out, _ = kotune("verify", tmp_path / "artifact")
    first, seal = out.splitlines()
    assert code == 0
    assert first == "artifact roberta-lora: 12 files unchanged, export checks passed"
    assert sha256_file(tmp_path / "artifact" / "manifest.json") in seal


def test_a_crossed_gate_is_exit_code_1(kotune, make_run, tmp_path):
    code, out, err = kotune(
        "export",
        make_run("lora", "roberta"),
        "--output",
        tmp_path / "artifact",
        "export.max_logit_difference=1e-12",
    )
    assert code == 1
    assert "FAILED" in out
    assert "onnx-fp32" in err and "artifact.failed" in err and "Traceback" not in err
    assert (tmp_path / "artifact.failed" / "onnx" / "model_quantized.onnx").is_file()
    assert not (tmp_path / "artifact").exists()
    code, _, err = kotune("predict", tmp_path / "artifact.failed", "최고")
    assert code == 2
    assert "failed its export checks" in err


@pytest.mark.slow
def test_the_fastest_within_a_budget(kotune, make_run, tmp_path):
    code, out, err = kotune(
        "export",
        make_run("lora", "roberta"),
        "--output",
        tmp_path / "artifact",
        "--max-accuracy-drop",
        "100",
        "--for",
        "cpu",
        "--to",
        "int8,int8-weight",
        "max_flipped_above_margin=1",
        "timing_rows=8",
        "check_rows=40",
    )
    assert code == 0, err
    assert "chosen: " in out
    manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text("utf-8"))
    search = manifest["search"]
    assert (search["device"], search["max_accuracy_drop"], search["rows"]) == ("cpu", 1.0, 40)
    tried = {row["name"]: row for row in search["tried"]}
    assert {"fp32", "int8-dynamic-fused", "int8-dynamic-plain", "int8-weight"} <= set(tried)
    chosen = next(row for row in tried.values() if row["verdict"] == "chosen")
    fit = [
        row
        for row in tried.values()
        if row["verdict"] in ("chosen", "slower than the chosen one") and row["processes"] == 3
    ]
    assert chosen["processes"] == 3
    assert chosen["p50_batch1_ms"] == min(row["p50_batch1_ms"] for row in fit)
    key = manifest["preferred"]["cpu"]
    assert set(manifest["files"]) == {"fp32", key}
    assert (tmp_path / "artifact" / manifest["files"][key]["path"]).is_file()


@pytest.mark.parametrize(
    ("given", "share"),
    [("0.5", 0.005), ("1", 0.01), ("0.2pt", 0.002), ("0.01 points", 1e-4), ("2%", 0.02), ("0", 0)],
)
def test_a_budget_is_told_in_points(given, share):
    assert read_points(given) == pytest.approx(share)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0.01", "this looks like a share(.|\n)*--max-accuracy-drop 1 for that share, or 0.01pt"),
        ("-1", "0 to 100 points"),
        ("101", "0 to 100 points"),
        ("nan", "0 to 100 points"),
        ("half a point", "0 to 100 points"),
    ],
)
def test_what_is_no_number_of_points_is_told(kotune, make_run, given, message):
    code, _, err = kotune("export", make_run("lora", "roberta"), "--max-accuracy-drop", given)
    assert code == 2
    assert re.search(message, err), err


def test_predict_with_a_run_and_its_artifact(kotune, make_run, make_artifact):
    for folder in (make_run("lora", "roberta"), make_artifact("lora", "roberta")):
        code, out, _ = kotune("predict", folder, *TEXTS)
        assert code == 0
        rows = [line.split("\t") for line in out.splitlines()]
        assert [row[0] for row in rows] == ["긍정", "부정"]
        assert [row[2] for row in rows] == TEXTS
        assert all(0.5 < float(row[1]) <= 1 for row in rows)


def test_predict_from_file_and_standard_input_as_json(kotune, make_artifact, tmp_path):
    folder = make_artifact("lora", "roberta")
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeff".encode() + "\r\n".join(TEXTS).encode() + b"\r\n")
    from_file = kotune("predict", folder, "--file", file, "--json")
    from_stdin = kotune("predict", folder, "--json", stdin="\n".join(TEXTS).encode())
    assert from_file == from_stdin
    answers = [json.loads(line) for line in from_file[1].splitlines()]
    assert [answer["text"] for answer in answers] == TEXTS
    assert answers[0]["label"] == "긍정"
    assert set(answers[0]["scores"]) == {"부정", "긍정"}
    assert sum(answers[0]["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert answers[0]["score"] == max(answers[0]["scores"].values())


def test_a_table_is_predicted_by_the_reader_of_training(kotune, make_artifact, tmp_path):
    folder = make_artifact("lora", "roberta")
    (tmp_path / "x.csv").write_text(f'document,label\n"{TEXTS[0]}\n끝",1\n,0\n{TEXTS[1]},0\n')
    code, out, err = kotune("predict", folder, "--file", tmp_path / "x.csv", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [one["text"] for one in answers] == [f"{TEXTS[0]}\n끝", "", TEXTS[1]]
    assert (code, "1 of 3 rows have no text" in err) == (0, True)
    _, out, _ = kotune("predict", folder, "--file", tmp_path / "x.csv", "--column", "document")
    assert len(out.splitlines()) == 3
    (tmp_path / "x.jsonl").write_text(json.dumps({"review": TEXTS[0]}) + "\n")
    code, _, err = kotune("predict", folder, "--file", tmp_path / "x.jsonl")
    assert (code, "--column NAME" in err, "columns review" in err) == (2, True, True)
    code, out, _ = kotune("predict", folder, "--file", tmp_path / "x.jsonl", "--column", "review")
    assert (code, len(out.splitlines())) == (0, 1)
    (tmp_path / "ratings.txt").write_text(f"id\tdocument\tlabel\n1\t{TEXTS[0]}\t1\n")
    code, _, err = kotune("predict", folder, "--file", tmp_path / "ratings.txt")
    assert (code, "a table, not one text a line" in err) == (2, True)


def test_bytes_that_are_no_text_are_u_fffd(kotune, make_artifact):
    code, out, _ = kotune("predict", make_artifact("lora", "roberta"), "\udcff 최고", "--json")
    assert (code, json.loads(out)["text"]) == (0, "\ufffd 최고")


def test_verify_names_the_changed_file(kotune, make_artifact, tmp_path):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    with (folder / "tokenizer.json").open("ab") as stream:
        stream.write(b" ")
    code, _, err = kotune("verify", folder)
    assert code == 2
    assert "tokenizer.json was changed" in err


def test_verify_tells_of_files_nobody_vouches_for(kotune, make_artifact, tmp_path):
    folder = shutil.copytree(make_artifact("lora", "roberta"), tmp_path / "copy")
    (folder / "notes.txt").write_text("mine")
    code, out, _ = kotune("verify", folder)
    assert code == 0
    assert "not of the artifact: notes.txt" in out


def test_verify_takes_a_run_too(kotune, make_run):
    code, out, _ = kotune("verify", make_run("lora", "roberta"))
    assert code == 0
    assert "files unchanged" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "nowhere"), "does not exist"),
        (("predict", "nowhere", "text"), "no such folder"),
        (("predict", ".", "text"), "neither a run nor an artifact"),
        (("verify", "nowhere"), "does not exist"),
        (("predict", "{artifact}", "text", "--precision", "int3"), "no int3 file"),
        (("predict", "{artifact}", "--file", "nowhere.txt"), "cannot be read"),
        (("predict", "{artifact}", "text", "--file", "nowhere.txt"), "not both"),
        (("predict", "{run}", "text", "--precision", "int8"), "no precisions"),
        (("export", "{artifact}"), "artifact folder"),
        (("export", "{run}", "check_row=3"), "did you mean `check_rows`"),
        (("export", "{run}", "--to", "int3"), "int8-static"),
        (("export", "{run}", "--for", "cuda"), "no CUDAExecutionProvider"),
        (("export", "{run}", "--to", "int8-static", "--for", "cuda"), "runs on the CPU only"),
    ],
)
def test_wrong_input_is_exit_code_2(kotune, make_run, make_artifact, arguments, message):
    folders = {"run": make_run("lora", "roberta"), "artifact": make_artifact("lora", "roberta")}
    code, _, err = kotune(*(argument.format(**folders) for argument in arguments))
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "message"), [("영화".encode("cp949"), "iconv -f CP949"), (b"", "no text")]
)
def test_unreadable_input_is_told(kotune, make_artifact, content, message):
    code, _, err = kotune("predict", make_artifact("lora", "roberta"), stdin=content)
    assert code == 2
    assert message in err


def test_help_and_prediction_on_an_artifact_do_not_import_torch(make_artifact):
    code = (
        "import sys, kotune\n"
        "sys.argv = ['kotune', *sys.argv[1:]]\n"
        "try:\n    kotune.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = [name for name in ('torch', 'transformers') if name in sys.modules]\n"
        "print(heavy, file=sys.stderr)"
    )
    folder = str(make_artifact("lora", "roberta"))
    for arguments in (["--help"], ["export", "--help"], ["predict", folder, "최고"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stderr.strip() == "[]", arguments


@pytest.mark.parametrize("command", ["export", "predict"])
def test_a_run_with_pickled_weights_only_is_not_read(kotune, make_run, tmp_path, command):
    folder = shutil.copytree(make_run("full", "bert"), tmp_path / "run")
    (folder / "model" / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")
    code, _, err = kotune(command, folder, *(["text"] if command == "predict" else []))
    assert code == 2
    assert "model.safetensors" in err
    with pytest.raises(ModelError, match="safetensors"):  # not even where hashes are not checked
        load_trained(open_run(folder, verify=False))
