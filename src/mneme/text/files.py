"""Records of any file in which people keep rows: JSON lines, a JSON array, Parquet, CSV or TSV with a header.

What a file is, is told by its bytes rather than by its name. UTF-8 and UTF-16 are read with or without a mark of byte order;
lines end with LF, CRLF or CR, and with nothing else: U+2028 stands inside of strings. What is wrong with one record does not
stop the others: it comes as a `Fault` in its place. Ours.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mneme.errors import BadRows, one_line

Row = dict[str, Any]
TABLES = (".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".tsv")
"""Names that end so hold records; every other file is plain text."""
READABLE = "a .jsonl, .json, .parquet, .csv or .tsv file"
_LINE_END = re.compile(r"\r\n|\r|\n")
_HALF = re.compile("[\ud800-\udfff]")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHERS = (
    (b"\x1f\x8b", "compressed with gzip. Unpack it (gunzip) and give what is inside"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd. Unpack it (zstd -d) and give what is inside"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook. Unpack it, or save the sheet as CSV"),
    (b"ARROW1", "an Arrow file. Write it as Parquet (Dataset.to_parquet)"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the data. Fetch the file itself (git lfs pull)"),
    (b"<!DOCTYPE html", "a web page. Download the file itself (the address of a hub's file has /resolve/ in it, not /blob/)"),
)
"""What a file begins with that holds no records -> what it is."""
_BATCH = 512
"""Rows of Parquet that are read at once. A round number that was never varied."""


class Entry(NamedTuple):
    """One record and where it stands ("line 3", "row 7"); `fault` says why there is none."""

    place: str
    row: Row | None
    fault: str = ""


def entries_of(file: Path, columns: tuple[str, ...] | None = None) -> Iterator[Entry]:
    """The records of a file, one after another; of Parquet only the `columns` that are there (None: all).

    Raises BadRows where the file is not there, is empty, or is as a whole not what can be read.
    """
    if not file.is_file():
        raise BadRows(f"{file} is {'a folder' if file.is_dir() else 'no file'}. Give {READABLE}.")
    with file.open("rb") as opened:
        head = opened.read(64)
    if not head.strip():
        raise BadRows(f"{file} is empty. Give {READABLE} with at least one row.")
    if head.startswith(b"PAR1") or file.suffix == ".parquet":
        return _parquet(file, columns)
    text = text_of(file)
    if file.suffix in {".csv", ".tsv"}:
        return _separated(file, text)
    return _json(file, text)


def text_of(file: Path) -> str:
    """What a file of characters holds, without a mark of byte order. Raises BadRows, with the byte, where it is none."""
    raw = file.read_bytes()
    other = next((what for begins, what in _OTHERS if raw.startswith(begins)), None)
    if other:
        raise BadRows(f"{file} is {other}.")
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), None) or _unmarked(raw)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRows(
            f"{file} is not {'UTF-8' if encoding.startswith('utf-8') else encoding.upper()}: byte {raw[error.start]:#04x} at "
            f"offset {error.start}. Convert it, for instance with: iconv -f latin1 -t utf-8 {file.name}"
        ) from error
    if "\0" in text[:65536]:
        raise BadRows(f"{file} is binary (a zero byte at {raw.index(0)}). Give text, or {READABLE}.")
    return text


def split_lines(text: str) -> list[str]:
    """The lines of a text, whatever system wrote them; U+2028 and its kin are part of a line."""
    return _LINE_END.split(text)


def _unmarked(raw: bytes) -> str:
    """UTF-16 without a mark: every other byte of plain text is zero."""
    head = raw[:512]
    if len(head) >= 2 and len(head) % 2 == 0:
        zeros = [head[start::2].count(0) / (len(head) // 2) for start in (0, 1)]
        if max(zeros) > 0.8 and min(zeros) < 0.1:
            return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    return "utf-8"


def _json(file: Path, text: str) -> Iterator[Entry]:
    """An array, an object that holds one, or an object a line."""
    begins = text.lstrip()[:1]
    lines = split_lines(text)
    first = next((line for line in lines if line.strip()), "")
    if begins == "[" or (begins == "{" and not _is_json(first)):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            if begins == "[" and not _is_json(first):
                raise BadRows(
                    f"{file} begins like a JSON array and is not JSON ({one_line(error)}). Write it again."
                ) from error
        else:
            return _array(file, _whole(whole, text))
    return _json_lines(lines)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _whole(value: Any, written: str) -> Any:
    """A value of JSON whose strings hold whole characters: half of one (an emoji that was cut, as "\\ud83d") is no text, and
    stands as U+FFFD. `written`: the JSON, in which such a half is an escape."""
    if "\\ud" not in written and "\\uD" not in written:
        return value
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(one, written) for one in value]
    if isinstance(value, dict):
        return {_whole(name, written): _whole(one, written) for name, one in value.items()}
    return value


def _array(file: Path, whole: Any) -> Iterator[Entry]:
    rows = whole
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        rows = lists[0] if len(lists) == 1 and not _is_row(whole) else [whole]
    if not rows:
        raise BadRows(f"{file} holds no row. Give {READABLE} with at least one row.")
    return (_object(f"row {number}", row) for number, row in enumerate(rows, 1))


def _is_row(whole: Row) -> bool:
    """An object whose list is a conversation, and not a list of rows."""
    return any(name in whole for name in ("messages", "conversations", "conversation", "chosen", "prompt", "choices"))


def _json_lines(lines: list[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Entry(f"line {number}", None, f"not JSON ({one_line(error)}). Expected one object a line")
            continue
        yield _object(f"line {number}", _whole(row, line))


def _object(place: str, row: Any) -> Entry:
    if isinstance(row, dict):
        return Entry(place, row)
    return Entry(place, None, f"no JSON object but {type(row).__name__}: a row has names")


def _separated(file: Path, text: str) -> Iterator[Entry]:
    """CSV or TSV as RFC 4180 has it, the separator that the header has most of."""
    header = split_lines(text.lstrip())[0]
    separator = "\t" if file.suffix == ".tsv" else max(",;\t", key=header.count)
    csv.field_size_limit(len(text) + 1)  # the library's own bound is 131,072 characters
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names = [name.strip() for name in next(reader, [])]
    if len(set(names)) < len(names) or not all(names):
        raise BadRows(f"{file} has no header: its first line is {header[:80]!r}. Name the columns above the rows.")
    place = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Entry(f"line {reader.line_num}", None, f"not CSV ({one_line(error)})")
            continue
        began, place = place + 1, reader.line_num
        if not cells:
            continue
        if len(cells) != len(names):
            yield Entry(f"line {began}", None, f"{len(cells)} cells under a header of {len(names)}")
            continue
        yield Entry(f"line {began}", dict(zip(names, cells, strict=True)))


def _parquet(file: Path, columns: tuple[str, ...] | None) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        found = opened.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise BadRows(f"{file} cannot be read as parquet ({one_line(error)}). Write it again, or give JSON lines.") from error
    if opened.metadata.num_rows == 0:
        raise BadRows(f"{file} holds no row. Give {READABLE} with at least one row.")
    wanted = [name for name in found if columns is None or name in columns] or found
    return _parquet_rows(opened, wanted)


def _parquet_rows(opened: Any, wanted: list[str]) -> Iterator[Entry]:
    number = 0
    for batch in opened.iter_batches(batch_size=_BATCH, columns=wanted):
        for row in batch.to_pylist():
            number += 1
            yield Entry(f"row {number}", row)
