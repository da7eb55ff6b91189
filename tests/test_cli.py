"""The command line as its users meet it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from evergrad.continual import VersionStore
from evergrad.datasets import cpython_code, cpython_prose

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

# The reference needs no compilation, of which numba would do seconds in every process.
ENVIRONMENT = os.environ | {
    "EVERGRAD_BACKEND": "reference",
    "EVERGRAD_NUM_THREADS": "1",
    "COLUMNS": "100",
    "NO_COLOR": "1",
}
ENVIRONMENT.pop("EVERGRAD_STORE", None)
SMALL = ["--dim", "16", "--layers", "1", "--heads", "2", "--window", "16", "--vocab-size", "300"]


def evergrad(*arguments, cwd=None, environment=ENVIRONMENT):
    command = [sys.executable, "-m", "evergrad", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=120
    )


def only_json(run):
    """Standard output, which must be one JSON object and nothing else."""
    value = json.loads(run.stdout)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    (folder / "code").mkdir()
    (folder / "prose.txt").write_text("\n\n".join(cpython_prose().train[:10]), "utf-8")
    for index, document in enumerate(cpython_code().train[:6]):
        (folder / "code" / f"{index}.py").write_text(document[:4000], "utf-8")
    (folder / "code" / "image.bin").write_bytes(bytes(range(256)))
    (folder / "empty.txt").write_text(" \n")
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture(scope="module")
def store(texts, tmp_path_factory):
    """Version 0001 learned prose; 0002 learned code from it."""
    root = tmp_path_factory.mktemp("cli") / "store"
    prose, code = texts / "prose.txt", texts / "code"
    trained = evergrad("train", prose, "--store", root, "--steps", 60, "--lr", "0.01", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert "Accepted: version 0001 is current." in trained.stdout
    assert "Progress: " in trained.stdout
    adapted = evergrad(
        "adapt", code, "--store", root, "--steps", 20, "--max-forgetting", 10, "--json"
    )
    assert adapted.returncode == 0, adapted.stderr
    report = only_json(adapted)
    assert report["accepted"]
    assert report["version"] == "0002"
    assert report["retained"] == [str(prose)], "by default what was learned"
    return root


def test_help_teaches():
    overview = evergrad("--help")
    assert overview.returncode == 0
    for word in ("train", "adapt", "generate", "eval", "versions", "rollback", "info", "demo"):
        assert re.search(rf"\b{word}\b", overview.stdout)
        one = evergrad(word, "--help")
        assert one.returncode == 0
        assert f"evergrad {word}" in one.stdout.split("Examples")[1]
    assert "Exit codes" in overview.stdout


def test_versions_lists_and_verifies(store):
    run = evergrad("versions", "--store", store, "--verify")
    assert run.returncode == 0
    assert run.stdout.count("intact") == 2
    assert "0002 current" in run.stdout
    value = only_json(evergrad("versions", "--store", store, "--json"))
    assert value["current"] == "0002"
    assert [row["version"] for row in value["versions"]] == ["0001", "0002"]
    assert [row["parent"] for row in value["versions"]] == [None, "0001"]


def test_generate_prints_a_continuation_that_its_seed_repeats(store):
    arguments = ["generate", "The naïve", "--store", store, "--max-new-tokens", 30]
    first, second = evergrad(*arguments, "--seed", 5), evergrad(*arguments, "--seed", 5)
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert first.stdout.startswith("The naïve")
    value = only_json(evergrad(*arguments, "--seed", 5, "--json"))
    assert first.stdout == value["prompt"] + value["text"] + "\n"
    folder = store / "versions" / "0001"
    assert evergrad("generate", "--model", folder, "--max-new-tokens", 5).returncode == 0


def test_eval_measures_what_the_report_says(store, texts):
    prose = str(texts / "prose.txt")
    value = only_json(evergrad("eval", prose, "--store", store, "--json"))
    report = VersionStore(store).get(2).report
    assert value["bits_per_byte"] == {prose: pytest.approx(report["after"][prose], rel=1e-6)}
    table = evergrad("eval", texts / "code", "--store", store, "--version", 1)
    assert table.returncode == 0
    assert "bits per byte" in table.stdout


def test_info_shows_the_machine_and_a_model(store):
    config = only_json(evergrad("info", "--json"))
    assert config["backend"] == "reference"
    assert "softmax" in evergrad("info").stdout
    model = only_json(evergrad("info", store, "--json"))
    assert model["version"] == "0002"
    assert model["n_embd"] == 16
    assert model["architecture"] == "GPT2, 1 layers"
    assert model["memory"] == {"float32": 4 * model["parameters"], "total": 4 * model["parameters"]}
    assert "parameters" in evergrad("info", store / "versions" / "0001").stdout


def test_rejection_has_its_own_exit_code_and_rollback_goes_back(store, texts, tmp_path):
    sums = tmp_path / "sums.txt"
    sums.write_text("\n\n".join(f"{i} + {i} = {2 * i}" * 40 for i in range(60)))
    arguments = ["--store", store, "--steps", 60, "--lr", "0.02", "--max-forgetting", 0]
    run = evergrad("adapt", sums, "--strategy", "naive", *arguments)
    assert run.returncode == 3, run.stderr
    assert "Rejected (kept as version 0003, 0002 stays current)" in run.stdout
    assert "more than the 0.0 % allowed" in run.stdout
    run = evergrad("adapt", sums, "--strategy", "naive", *arguments, "--discard-rejected", "--json")
    assert run.returncode == 3
    report = only_json(run)
    assert (report["accepted"], report["version"]) == (False, None)
    assert report["reasons"]

    assert evergrad("rollback", "--store", store, "--to", 3).returncode == 1
    value = only_json(evergrad("rollback", "--store", store, "--json"))
    assert (value["before"], value["current"]) == ("0002", "0001")
    assert evergrad("rollback", "--store", store, "--to", "0002").returncode == 0
    assert VersionStore(store).current().name == "0002"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "{texts}/missing.txt"], 1, "no such file, folder or glob"),
        (["train", "{texts}/*.none"], 1, "no such file, folder or glob"),
        (["train", "{texts}/empty.txt"], 1, "no text in it"),
        (["train", "{texts}/nothing"], 1, "no text in it"),
        (["train", "{texts}/code/image.bin"], 1, "no text in it"),
        (["train", "{texts}/prose.txt", "--tokenizer", "{texts}/prose.txt"], 1, "tokenizer"),
        (["train", "{texts}/prose.txt", "--lr", "-1"], 2, "lr must be finite"),
        (["train", "{texts}/prose.txt", "--heads", "3"], 2, "cannot be divided"),
        (["train", "{texts}/prose.txt", "--seconds", "nan"], 2, "--seconds"),
        (["train", "{texts}/prose.txt", "--patience", "2"], 2, "eval_every"),
        (["train", "{texts}/prose.txt", "--steps", "many"], 2, "--steps"),
        (["train"], 2, "TEXT"),
        (["adapt", "{texts}/code", "--max-forgetting", "-1"], 2, "--max-forgetting"),
        (["adapt", "{texts}/code"], 1, "no versions here"),
        (["versions"], 1, "no versions here"),
        (["rollback"], 1, "no versions here"),
        (["generate"], 1, "no versions here"),
        (["generate", "--model", "{texts}/missing"], 1, "no such folder"),
        (["generate", "--model", "{texts}"], 1, "tokenizer.json"),
        (["info", "{texts}/missing"], 1, "no such file or folder"),
        (["info", "{texts}"], 1, "expected config.json or a single .gguf file"),
        (["no-such-verb"], 2, "no-such-verb"),
    ],
)
def test_mistakes_get_a_line_and_an_exit_code(texts, tmp_path, arguments, code, message):
    run = evergrad(*(argument.format(texts=texts) for argument in arguments), cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    if code == 1:
        assert run.stderr.startswith("evergrad: ")
        assert len(run.stderr.splitlines()) == 1


def test_errors_are_json_too_where_json_is_asked_for(tmp_path):
    run = evergrad("versions", "--json", cwd=tmp_path)
    assert run.returncode == 1
    assert "no versions here" in only_json(run)["error"]


def test_train_refuses_a_store_that_has_versions(store, texts):
    run = evergrad("train", texts / "prose.txt", "--store", store)
    assert run.returncode == 1
    assert "is current; `evergrad adapt` goes on from it" in run.stderr


def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    run = evergrad("demo", "--out", tmp_path)
    assert run.returncode == 1
    assert "not from a demo" in run.stderr
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_damage_is_named(store):
    file = store / "versions" / "0001" / "model.safetensors"
    data = file.read_bytes()
    file.chmod(0o644)
    try:
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        run = evergrad("versions", "--store", store, "--verify")
        assert run.returncode == 1
        assert "does not match its checksum" in run.stdout.replace("\n", " ")
    finally:
        file.write_bytes(data)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_changes_nothing(store, texts):
    before = VersionStore(store).current().name, len(VersionStore(store).list())
    command = [sys.executable, "-m", "evergrad", "adapt", str(texts / "code")]
    process = subprocess.Popen(
        [*command, "--store", str(store), "--seconds", "100"],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stderr is not None
    assert "learns" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "interrupted; the current version is as it was" in error
    assert "Traceback" not in error
    assert (VersionStore(store).current().name, len(VersionStore(store).list())) == before
