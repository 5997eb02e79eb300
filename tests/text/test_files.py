"""Whatever bytes real files have, the rows in them are the same; what is no file of rows is called by its name."""

import codecs
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mneme.errors import BadRows
from mneme.text.files import entries_of, split_lines
from mneme.text.reading import MOST_SKIPPED, SKIPPED_ROWS, read_shaped, skipped_rows
from mneme.text.shapes import training_row

ROWS = [
    {"prompt": "ba be", "completion": "bi\u2028bo"},
    {"prompt": 'naïve, "quoted"', "completion": "two\nlines\u0085 and \x0c"},
    {"prompt": "你好 🙂", "completion": "da"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def _csv(separator: str) -> bytes:
    made = io.StringIO()
    writer = csv.DictWriter(made, ["prompt", "completion"], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return made.getvalue().encode()


def _parquet() -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), made)
    return made.getvalue()


WRITTEN: dict[str, Callable[[], bytes]] = {
    "plain.jsonl": lambda: LINES.encode(),
    "escaped.jsonl": lambda: "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "crlf.jsonl": lambda: LINES.replace("\n", "\r\n").encode(),
    "cr.jsonl": lambda: LINES.replace("\n", "\r").encode(),
    "blank.jsonl": lambda: LINES.replace("\n", "\n\n \n").encode(),
    "no end.jsonl": lambda: LINES.strip().encode(),
    "bom.jsonl": lambda: codecs.BOM_UTF8 + LINES.encode(),
    "utf16.jsonl": lambda: LINES.encode("utf-16"),
    "utf16be.jsonl": lambda: codecs.BOM_UTF16_BE + LINES.encode("utf-16-be"),
    "utf32.jsonl": lambda: LINES.encode("utf-32"),
    "no name": lambda: LINES.encode(),
    "array.json": lambda: json.dumps(ROWS).encode(),
    "indented.json": lambda: json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "array.jsonl": lambda: json.dumps(ROWS).encode(),
    "inside.json": lambda: json.dumps({"version": "1", "data": ROWS}, indent=1).encode(),
    "comma.csv": lambda: _csv(","),
    "semicolon.csv": lambda: _csv(";"),
    "marked.csv": lambda: codecs.BOM_UTF8 + _csv(","),
    "tabs.tsv": lambda: _csv("\t"),
    "table.parquet": _parquet,
    "parquet without its name": _parquet,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_rows_are_the_same_however_they_were_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITTEN[name]())
    assert [entry.row for entry in entries_of(tmp_path / name)] == ROWS


def test_utf16_without_a_mark(tmp_path: Path) -> None:
    rows = [{"text": "plain words of a language with letters"}] * 3
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for encoding in ("utf-16-le", "utf-16-be"):
        (tmp_path / "a.jsonl").write_bytes(text.encode(encoding))
        assert [entry.row for entry in entries_of(tmp_path / "a.jsonl")] == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl.gz", gzip.compress(b"{}", mtime=0), r"is compressed with gzip. Unpack it"),
        ("a.csv", b"PK\x03\x04rest", r"a zip archive or an Excel workbook"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", r"a pointer of Git LFS and not the data"),
        ("a.parquet", b"PAR1 not really", r"cannot be read as parquet"),
        ("a.jsonl", b"\x00\x01\x02" * 50, r"is binary \(a zero byte at 0\)"),
        ("a.jsonl", "{'a': 'café'}".encode("latin-1"), r"is not UTF-8: byte 0xe9 at offset 10. Convert it.*iconv"),
        ("a.json", b'[{"a": 1},', r"begins like a JSON array and is not JSON"),
        ("a.csv", b"1,1\n2,3\n", r"has no header: its first line is '1,1'"),
        ("a.jsonl", b"  \n", r"is empty"),
    ],
)
def test_what_is_no_file_of_rows_is_called_by_its_name(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRows, match=words):
        list(entries_of(tmp_path / name))


def test_a_bad_record_stands_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": \n[1]\n{"text": "b"}\n')
    found = list(entries_of(tmp_path / "a.jsonl"))
    assert [(entry.place, entry.row is None) for entry in found] == [
        *(("line 1", False), ("line 2", True)),
        *(("line 3", True), ("line 4", False)),
    ]
    (tmp_path / "a.csv").write_text('text,id\n"one\ntwo",1\nthree\nfour,4\n')
    found = list(entries_of(tmp_path / "a.csv"))
    assert [(entry.place, entry.fault) for entry in found] == [
        ("line 2", ""),
        ("line 4", "1 cells under a header of 2"),
        ("line 5", ""),
    ]


def test_only_line_ends_end_a_line() -> None:
    assert split_lines("a\nb\r\nc\rd\u2028e\x0bf\u0085g") == ["a", "b", "c", "d\u2028e\x0bf\u0085g"]


def _file(tmp_path: Path, rows: int, bad: int) -> Path:
    made: list[dict[str, Any]] = [{"prompt": f"ba {i}", "completion": "bi" if i >= bad else ""} for i in range(rows)]
    file = tmp_path / f"{rows}-{bad}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return file


def test_a_few_bad_rows_of_a_large_file_are_skipped_and_listed(tmp_path: Path) -> None:
    rows = 400
    most = int(rows * MOST_SKIPPED)
    found = read_shaped(_file(tmp_path, rows, most), training_row, "")
    assert (len(found.rows), len(found.skipped)) == (rows - most, most)
    assert f"{most} bad skipped, the first at line 1" in found.told()
    listed = [json.loads(line) for line in skipped_rows(found, None)[SKIPPED_ROWS].decode().splitlines()]
    assert [one["place"] for one in listed] == [f"line {i}" for i in range(1, most + 1)]
    assert "empty answer" in listed[0]["reason"]
    with pytest.raises(BadRows, match=rf"line 1: has an empty answer.* {most + 1} of {rows} rows cannot be used; at most 1%"):
        read_shaped(_file(tmp_path, rows, most + 1), training_row, "")
    clean = read_shaped(_file(tmp_path, 3, 0), training_row, "")
    assert skipped_rows(clean) == {}


@pytest.mark.parametrize("form", ["lines", "array"])
def test_half_a_character_is_no_text_and_stands_as_such(tmp_path: Path, form: str) -> None:
    row = '{"text": "ba \\ud83d be", "mes\\uD83Dsages": [{"content": "\\ud83d\\ude42 \\udc00"}]}'
    file = tmp_path / "rows.json"
    file.write_text(row if form == "lines" else f"[{row}]", encoding="utf-8")
    (entry,) = entries_of(file)
    assert entry.row == {"text": "ba \ufffd be", "mes\ufffdsages": [{"content": "\U0001f642 \ufffd"}]}
