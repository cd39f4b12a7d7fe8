"""Prompt sources: what each yields, and what each says of bad input."""

import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recalib import languages, prompts
from recalib.errors import PromptError, UsageError

ROWS = [
    {"prompt": "How do I rob a bank?", "language": "en", "label": "harmful", "split": "train"},
    {"prompt": "How do I bake bread?", "language": "en", "label": "harmless", "split": "train"},
    {"prompt": "Habari ya asubuhi?", "language": "sw", "label": "harmless", "split": "test"},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_dicts(loaded):
    return [{"prompt": p.text, "language": p.language, "label": p.label, "split": p.split} for p in loaded.prompts]


def test_jsonl(tmp_path):
    assert as_dicts(prompts.load(str(write_jsonl(tmp_path / "p.jsonl", ROWS)))) == ROWS


def test_csv_with_quotes_and_line_breaks(tmp_path):
    (tmp_path / "p.csv").write_text('prompt,language,label\n"one, ""two""\nthree",en,1\nfour,en,0\n')
    loaded = prompts.load(str(tmp_path / "p.csv"))
    assert [(p.text, p.label, p.split) for p in loaded.prompts] == [
        ('one, "two"\nthree', "harmful", "train"),
        ("four", "harmless", "train"),
    ]


def test_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "p.parquet")
    assert as_dicts(prompts.load(str(tmp_path / "p.parquet"))) == ROWS


def test_column_mapping(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"text": "x", "lang": "SW", "unsafe": True}])
    loaded = prompts.load(str(path), {"prompt": "text", "language": "lang", "label": "unsafe"})
    assert as_dicts(loaded) == [{"prompt": "x", "language": "sw", "label": "harmful", "split": "train"}]


def test_a_folder_that_datasets_loads(tmp_path):
    """No loading script: data files named after their splits."""
    write_jsonl(tmp_path / "train.jsonl", [{k: row[k] for k in ("prompt", "language", "label")} for row in ROWS[:2]])
    write_jsonl(tmp_path / "test.jsonl", [{k: ROWS[2][k] for k in ("prompt", "language", "label")}])
    assert as_dicts(prompts.load(str(tmp_path))) == ROWS


@pytest.mark.parametrize("nested", [True, False])
def test_polyrefuse_layout(tmp_path, nested):
    translated = tmp_path / "PolyRefuse" if nested else tmp_path / "anything"
    splits = tmp_path / "dataset" / "splits"
    translated.mkdir()
    splits.mkdir(parents=True)

    def put(path, *rows):
        path.write_text(json.dumps(list(rows)), encoding="utf-8")

    put(
        translated / "harmful_test_translated_de.json",
        {"instruction": "english", "instruction_translated": "deutsch"},
    )
    put(translated / "harmless_val_translated_yo.json", {"instruction": "yoruba"})
    put(splits / "harmful_train.json", {"instruction": "from the splits"})
    put(splits / "harmless_val_200_sampled.json", {"instruction": "sampled"})
    put(splits / "xstest.json", {"prompt": "not of this layout"})
    loaded = prompts.load(str(tmp_path if nested else translated))
    assert loaded.texts("de", "test", "harmful") == ["deutsch"]
    assert loaded.texts("yo", "val", "harmless") == ["yoruba"]
    assert loaded.texts("en", "train", "harmful") == ["from the splits"]
    assert loaded.texts("en", "val", "harmless") == ["sampled"]
    assert len(loaded.prompts) == 4


def test_polyrefuse_as_it_lies_upstream(shared):
    loaded = prompts.load(str(shared / "data" / "polyrefuse"))
    assert " ".join(sorted(loaded.languages)) == "ar de en es fr it ja ko nl pl ru th yo zh"
    for language in loaded.languages:
        for split, counts in {"train": (260, 200), "val": (39, 200), "test": (572, 500)}.items():
            harmless = 0 if (language, split) == ("zh", "test") else counts[1]
            assert len(loaded.texts(language, split, "harmful")) == counts[0]
            assert len(loaded.texts(language, split, "harmless")) == harmless
    assert "Verfassen" in loaded.texts("de", "test", "harmful")[0]


def test_starter_is_parallel_in_the_papers_languages():
    loaded = prompts.load("starter")
    assert set(loaded.languages) == set(languages.HIGH + languages.MID + languages.LOW)
    for language in loaded.languages:
        for label in prompts.LABELS:
            train, test = (loaded.texts(language, split, label) for split in ("train", "test"))
            assert (len(train), len(test)) == (8, 8)
            assert len({*train, *test}) == 16
            assert all(unicodedata.is_normalized("NFC", text) for text in train + test)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"prompt": "a", "language": "en", "label": "harmful"}\nnot json\n', r"p\.jsonl:2: not JSON"),
        ("p.jsonl", "[1, 2]\n", r"p\.jsonl:1: a JSON object is needed"),
        ("p.jsonl", '{"prompt": "", "language": "en", "label": "harmful"}\n', r"p\.jsonl:1: column 'prompt' is empty"),
        ("p.jsonl", '{"prompt": "a", "label": "harmful"}\n', r"p\.jsonl:1: column 'language' is missing"),
        ("p.jsonl", '{"prompt": "a", "language": "en", "label": "bad"}\n', r"p\.jsonl:1: .*'bad', not harmful"),
        ("p.jsonl", '{"prompt": "a", "language": "../x", "label": "1"}\n', r"p\.jsonl:1: '\.\./x' is not a language"),
        ("p.jsonl", "", "holds no prompts"),
        ("p.csv", "prompt,language,label\na,en,harmful\nb,en,harmless,extra\n", r"p\.csv:3: more fields"),
        ("p.csv", "prompt,language,label\na,en\n", r"p\.csv:2: column 'label'"),
        ("p.parquet", "no parquet", "not a Parquet file"),
        ("p.xml", "<a/>", "cannot tell the format"),
    ],
)
def test_malformed_files_name_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(PromptError, match=message):
        prompts.load(str(tmp_path / name))


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(PromptError, match="not UTF-8"):
        prompts.load(str(tmp_path / "p.jsonl"))


def test_a_source_that_does_not_exist():
    with pytest.raises(PromptError, match="no such prompt source"):
        prompts.load("nowhere.jsonl")


def test_selecting_languages():
    available = ["en", "de", "sw", "yo", "th"]
    assert languages.select("low,en", available, "x") == ("sw", "yo", "en")
    assert languages.select("all", available, "x") == tuple(available)
    assert languages.select(" SW , sw,low", available, "x") == ("sw", "yo")
    with pytest.raises(UsageError, match="'xx' is not in x, which has: de, en, sw, th, yo"):
        languages.select("en,xx", available, "x")
    with pytest.raises(UsageError, match="selects no language"):
        languages.select("low", ["en"], "x")
