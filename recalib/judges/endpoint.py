"""Judging by a chat model behind an OpenAI-compatible endpoint, with the rubric in `rubric.md`."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recalib.artifact import atomic
from recalib.errors import JudgeError, UsageError
from recalib.judges.judge import Answer, Outcome, Verdict

OPENAI_URL = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
WORKERS = 8
RETRIES = 4
TIMEOUT = 120.0
LONGEST = 4000
"""Characters of a prompt or a completion that are sent; whether it refuses shows long before."""

OUTPUT_TOKENS = 12
_OUTCOMES = {"refused": Outcome.REFUSED, "complied": Outcome.COMPLIED, "unclear": Outcome.NOT_JUDGED}


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    tokens_in: float
    tokens_out: float


@dataclass(frozen=True)
class _Reply:
    """What came of one request: the model's verdict, or what went wrong; only the former is kept."""

    outcome: Outcome | None
    problem: str | None = None


class EndpointJudge:
    """Asks a model at `url`, several requests side by side; each answer is kept below `cache` by its content's hash.

    The API key is read from the environment, OPENAI_API_KEY; servers of one's own often need none. `note`
    is told what a run will cost before it starts. Raises UsageError where the key, the package or a proper
    URL is missing.
    """

    def __init__(
        self, model: str, url: str | None, cache: Path, note: Callable[[str], None], price: Price | None = None
    ):
        self.name = f"openai:{model}"
        self._model = model
        self._url = _checked(url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self._cache = cache
        self._note = note
        self._price = price
        self._rubric = files("recalib.judges").joinpath("rubric.md").read_text(encoding="utf-8")
        key = os.environ.get(KEY_VARIABLE)
        if key is None and self._url == OPENAI_URL:
            raise UsageError(f"--judge {self.name}: {KEY_VARIABLE} is not set", fix=f"export {KEY_VARIABLE}=...")
        self._key = key or "none"
        self._client = _client(self._url, self._key)

    def judge(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict an answer, in order. Raises JudgeError if the endpoint answers none of the requests."""
        questions = [_question(answer) for answer in answers]
        wanted = {self._address(question): question for question in questions}
        replies = {address: reply for address in wanted if (reply := self._kept(address)) is not None}
        missing = {address: question for address, question in wanted.items() if address not in replies}
        if missing:
            self._note(self._announcement(len(wanted), list(missing.values())))
            asked = self._ask_all(missing)
            problems = [reply.problem for reply in asked if reply.outcome is None]
            if len(problems) == len(missing):
                raise JudgeError(
                    f"--judge {self.name}: no verdict from {self._url}: {problems[0]}", fix=_fix(self._url)
                )
            if problems:
                self._note(f"{self.name}: {len(problems)} not judged, the last because of: {problems[-1]}")
            replies |= dict(zip(missing, asked, strict=True))
        return [self._verdict(replies[self._address(question)]) for question in questions]

    def _verdict(self, reply: _Reply) -> Verdict:
        if reply.outcome is None:
            return Verdict(Outcome.NOT_JUDGED, self.name, why=reply.problem)
        why = "the judge finds it unclear" if reply.outcome is Outcome.NOT_JUDGED else None
        return Verdict(reply.outcome, self.name, why=why)

    def _ask_all(self, missing: Mapping[str, str]) -> list[_Reply]:
        pool = ThreadPoolExecutor(WORKERS)
        try:
            return list(pool.map(self._ask, missing, missing.values()))
        finally:
            # interrupted, or a key rejected: what waits is not sent any more
            pool.shutdown(cancel_futures=True)

    def _ask(self, address: str, question: str) -> _Reply:
        """Ask, and keep the answer. Raises JudgeError for what more requests would not mend."""
        import openai

        try:
            reply = self._attempts(question)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            problem = self._scrub(error)
            raise JudgeError(f"--judge {self.name}: {self._url} rejects the key: {problem}", fix=KEY_VARIABLE) from None
        except openai.APIStatusError as error:
            return _Reply(None, f"HTTP {error.status_code}: {self._scrub(error)}")
        except openai.OpenAIError as error:  # a dropped or refused connection, a timeout
            return _Reply(None, f"{type(error).__name__}: {self._scrub(error)}")
        if reply.outcome is not None:
            with atomic(self._path(address)) as handle:
                json.dump({"judge": self.name, "outcome": reply.outcome}, handle)
        return reply

    def _attempts(self, question: str) -> _Reply:
        """The client itself retries refused, dropped and overloaded requests; here, what it cannot read."""
        problem = ""
        for _ in range(1 + RETRIES):
            try:
                answer = self._complete(question)
            except (ValueError, AttributeError, IndexError, TypeError) as error:
                problem = f"malformed response ({type(error).__name__})"
                continue
            if (outcome := parse(answer)) is not None:
                return _Reply(outcome)
            problem = "the model's answer holds no verdict"
        return _Reply(None, problem)

    def _complete(self, question: str) -> str:
        import openai

        messages = [{"role": "system", "content": self._rubric}, {"role": "user", "content": question}]
        try:
            response = self._client.chat.completions.create(model=self._model, messages=messages, temperature=0)
        except openai.BadRequestError as error:
            if "temperature" not in str(error):
                raise
            # some hosted models allow no temperature but their own
            response = self._client.chat.completions.create(model=self._model, messages=messages)
        return str(response.choices[0].message.content)

    def _announcement(self, total: int, questions: Sequence[str]) -> str:
        """How much there is to ask; about four bytes of UTF-8 make a token."""
        tokens_in = sum(len(self._rubric.encode()) + len(question.encode()) for question in questions) // 4
        tokens_out = OUTPUT_TOKENS * len(questions)
        text = (
            f"{self.name}: {len(questions)} requests to {self._url}, {total - len(questions)} answers known; "
            f"about {tokens_in:,} tokens in, {tokens_out:,} out"
        )
        if self._price is None:
            return f"{text} (--judge-price IN,OUT shows the cost in dollars)"
        cost = (tokens_in * self._price.tokens_in + tokens_out * self._price.tokens_out) / 1e6
        return f"{text}: about ${cost:.2f}"

    def _address(self, question: str) -> str:
        """What identifies a request: where, which model, which rubric, what about."""
        return hashlib.sha256(json.dumps([self._url, self._model, self._rubric, question]).encode()).hexdigest()

    def _path(self, address: str) -> Path:
        return self._cache / address[:2] / f"{address}.json"

    def _kept(self, address: str) -> _Reply | None:
        """The answer kept; one that cannot be read is asked for again."""
        try:
            return _Reply(Outcome(json.loads(self._path(address).read_text(encoding="utf-8"))["outcome"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _scrub(self, error: Exception) -> str:
        """The error's first line without the key, which servers like to repeat."""
        line = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        return line.replace(self._key, "***") if self._key != "none" else line


def parse(answer: str) -> Outcome | None:
    """The verdict in a model's answer, whatever stands around the JSON object; None without one.

    What a reasoning model thinks before it answers is left out; of several objects the last counts.
    """
    said = re.sub(r"<think>.*?(</think>|$)", "", answer, flags=re.DOTALL)
    for found in reversed(re.findall(r"\{[^{}]*\}", said)):
        try:
            verdict = json.loads(found).get("verdict")
        except ValueError:
            continue
        if isinstance(verdict, str) and verdict.lower() in _OUTCOMES:
            return _OUTCOMES[verdict.lower()]
    return None


def _question(answer: Answer) -> str:
    prompt = None if answer.prompt is None else answer.prompt[:LONGEST]
    fields = {"prompt": prompt, "language": answer.language, "completion": answer.completion[:LONGEST]}
    return json.dumps(fields, ensure_ascii=False)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("--judge-url is not an http or https address", fix="as in http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        # it would be printed, and kept in the shell's history
        raise UsageError("--judge-url holds credentials or a query", fix=f"put the key into {KEY_VARIABLE}")
    return url.rstrip("/")


def _client(url: str, key: str) -> Any:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise UsageError("--judge openai:... needs the openai package", fix="pip install 'recalib[openai]'") from error
    return OpenAI(base_url=url, api_key=key, max_retries=RETRIES, timeout=TIMEOUT)


def _fix(url: str) -> str:
    return f"is {url} the right --judge-url, and is the model served there?"
