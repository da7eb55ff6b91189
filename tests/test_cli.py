"""The command line as its users meet it: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import evergrad as evergrad_package
from evergrad import models
from evergrad.continual import Report, ScoreMatrix, VersionStore, begin
from evergrad.datasets import cpython_code, cpython_prose
from evergrad.models import GPT2, BertConfig, Conversation, GPT2Config, T5Config
from evergrad.text import Tokenizer
from evergrad.train import FitConfig, encode_domain

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


def words(message):
    """An error without the frame around it, and its line breaks."""
    return " ".join(message.replace("│", " ").split())


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
    for word in (
        "train",
        "adapt",
        "generate",
        "chat",
        "explain",
        "eval",
        "versions",
        "rollback",
        "info",
        "bench",
        "demo",
    ):
        assert re.search(rf"\b{word}\b", overview.stdout)
        one = evergrad(word, "--help")
        assert one.returncode == 0
        assert f"evergrad {word}" in one.stdout.split("Examples")[1]
    assert "Exit codes" in overview.stdout
    about, tour = overview.stdout.split("A first tour")
    for word in ("train", "adapt", "generate", "chat", "explain"):
        assert word in about.split("Commands")[0]
        assert f"evergrad {word} " in tour


def test_version_of_the_package():
    run = evergrad("--version")
    assert (run.returncode, run.stdout) == (0, f"evergrad {evergrad_package.__version__}\n")


def test_versions_lists_and_verifies(store):
    run = evergrad("versions", "--store", store, "--verify")
    assert run.returncode == 0
    assert run.stdout.count("intact") == 2
    assert "0002 current" in run.stdout
    value = only_json(evergrad("versions", "--store", store, "--json"))
    assert value["current"] == "0002"
    assert [row["version"] for row in value["versions"]] == ["0001", "0002"]
    assert [row["parent"] for row in value["versions"]] == [None, "0001"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parent", 7),
        ("domain", 5),
        ("strategy", "replay"),
        ("progress_percent", "much"),
        ("forgetting_percent", [1.0]),
        ("forgetting_percent", {"prose": "none"}),
    ],
)
def test_versions_lists_the_others_beside_an_edited_report(store, tmp_path, name, value):
    root = tmp_path / "store"
    shutil.copytree(store, root)
    file = root / "versions" / "0001" / "report.json"
    report = json.loads(file.read_text("utf-8")) | {name: value}
    file.chmod(0o644)
    file.write_text(json.dumps(report), "utf-8")
    run = evergrad("versions", "--store", root)
    assert run.returncode == 1
    assert "unreadable" in run.stdout
    assert f"report.json: {name} must not be {value!r}" in words(run.stdout)
    assert "0002 current" in run.stdout
    assert "Traceback" not in run.stderr
    file.write_text("[]")
    run = evergrad("versions", "--store", root)
    assert (run.returncode, "0002 current" in run.stdout) == (1, True), run.stderr


def test_versions_shows_scores_that_are_not_finite(store, tmp_path):
    model, tokenizer = VersionStore(store).current().load()
    broken = VersionStore(tmp_path / "broken")
    scores = ScoreMatrix()
    scores.add("untrained", None, {"code": 4.0, "prose": 3.0})
    report = Report(
        kind="adapt",
        domain="code",
        retained=["prose"],
        before={"code": 4.0, "prose": 2.0},
        after={"code": math.nan, "prose": math.nan},
        scores=scores,
        accepted=False,
    )
    broken.add(model, tokenizer, report.to_dict())
    broken.add(model, tokenizer, {"accepted": True})  # one that was not measured
    run = evergrad("versions", "--store", broken.root)
    assert run.returncode == 0, run.stderr
    rejected, accepted = run.stdout.splitlines()[1:]
    assert rejected.count("not finite") == 2
    assert accepted.split() == ["0002", "current", "-", "-", "-", "-", "-", "accepted"]


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


def test_generate_stops_where_it_is_told_to(store):
    arguments = ["generate", "The", "--store", store, "--temperature", 0, "--json"]
    text = only_json(evergrad(*arguments, "--max-new-tokens", 30))["text"]
    stop = text[5:7]
    value = only_json(evergrad(*arguments, "--stop", "#absent#", "--stop", stop))
    assert value["text"] == text[: text.index(stop)]
    assert 0 < value["tokens"] <= 30
    endless = evergrad(*arguments, "--stop", stop, "--max-new-tokens", 10**9)
    assert only_json(endless) == value
    run = evergrad(*arguments, "--stop", "")
    assert run.returncode == 2
    assert "stop string must not be empty" in run.stderr


@pytest.mark.parametrize("verb", ["generate", "explain", "eval"])
def test_a_model_and_a_store_exclude_each_other(store, texts, verb):
    folder = store / "versions" / "0001"
    arguments = [verb, texts / "prose.txt" if verb == "eval" else "The", "--model", folder]
    for more in (["--store", store], ["--version", 1], ["--store", "evergrad-store"]):
        run = evergrad(*arguments, *more)
        assert run.returncode == 2
        assert f"got --model and {more[0]}" in words(run.stderr)
        assert run.stdout == ""
    # Where models usually come from is no demand.
    environment = ENVIRONMENT | {"EVERGRAD_STORE": "elsewhere"}
    run = evergrad(*arguments, "--json", environment=environment)
    assert run.returncode == 0, run.stderr
    assert only_json(run)["model"] == str(folder)


@pytest.fixture
def chatty(store, tmp_path):
    """A model with a chat template, and room for a short conversation."""
    tokenizer = evergrad_package.from_pretrained(store / "versions" / "0001").tokenizer
    model = GPT2(GPT2Config(tokenizer.vocab_size, context=512, layers=1, heads=2, dim=16))
    model.tokenizer = tokenizer
    model.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    )
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_chat_answers_each_line(chatty):
    model, folder = chatty
    conversation = Conversation(model, [{"role": "system", "content": "Be."}])
    expected = ""
    for line in ("Hello", "And naïve?"):
        conversation.messages.append({"role": "user", "content": line})
        expected += "".join(conversation.reply(8)) + "\n"
    command = [sys.executable, "-m", "evergrad", "chat", "--model", folder, "--system", "Be."]
    run = subprocess.run(
        [*command, "--temperature", "0", "--max-new-tokens", "8"],
        input="Hello\n\nAnd naïve?\n/exit\nnever asked\n",
        capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == expected
    assert run.stderr == ""


def chat(folder, given, *arguments, environment=ENVIRONMENT):
    """The output and the error, as text, of a chat whose input is bytes."""
    command = [sys.executable, "-m", "evergrad", "chat", "--model", folder, "--temperature", "0"]
    run = subprocess.run(
        [*command, "--max-new-tokens", "8", *arguments],
        input=given, capture_output=True, env=environment, check=False, timeout=120,
    )  # fmt: skip
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def test_chat_replies_in_lines_of_json(chatty):
    model, folder = chatty
    said = [{"role": "user", "content": "Hello"}]
    code, output, error = chat(folder, b"Hello\nAgain\n", "--json")
    assert (code, error) == (0, "")
    first, second = map(json.loads, output.splitlines())
    reply = model.chat(said, 8)
    # Read again, these tokens' text may have more: halves of characters do.
    asked = model.tokenizer.encode(model.tokenizer.chat(said), parse_special=True)
    drawn = list(model.stream(asked, 8, temperature=0))
    assert first == {"role": "assistant", "content": reply, "tokens": len(drawn)}
    said += [{"role": "assistant", "content": reply}, {"role": "user", "content": "Again"}]
    assert second["content"] == model.chat(said, 8)
    assert second["role"] == "assistant"


def test_chat_counts_the_tokens_that_it_drew(chatty):
    model, folder = chatty
    model.wte.weight.data[...] *= 100  # any token after another
    model.save_pretrained(folder)
    given = b"Hello\nAgain\nAnd\nOn\n"
    code, output, error = chat(folder, given, "--json", "--temperature", "1e6")
    assert (code, error) == (0, "")
    replies = [json.loads(line) for line in output.splitlines()]
    assert len(replies) == 4
    assert all(reply["tokens"] <= 8 for reply in replies)
    again = [len(model.tokenizer.encode(reply["content"])) for reply in replies]
    assert max(again) > 8, "the texts hold halves of characters"


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_chat_needs_its_streams(chatty, closed):
    command = ["sh", "-c", f'"$0" -m evergrad chat --model "$1" {closed}', sys.executable]
    run = subprocess.run(
        [*command, chatty[1]],
        input="Hello\n", capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr == "evergrad: standard input or output is closed, and a chat needs both\n"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_chat_says_which_line_is_not_utf_8(chatty, errors):
    environment = ENVIRONMENT | {"PYTHONIOENCODING": f"utf-8:{errors}"}
    given = b"Hello\n\nCaf\xe9\nnever asked\n"
    code, output, error = chat(chatty[1], given, environment=environment)
    assert (code, error) == (1, "evergrad: line 3 of the input is not UTF-8\n")
    assert output == chat(chatty[1], b"Hello\n")[1]
    output = chat(chatty[1], given, "--json", environment=environment)[1]
    reply, problem = map(json.loads, output.splitlines())
    assert list(reply) == ["role", "content", "tokens"]
    assert problem == {"error": "line 3 of the input is not UTF-8"}


def test_chat_counts_before_it_replies(chatty):
    model, folder = chatty
    long = "long " * 200
    written = model.tokenizer.chat([{"role": "user", "content": long.strip()}])
    count = len(model.tokenizer.encode(written, parse_special=True))
    code, output, error = chat(folder, long.encode())
    assert (code, output) == (1, "")
    assert f"the conversation has {count:,} tokens" in error
    assert "context of 512" in error
    assert len(error.splitlines()) == 1

    # To the token: a conversation that leaves room for one is replied to.
    def length(letters):
        said = model.tokenizer.chat([{"role": "user", "content": letters * "x"}])
        return len(model.tokenizer.encode(said, parse_special=True))

    fits = next(letters for letters in range(2000) if length(letters + 1) == 512)
    assert length(fits) == 511
    assert chat(folder, fits * b"x")[0] == 0
    assert chat(folder, (fits + 1) * b"x")[0] == 1


@pytest.mark.parametrize(
    "arguments", [["generate"], ["explain"], ["chat", "--model", "none", "--system"]], ids=str
)
def test_arguments_that_are_not_utf_8_are_wrong_usage(tmp_path, arguments):
    command = [sys.executable, "-m", "evergrad", *arguments, b"caf\xe9"]
    run = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=False
    )
    assert run.returncode == 2
    assert "expected text in UTF-8" in words(run.stderr)


def test_chat_in_a_terminal(chatty):
    """A reply that Ctrl-C stops, a question after it, and Ctrl-D."""
    pty = pytest.importorskip("pty")
    child, terminal = pty.fork()
    if child == 0:
        command = ["-m", "evergrad", "chat", "--model", str(chatty[1]), "--max-new-tokens"]
        os.execve(sys.executable, [sys.executable, *command, "1000000"], ENVIRONMENT)
    seen = b""

    def until(mark, after):
        nonlocal seen
        while seen.find(mark, after) < after:
            seen += os.read(terminal, 4096)
        return seen.index(mark, after) + len(mark)

    at = until(b"> ", until(b"Ctrl-D ends", 0))
    for question in (b"Hello\n", b"Again\n"):
        os.write(terminal, question)
        at = until(question.strip() + b"\r\n", at)
        at = until(b"", at + 1)  # the reply has begun
        os.write(terminal, b"\x03")
        at = until(b"\r\n> ", at)
    os.write(terminal, b"\x04")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)


def test_chat_in_a_terminal_drops_what_is_too_long(chatty):
    pty = pytest.importorskip("pty")
    child, terminal = pty.fork()
    if child == 0:
        command = ["-m", "evergrad", "chat", "--model", str(chatty[1]), "--max-new-tokens", "2"]
        os.execve(sys.executable, [sys.executable, *command], ENVIRONMENT)
    seen = b""

    def until(mark):
        nonlocal seen
        seen = b""
        while mark not in seen:
            seen += os.read(terminal, 4096)

    until(b"> ")
    os.write(terminal, 600 * b"#" + b"\n")
    until(b"the message is dropped\r\n> ")
    assert b"no room for a reply in the model's context of 512" in seen
    os.write(terminal, b"Hello\n")
    until(b"\r\n> ")
    assert b"dropped" not in seen
    os.write(terminal, b"/exit\n")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)


def test_chat_needs_a_template(store):
    run = evergrad("chat", "--model", store / "versions" / "0001")
    assert run.returncode == 1
    assert "no chat template" in run.stderr
    assert evergrad("chat").returncode == 2


def test_a_text_opens_few_rooms(store):
    code = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from evergrad.cli import main
main()
"""
    model = store / "versions" / "0001"
    run = subprocess.run(
        [sys.executable, "-c", code, "generate", "--model", model, "--max-new-tokens", "1"],
        capture_output=True, text=True, env=ENVIRONMENT, check=True, timeout=120,
    )  # fmt: skip
    imported = set(run.stderr.split())
    assert "evergrad.models.gpt2" in imported
    assert not imported & {"evergrad.continual", "evergrad.bench", "evergrad.train", "matplotlib"}
    assert not imported & {"evergrad.models.bert", "evergrad.models.t5", "evergrad.models.beam"}
    # Text that is only echoed, nothing drawn anew; older releases of these two open them.
    theirs = subprocess.run(
        [sys.executable, "-c", "import sys, numpy, typer; print(*sys.modules)"],
        capture_output=True, text=True, env=ENVIRONMENT, check=True, timeout=120,
    )  # fmt: skip
    assert not (imported - set(theirs.stdout.split())) & {"rich", "numpy.random"}


@pytest.mark.parametrize("package", ["rich", "typer"])
@pytest.mark.parametrize("arguments", [(), ("info",), ("generate", "--store", "nope")])
def test_a_missing_package_is_named(package, arguments):
    code = f"import sys; sys.modules[{package!r}] = None; from evergrad.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert run.returncode == 1
    expected = f"evergrad: the command line needs {package}: pip install 'evergrad[cli]'"
    assert run.stderr.strip() == expected


def test_a_command_collects_garbage_but_not_among_what_lasts(store):
    code = """
import atexit, gc, sys
from evergrad.cli import main
atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 10_000, file=sys.stderr))
main()
"""
    command = [sys.executable, "-c", code, "generate", "--model", str(store / "versions" / "0001")]
    run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert run.stderr.split() == ["True", "True"]


def test_eval_measures_what_the_report_says(store, texts):
    prose = str(texts / "prose.txt")
    value = only_json(evergrad("eval", prose, "--store", store, "--json"))
    report = VersionStore(store).get(2).report
    assert value["bits_per_byte"] == {prose: pytest.approx(report["after"][prose], rel=1e-6)}
    table = evergrad("eval", texts / "code", "--store", store, "--version", 1)
    assert table.returncode == 0
    assert "bits per byte" in table.stdout


@pytest.mark.parametrize("family", ["Bert", "T5"])
def test_eval_refuses_what_does_not_continue_texts(store, texts, tmp_path, family):
    tokenizer = evergrad_package.from_pretrained(store / "versions" / "0001").tokenizer
    config = {
        "Bert": lambda: BertConfig(tokenizer.vocab_size, 64, layers=1, heads=2, dim=8, hidden=8),
        "T5": lambda: T5Config(tokenizer.vocab_size, layers=1, heads=2, dim=8, hidden=8),
    }[family]()
    model = getattr(models, family)(config)
    model.tokenizer = tokenizer
    model.save_pretrained(tmp_path)
    run = evergrad("eval", texts / "prose.txt", "--model", tmp_path, "--json")
    assert run.returncode == 1
    assert run.stderr == f"evergrad: {tmp_path}: {family} is no model that continues texts\n"
    assert "continues texts" in only_json(run)["error"]


@pytest.mark.parametrize("verb", ["generate", "explain", "eval", "chat"])
def test_a_tokenizer_of_a_larger_model_is_refused(chatty, texts, verb):
    model, folder = chatty
    small = GPT2(GPT2Config(258, context=512, layers=1, heads=2, dim=16))
    small.tokenizer = model.tokenizer
    small.save_pretrained(folder)
    if verb == "chat":
        code, output, error = chat(folder, b"the statement")
    else:
        text = texts / "prose.txt" if verb == "eval" else "the statement"
        run = evergrad(verb, text, "--model", folder)
        code, output, error = run.returncode, run.stdout, run.stderr
    assert (code, output) == (1, "")
    assert error.splitlines()[-1].startswith(f"evergrad: {folder}: its tokenizer makes token ")
    assert "Traceback" not in error


def test_a_missing_tokenizer_is_told_with_the_remedy(chatty):
    folder = chatty[1]
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    run = evergrad("generate", "The", "--model", folder)
    assert (run.returncode, run.stdout) == (1, "")
    told = (
        f"evergrad: {folder}: texts need a tokenizer: expected a tokenizer.json, found vocab.json"
    )
    assert run.stderr.startswith(f"{told}; to make one, in Python: import transformers; ")


@pytest.mark.parametrize("verb", ["generate", "explain", "eval", "chat"])
def test_weights_that_have_diverged_get_a_line(chatty, texts, verb):
    model, folder = chatty
    model.wte.weight.data[...] = math.nan
    model.save_pretrained(folder)
    if verb == "chat":
        code, output, error = chat(folder, b"Hello", "--json")
    else:
        text = texts / "prose.txt" if verb == "eval" else "The statement"
        run = evergrad(verb, text, "--model", folder, "--json")
        code, output, error = run.returncode, run.stdout, run.stderr
    assert code == 1
    assert "NaN: the model's weights have diverged" in json.loads(output)["error"]
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("option", "value"),
    [("--temperature", "1e31"), ("--top-k", "9" * 20), ("--repetition-penalty", "1e300")],
)
def test_sampling_out_of_range_is_wrong_usage(store, option, value):
    run = evergrad("generate", "The", "--store", store, option, value)
    assert (run.returncode, run.stdout) == (2, "")
    assert f"Invalid value for '{option}': " in words(run.stderr)
    assert "Warning" not in run.stderr


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


def test_a_damaged_pointer_is_mended_by_rollback(store, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(store, root)
    (root / "current").write_text("0099")
    assert "choose one with `evergrad rollback --to`" in evergrad("info", root).stderr
    value = only_json(evergrad("rollback", "--store", root, "--to", 1, "--json"))
    assert (value["before"], value["current"]) == (None, "0001")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_texts_may_have_names_that_are_no_text(texts, tmp_path):
    name = tmp_path / os.fsdecode(b"caf\xe9.txt")
    name.write_text((texts / "prose.txt").read_text("utf-8"), "utf-8")
    root = tmp_path / "store"
    plain = ENVIRONMENT | {"PYTHONIOENCODING": "utf-8:backslashreplace"}
    steps = ["--store", root, "--steps", 1]
    run = evergrad("train", name, *steps, *SMALL, environment=plain)
    assert run.returncode == 0, run.stderr
    run = evergrad("adapt", texts / "code", *steps, "--json", environment=plain)
    assert only_json(run)["retained"] == [str(name)], run.stderr
    run = evergrad("versions", "--store", root, "--verify", environment=plain)
    assert run.returncode == 0, run.stderr
    assert "caf\\udce9" in run.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize("blank", [" ", ""], ids=["words", "one word"])
def test_a_text_of_a_single_line_is_cut(tmp_path, blank):
    from evergrad.cli import _texts

    content = blank.join(str(number * number) for number in range(9000))
    (tmp_path / "line.txt").write_text(content)
    domain = _texts.resolve(str(tmp_path / "line.txt"))
    parts = domain.train + domain.heldout
    assert max(map(len, parts)) <= _texts.LONGEST_PART
    assert sum(map(len, parts)) == len(content)
    assert all(part in content for part in parts)
    if blank:
        assert all(part.endswith(" ") or content.endswith(part) for part in parts)


@pytest.mark.parametrize("name", ["versions", "unfinished"])
def test_a_store_among_the_texts_is_none_of_them(store, texts, tmp_path, monkeypatch, name):
    """`evergrad train .` keeps its store there: what it learned must be the same text later."""
    from evergrad.cli import _texts

    shutil.copytree(texts / "code", tmp_path / "versions")  # as texts may be called, too
    monkeypatch.chdir(tmp_path)
    before = {pattern: _texts.resolve(pattern) for pattern in (".", "**", "versions")}
    for root in (tmp_path / "evergrad-store", tmp_path / "deep" / "store"):
        if name == "versions":
            shutil.copytree(store, root)
        else:
            step = root / "unfinished" / "0123456789ab" / "step-00000020"
            step.mkdir(parents=True)
            (step / "state.json").write_text("{}\n" * 2000)
    assert {pattern: _texts.resolve(pattern) for pattern in before} == before
    for each in ("versions", "unfinished"):
        (tmp_path / each).mkdir(exist_ok=True)
        (tmp_path / each / "mine.txt").write_text("My own text.\n" * 200)
    with_mine = _texts.resolve(".")
    shutil.copytree(store, tmp_path, dirs_exist_ok=True)
    assert _texts.resolve(".") == with_mine, "a store in the same folder"
    shutil.copytree(store, tmp_path / "store")
    report = tmp_path / "store" / "versions" / "0001" / "report.json"
    assert _texts.read(str(report)) == [report.read_text("utf-8")], "asked for by its name"


def test_adapt_goes_on_from_the_demo(texts, tmp_path):
    """Which calls CPython's texts prose and code."""
    prose = cpython_prose()
    tokenizer = Tokenizer.train(prose.train[:10], 300)
    begin(
        VersionStore(tmp_path / "demo"),
        GPT2(GPT2Config(tokenizer.vocab_size, context=16, dim=8, layers=1, heads=1)),
        tokenizer,
        encode_domain(prose, tokenizer, max_heldout_bytes=2000),
        FitConfig(steps=1, window=16),
        progress=False,
    )
    steps = ["--store", "demo", "--steps", 1, "--json"]
    run = evergrad("adapt", texts / "code", *steps, cwd=tmp_path)
    assert only_json(run)["retained"] == ["prose"], run.stderr


def test_adapt_says_why_it_looks_for_a_text(store, texts, tmp_path):
    """The first version learned a text whose name is a path relative to a folder."""
    root = tmp_path / "store"
    (tmp_path / "old.txt").write_text((texts / "prose.txt").read_text("utf-8"), "utf-8")
    trained = evergrad(
        "train", "old.txt", "--store", root, "--steps", 1, *SMALL, "--dim", 8, cwd=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    run = evergrad("adapt", texts / "code", "--store", root, "--steps", 1, cwd=texts)
    assert run.returncode == 1
    told = "old.txt: no such file, folder or glob"
    assert told in run.stderr
    assert "version 0001 has learned it and must remember it" in run.stderr
    run = evergrad("adapt", texts / "code", "--store", root, "--retain", "old.txt", cwd=texts)
    assert told in run.stderr
    assert "has learned" not in run.stderr


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
        (["train", ""], 1, "the name of a text is empty"),
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
        (["explain", "x", "--model", "none", "--plot", "none/a.png"], 2, "'--plot': cannot write"),
        (
            ["explain", "x", "--model", "none", "--plot", "{texts}/prose.txt/a.png"],
            2,
            "'--plot': cannot",
        ),
        (["bench", "--plot", "none/a.png"], 2, "'--plot': cannot write"),
        (["bench", "--roofline", "none/a.png"], 2, "'--roofline': cannot write"),
        (["adapt", "{texts}/code", "--max-forgetting", "-1"], 2, "--max-forgetting"),
        (["adapt", "{texts}/code"], 1, "no versions here"),
        (["versions"], 1, "no versions here"),
        (["rollback"], 1, "no versions here"),
        (["rollback", "--to", "2"], 1, "no versions here"),
        (["generate"], 1, "no versions here"),
        (["generate", "--model", "{texts}/missing"], 1, "no such file or folder"),
        (["generate", "--model", "{texts}"], 1, "expected config.json"),
        (["info", "{texts}/missing"], 1, "no such file or folder"),
        (["info", "{texts}"], 1, "expected config.json or a single .gguf file"),
        (["no-such-verb"], 2, "no-such-verb"),
    ],
)
def test_mistakes_get_a_line_and_an_exit_code(texts, tmp_path, arguments, code, message):
    run = evergrad(*(argument.format(texts=texts) for argument in arguments), cwd=tmp_path)
    assert run.returncode == code, run.stderr
    assert message in words(run.stderr)
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"
    if code == 1:
        assert run.stderr.startswith("evergrad: ")
        assert len(run.stderr.splitlines()) == 1


def test_errors_are_json_too_where_json_is_asked_for(tmp_path):
    run = evergrad("versions", "--json", cwd=tmp_path)
    assert run.returncode == 1
    assert "no versions here" in only_json(run)["error"]
    run = evergrad("generate", "The", "--top-k", "many", "--json")
    assert run.returncode == 2
    assert only_json(run)["error"].startswith("Invalid value for '--top-k': 'many' is not")
    assert "Usage: " in run.stderr


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ISA", "sse9", "expected one that this CPU and build have"),
        ("BACKEND", "cuda", "expected one of native, numba, reference, got 'cuda'"),
        ("NUM_THREADS", "0", "expected an integer from 1 to 1024, got '0'"),
    ],
)
def test_nonsense_in_the_environment_is_wrong_usage(name, value, expected):
    if name == "ISA":
        pytest.importorskip("evergrad._native")
    run = evergrad("info", "--json", environment=ENVIRONMENT | {f"EVERGRAD_{name}": value})
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"evergrad: EVERGRAD_{name}: {expected}")
    assert line == f"evergrad: {only_json(run)['error']}"


def to_bytes(*arguments, encoding):
    """What a command writes where standard output has some encoding."""
    run = subprocess.run(
        [sys.executable, "-m", "evergrad", *arguments], capture_output=True,
        env=ENVIRONMENT | {"PYTHONIOENCODING": encoding}, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_what_the_output_cannot_encode_is_escaped(chatty):
    prompt, folder = "naïve 日本🙂", str(chatty[1])
    options = ["--model", folder, "--max-new-tokens", "0"]
    output = to_bytes("generate", prompt, *options, encoding="latin-1")
    assert output == "naïve \\u65e5\\u672c\\U0001f642\n".encode("latin-1")
    output = to_bytes("generate", prompt, *options, "--json", encoding="latin-1")
    assert json.loads(output.decode("latin-1"))["prompt"] == prompt
    output = to_bytes("explain", prompt, "--model", folder, encoding="latin-1")
    assert b"bits per token" in output


def test_a_path_with_brackets_is_no_markup(chatty, texts, tmp_path):
    folder = tmp_path / "[red]"
    folder.mkdir()
    for name in os.listdir(tmp_path):
        if os.path.isfile(tmp_path / name):
            os.link(tmp_path / name, folder / name)
    for arguments in (
        ["eval", texts / "prose.txt", "--model", "[red]"],
        ["info", "[red]"],
        ["explain", "The", "--model", "[red]", "--plot", "[red]/a.png"],
    ):
        run = evergrad(*arguments, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert "[red]" in run.stdout + run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs paths of any bytes")
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_path_that_is_no_text_is_json_too(chatty, tmp_path, errors):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for name in os.listdir(tmp_path):
        if os.path.isfile(tmp_path / name):
            os.link(tmp_path / name, folder + b"/" + os.fsencode(name))
    output = to_bytes("info", folder, "--json", encoding=f"utf-8:{errors}")
    assert json.loads(output.decode())["path"] == os.fsdecode(folder)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full disk")
def test_a_full_disk_gets_a_line():
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "evergrad", "info", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False,
            timeout=60,
        )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr == "evergrad: [Errno 28] No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="needs pipes without a reader")
def test_an_error_is_told_where_nobody_reads_the_result(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "evergrad", "versions", "--json"],
        stdout=writer, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False,
        cwd=tmp_path, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert run.returncode == 1
    assert "no versions here" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_train_refuses_a_store_that_has_versions(store, texts):
    run = evergrad("train", texts / "prose.txt", "--store", store)
    assert run.returncode == 1
    assert "is current; `evergrad adapt` goes on from it" in run.stderr


def leave_a_checkpoint(store, *train):
    """Kill a training as soon as it has one."""
    command = [sys.executable, "-m", "evergrad", *train, "--store", store, "--checkpoint-every", 1]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    while not list(store.glob("unfinished/*/step-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_resume_with_other_settings_gets_a_line(texts, tmp_path):
    train = ["train", texts / "prose.txt", *SMALL]
    leave_a_checkpoint(tmp_path, *train)
    run = evergrad(*train, "--store", tmp_path, "--resume", "--lr", "0.5")
    assert run.returncode == 1
    assert "was made with other settings: lr was 0.003, is 0.5" in words(run.stderr)
    assert "Traceback" not in run.stderr


def test_resume_says_when_it_begins(texts, tmp_path):
    run = evergrad(
        "train", texts / "prose.txt", "--store", tmp_path, *SMALL, "--steps", 1, "--resume"
    )
    assert run.returncode == 0, run.stderr
    assert "no checkpoint of this model and this text yet: from the beginning" in run.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("settings", [["--checkpoint-every", 2], []], ids=["again", "without"])
def test_a_first_version_leaves_no_unfinished_ones(texts, tmp_path, settings):
    """Whose checkpoints nobody could resume any more: this store has its first version."""
    train = ["train", texts / "prose.txt", *SMALL]
    leave_a_checkpoint(tmp_path, *train)
    run = evergrad(*train, "--store", tmp_path, "--steps", 2, "--dim", 8, *settings)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "current", "versions"]


def test_a_first_version_leaves_what_is_not_its_store_s(texts, tmp_path):
    novel = tmp_path / "unfinished" / "novel.txt"
    novel.parent.mkdir()
    novel.write_text("mine")
    run = evergrad("train", texts / "prose.txt", "--store", tmp_path, *SMALL, "--steps", 1)
    assert run.returncode == 0, run.stderr
    assert novel.read_text() == "mine"


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


@pytest.mark.parametrize("arguments", [["info"], ["generate", "The", "--model"]], ids=str)
def test_weights_of_the_wrong_type_get_a_line(store, tmp_path, arguments):
    from safetensors.numpy import load_file, save_file

    for file in (store / "versions" / "0001").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith("ln_f.weight"))
    tensors[name] = tensors[name].astype("int64")
    save_file(tensors, tmp_path / "model.safetensors")
    run = evergrad(*arguments, tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"evergrad: {tmp_path}: ")
    assert "int64" in line


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_speaks_of_versions_only_where_they_change(chatty):
    process = subprocess.Popen(
        [sys.executable, "-m", "evergrad", "chat", "--model", chatty[1], "--max-new-tokens", "4"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("Hello\n")
    process.stdin.flush()
    process.stdout.read(1)  # it replies
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert (process.returncode, error) == (130, "evergrad: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
@pytest.mark.parametrize("package", ["numpy", "typer"])
def test_ctrl_c_before_the_command_is_there_gets_a_line(package):
    code = """
import os, signal, sys
name = sys.argv.pop(1)
class Interrupts:
    def find_spec(self, package, *_):
        if package == name:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
sys.argv[0] = "evergrad"  # its script
from evergrad.cli import main
main()
"""
    command = [sys.executable, "-c", code, package, "info"]
    run = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "evergrad: interrupted\n")


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


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (2.2, "Forgetting: prose needs 10.0 % more bits than before."),
        (2.0001, "Nothing forgotten: prose needs as many bits as before."),
        (1.9, "Nothing forgotten: prose needs 5.0 % fewer bits than before."),
        (math.nan, "Forgetting: prose needs nan % more bits than before."),
    ],
)
def test_forgetting_in_words(after, words):
    from evergrad.cli._show import sentences

    report = Report(
        kind="adapt", domain="code", retained=["prose"], before={"prose": 2.0, "code": 4.0},
        after={"prose": after, "code": 3.0}, scores=ScoreMatrix(),
    )  # fmt: skip
    assert sentences(report) == ["Progress: code needs 25.0 % fewer bits than before.", words]


def test_changes_in_words():
    from evergrad.cli._show import more_or_fewer, percent

    assert more_or_fewer(0.0123) == "1.2 % more bits than before"
    assert more_or_fewer(-0.2) == "20.0 % fewer bits than before"
    assert more_or_fewer(-0.0004) == more_or_fewer(0.0) == "as many bits as before"
    assert [percent(x) for x in (-0.0004, 0.0123, -0.2)] == ["+0.0 %", "+1.2 %", "-20.0 %"]


@pytest.mark.parametrize("width", [10, 45, 80])
def test_tables_keep_words_and_numbers_whole_at_any_width(monkeypatch, width):
    from evergrad.cli import _show

    monkeypatch.setattr(_show.out, "width", width)
    made = _show.table("text", "before", "after", "change")
    made.columns[3].no_wrap = False
    made.add_row("q" * 90, "1.234 bits", "0.123 bits", "+1.2 %, -3.4 %")
    with _show.out.capture() as seen:
        _show.show(made)
    assert seen.get().count("q") == 90
    for word in ("before", "after", "change", "1.234 bits", "0.123 bits", "+1.2", "-3.4"):
        assert word in seen.get()
