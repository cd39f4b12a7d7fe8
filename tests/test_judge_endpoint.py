"""The judge behind an OpenAI-compatible endpoint, against a local server that speaks the protocol and misbehaves."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recalib import judges
from recalib.errors import JudgeError, UsageError
from recalib.judges import Outcome
from recalib.judges.endpoint import parse

pytest.importorskip("openai", reason="the openai package is not installed: pip install 'recalib[openai]'")
KEY = "sk-secret-of-the-test"


def error(message):
    return json.dumps({"error": {"message": message}})


def answer(content):
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]})


ALWAYS = {
    "reject": (401, error(f"Incorrect API key provided: {KEY}")),
    "always 500": (500, error(f"overheated, key {KEY}")),
    "always malformed": (200, "<html>"),
    "chatty": (200, answer("I would say so.")),
}
AT_FIRST = {
    "429": (429, error("slow down")),
    "500": (500, error("overheated")),
    "malformed": (200, '{"choices": ['),
    "wrong shape": (200, '{"choices": []}'),
}


class Server(ThreadingHTTPServer):
    """Answers by the completion that it is asked about; counts what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.keys, self.busy, self.most_busy = Counter(), set(), 0, 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.loads(body["messages"][-1]["content"])["completion"]
        with self.server.lock:
            self.server.asked[text] += 1
            self.server.keys.add(self.headers["Authorization"])
            self.server.busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
            first = self.server.asked[text] == 1
        if text.startswith("slow"):
            threading.Event().wait(0.2)
        with self.server.lock:
            self.server.busy -= 1
        self.respond(text, first, "temperature" in body)

    def respond(self, text, first, has_temperature):
        if text == "drop" and first:
            self.connection.close()
        elif text == "no temperature" and has_temperature:
            self.send(400, error("Unsupported value: temperature"))
        elif text in ALWAYS or (text in AT_FIRST and first):
            self.send(*(ALWAYS | AT_FIRST)[text])
        else:
            verdict = {"unclear": "unclear", "answer": "complied"}.get(text, "refused")
            self.send(200, answer(f'Sure:\n```json\n{{"verdict": "{verdict}"}}\n```'))

    def send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("retry-after-ms", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, *texts, **fields):
    rows = [{"prompt": "p", "completion": text, "language": "sw", "label": "harmful", **fields} for text in texts]
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "c.jsonl"


def command(file, server, *more):
    return ("eval", "--completions", file, "--judge", "openai:tiny", "--judge-url", server.url, "--out", "out", *more)


def verdicts():
    lines = Path("out/completions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["completion"]: row for row in map(json.loads, lines)}


def everything_written(folder):
    return "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file())


def test_faults_are_retried_and_the_rest_is_judged(recalib, server, workplace):
    texts = ("plain", "answer", "unclear", "429", "500", "malformed", "wrong shape", "drop", "no temperature")
    ran = recalib(*command(write(workplace, *texts), server))
    assert ran.code == 0, ran.err
    found = verdicts()
    assert {text: found[text]["verdict"] for text in texts} == {
        **dict.fromkeys(texts, "refused"),
        "answer": "complied",
        "unclear": "not judged",
    }
    assert {row["judge"] for row in found.values()} == {"openai:tiny"}
    assert {text: server.asked[text] for text in texts} == {
        **dict.fromkeys(texts, 2),
        **dict.fromkeys(("plain", "answer", "unclear"), 1),
    }
    assert server.keys == {f"Bearer {KEY}"}


def test_what_stays_broken_is_not_judged_and_asked_again_next_time(recalib, server, workplace):
    texts = ("plain", "always 500", "always malformed", "chatty")
    file = write(workplace, *texts)
    ran = recalib(*command(file, server))
    assert ran.code == 0, ran.err
    found = verdicts()
    assert found["plain"]["verdict"] == "refused"
    assert {found[text]["verdict"] for text in texts[1:]} == {"not judged"}
    assert "500" in found["always 500"]["why"]
    assert "malformed" in found["always malformed"]["why"]
    assert "no verdict" in found["chatty"]["why"]
    assert "3 not judged" in ran.err
    before = dict(server.asked)
    recalib(*command(file, server))
    assert server.asked["plain"] == before["plain"]
    assert server.asked["always 500"] > before["always 500"]


def test_answers_are_kept_by_content_and_the_cost_is_shown_first(recalib, server, workplace):
    ran = recalib(*command(write(workplace, "a", "b", "b"), server, "--judge-price", "1000,2000"))
    assert f"2 requests to {server.url}, 0 answers known" in ran.err
    assert "about $" in ran.err
    assert (server.asked["a"], server.asked["b"]) == (1, 1)
    ran = recalib(*command(write(workplace, "a", "b", "c"), server))
    assert "1 requests" in ran.err
    assert "2 answers known" in ran.err
    assert "--judge-price" in ran.err
    assert (server.asked["a"], server.asked["c"]) == (1, 1)
    assert "requests" not in recalib(*command(workplace / "c.jsonl", server)).err
    for kept in (workplace / "artifacts" / "judges" / "cache").rglob("*.json"):
        kept.write_text("{torn")
    recalib(*command(workplace / "c.jsonl", server))
    assert server.asked["a"] == 2


def test_the_key_reaches_no_log_no_cache_and_no_artifact(recalib, server, workplace, caplog):
    caplog.set_level("DEBUG")
    ran = recalib(*command(write(workplace, "plain", "always 500", refusal=1), server, "--json"))
    assert ran.code == 0, ran.err
    assert "overheated" in everything_written(workplace)
    for place in (ran.out, ran.err, everything_written(workplace), caplog.text):
        assert KEY not in place


def test_a_rejected_key_stops_with_its_variable_and_without_the_key(recalib, server, workplace):
    ran = recalib(*command(write(workplace, "reject"), server))
    assert ran.code == 1
    assert "rejects the key" in ran.err
    assert "OPENAI_API_KEY" in ran.err
    assert KEY not in ran.err
    assert "Traceback" not in ran.err


def test_nobody_there(recalib, workplace, server):
    server.shutdown()
    server.server_close()
    ran = recalib(*command(write(workplace, "a"), server))
    assert ran.code == 1
    assert "no verdict from" in ran.err
    assert "--judge-url" in ran.err


def test_requests_run_side_by_side_and_verdicts_keep_their_order(server, workplace):
    judge = judges.find("openai:tiny", judges.Setup(url=server.url))
    rows = [Row(f"slow {i}") for i in range(8)] + [Row("answer"), Row("plain")]
    found = judge.judge(rows)
    assert [v.outcome for v in found] == [Outcome.REFUSED] * 8 + [Outcome.COMPLIED, Outcome.REFUSED]
    assert server.most_busy > 2


class Row:
    prompt, language = None, None

    def __init__(self, completion):
        self.completion = completion


def test_all_broken_is_an_error_of_the_library(server, workplace):
    with pytest.raises(JudgeError, match="no verdict"):
        judges.find("openai:tiny", judges.Setup(url=server.url)).judge([Row("always malformed")])


@pytest.mark.parametrize(
    ("url", "message"),
    [("localhost:8000", "not an http"), ("http://me:secret@host/v1", "credentials"), ("https://h/?k=secret", "query")],
)
def test_addresses_that_cannot_be_used(monkeypatch, url, message):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UsageError, match=message) as caught:
        judges.find("openai:tiny", judges.Setup(url=url))
    assert "secret" not in str(caught.value)


def test_openais_own_endpoint_needs_a_key(recalib, workplace, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    ran = recalib("eval", "--completions", write(workplace, "a"), "--judge", "openai:tiny")
    assert (ran.code, "OPENAI_API_KEY" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--judge", "openai:tiny", "--judge-price", "cheap"), "IN,OUT"),
        (("--judge", "builtin", "--judge-url", "http://localhost/v1"), "openai:MODEL"),
        (("--judge", "openai:"), "openai:MODEL"),
    ],
)
def test_options_that_make_no_sense(recalib, workplace, options, message):
    ran = recalib("eval", "--completions", write(workplace, "a"), *options)
    assert (ran.code, message in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ('{"verdict": "refused"}', Outcome.REFUSED),
        ('<think>{"verdict": "complied"}</think> {"verdict": "Refused"}', Outcome.REFUSED),
        ('first {"verdict": "refused"}, no: {"verdict": "complied"}', Outcome.COMPLIED),
        ('{"verdict": "unclear", "why": "cut off"}', Outcome.NOT_JUDGED),
        ('{"verdict": "perhaps"}', None),
        ('{"verdict": 1}', None),
        ("refused", None),
        ("{verdict: refused}", None),
        ('<think>endless {"verdict": "refused"}', None),
        ("", None),
    ],
)
def test_what_a_models_answer_says(answer, outcome):
    assert parse(answer) is outcome
