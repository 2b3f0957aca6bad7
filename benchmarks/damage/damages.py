"""Ways to damage a file. Each takes the copy and a generator, changes the copy, and says what it did."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers filters)
import numpy as np

Damage = Callable[[Path, np.random.Generator], str]
BLOCK = 512


# ---- bytes -----------------------------------------------------------------------------------------------------------
def random_bytes(path: Path, rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    n = int(rng.choice([1, 4, 16, 64]))
    places = rng.integers(0, len(content), n)
    if rng.random() < 0.5:  # near each other, and near the beginning, where the structure is
        places = np.minimum(places[0] % min(len(content), 20_000) + np.arange(n), len(content) - 1)
    for place in places.tolist():
        content[place] = int(rng.integers(256))
    path.write_bytes(content)
    return f"{n} random bytes at {places[0]}"


def zero_block(path: Path, rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    size = int(rng.choice([BLOCK, BLOCK, 4096]))
    at = int(rng.integers(max(len(content) // BLOCK, 1))) * BLOCK
    content[at : at + size] = bytes(len(content[at : at + size]))
    path.write_bytes(content)
    return f"{size} zeros at {at}"


def truncation(path: Path, rng: np.random.Generator) -> str:
    content = path.read_bytes()
    n = int(rng.integers(len(content))) if rng.random() < 0.8 else len(content) - int(rng.integers(1, 100))
    path.write_bytes(content[: max(n, 0)])
    return f"cut to {n} of {len(content)} bytes"


def swapped_blocks(path: Path, rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    one, two = (int(i) * BLOCK for i in rng.integers(max(len(content) // BLOCK, 1), size=2))
    size = min(BLOCK, len(content) - max(one, two))
    first, second = content[one : one + size], content[two : two + size]
    content[one : one + size], content[two : two + size] = second, first
    path.write_bytes(content)
    return f"blocks at {one} and {two} swapped"


def more_bytes(path: Path, rng: np.random.Generator) -> str:
    n = int(rng.choice([1, 100, 10_000]))
    with open(path, "ab") as stream:
        stream.write(rng.bytes(n))
    return f"{n} bytes appended"


BYTES: tuple[Damage, ...] = (random_bytes, zero_block, truncation, swapped_blocks, more_bytes)


# ---- HDF5 ------------------------------------------------------------------------------------------------------------
_ODD_ATTRIBUTES = (-1, 2**62, 1e300, float("nan"), "", "x" * 70_000, b"\xff\xfe", np.arange(3), h5py.Empty("f4"), True)


def _nodes(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def deleted_node(path: Path, rng: np.random.Generator) -> str:
    with h5py.File(path, "a") as file:
        name = str(rng.choice(_nodes(file)))
        del file[name]
    return f"{name} deleted"


def replaced_node(path: Path, rng: np.random.Generator) -> str:
    with h5py.File(path, "a") as file:
        name = str(rng.choice(_nodes(file)))
        del file[name]
        kind = int(rng.integers(6))
        if kind == 0:
            file.create_group(name)
        elif kind == 1:
            file[name] = "a text"
        elif kind == 2:
            file.create_dataset(name, (10**13,), "f8", chunks=(1 << 16,))
        elif kind == 3:
            file[name] = h5py.Empty("f4")
        elif kind == 4:
            file[name] = h5py.SoftLink(f"/{name}")
        else:
            file[name] = np.zeros((2, 3, 4), complex)
    return f"{name} replaced by kind {kind}"


def odd_attribute(path: Path, rng: np.random.Generator) -> str:
    with h5py.File(path, "a") as file:
        owners = [node for node in [file, *(file[name] for name in _nodes(file))] if len(node.attrs)]
        node = owners[int(rng.integers(len(owners)))]
        name = str(rng.choice(list(node.attrs)))
        if rng.random() < 0.3:
            del node.attrs[name]
            return f"attribute {name} of {node.name} deleted"
        value = _ODD_ATTRIBUTES[int(rng.integers(len(_ODD_ATTRIBUTES)))]
        if isinstance(value, str) and len(value) > 60_000:
            value = value[:60_000]
        node.attrs[name] = value
    return f"attribute {name} of {node.name} is {value!r:.40}"


def odd_column(path: Path, rng: np.random.Generator) -> str:
    """A column (or array) that is missing, of another type, shorter, or has impossible values."""
    with h5py.File(path, "a") as file:
        names = [name for name in _nodes(file) if isinstance(file[name], h5py.Dataset) and file[name].size]
        name = str(rng.choice(names))
        data, attributes = file[name][()], dict(file[name].attrs)
        columns = list(data.dtype.names or ())
        what = int(rng.integers(5))
        column = str(rng.choice(columns)) if columns else None
        changed = _changed(data, column, what, rng)
        del file[name]
        file[name] = changed
        file[name].attrs.update(attributes)
    return f"{name}.{column}: change {what}"


def _changed(data: Any, column: str | None, what: int, rng: np.random.Generator) -> Any:
    """Change 0 drops the column, 1 turns it into text, 2 shortens the table, 3 and 4 put NaN and huge numbers in it."""
    data = np.asarray(data)
    if what == 2 or data.ndim == 0:
        return data[: len(data) // 2] if data.ndim else data
    if column is None:
        values = data.astype(float) if data.dtype.kind in "iuf" else data
        return values.astype("S8") if what < 2 else _odd_values(values, what, rng)
    kept = [name for name in data.dtype.names if what != 0 or name != column]
    parts = {name: data[name] for name in kept}
    if what == 1:
        parts[column] = np.full(len(data), b"text")
    elif what > 2:
        parts[column] = _odd_values(data[column], what, rng)
    result = np.zeros(data.shape, [(name, part.dtype, part.shape[1:]) for name, part in parts.items()])
    for name, part in parts.items():
        result[name] = part
    return result


def _odd_values(values: np.ndarray, what: int, rng: np.random.Generator) -> np.ndarray:
    values = values.copy()
    rows = rng.integers(len(values), size=max(len(values) // 4, 1))
    if values.dtype.kind == "f":
        values[rows] = np.nan if what == 3 else -1e30
    elif values.dtype.kind in "iu":
        values[rows] = np.iinfo(values.dtype).max if what == 3 else np.iinfo(values.dtype).min
    return values


# ---- FITS ------------------------------------------------------------------------------------------------------------
_ODD_CARDS = ("-1", "0", "10000000000", "99", "T", "'text'", "1E300", "NaN", "", "''", "1.5", "-64")


def odd_card(path: Path, rng: np.random.Generator) -> str:
    """The value of one card replaced in place; half of the time a card of the structure."""
    content = bytearray(path.read_bytes())
    places = [at for at in range(0, len(content) - 80, 80) if content[at + 8 : at + 10] == b"= "]
    structural = (b"NAXIS", b"BITPIX", b"PCOUNT", b"GCOUNT", b"TFORM", b"TFIELDS", b"Z", b"XTENSION", b"B", b"GAIN")
    own = [at for at in places if bytes(content[at : at + 8]).startswith(structural)]
    chosen = own if own and rng.random() < 0.6 else places
    if not chosen:
        return random_bytes(path, rng)
    at = chosen[int(rng.integers(len(chosen)))]
    value = str(rng.choice(_ODD_CARDS))
    content[at + 10 : at + 80] = f"{value:>20}".encode().ljust(70)
    path.write_bytes(content)
    return f"card {bytes(content[at : at + 8]).decode(errors='replace').strip()} = {value}"


# ---- JSON and YAML ---------------------------------------------------------------------------------------------------
_ODD_VALUES = (None, -1, 0, 10**40, 1e308, float("nan"), "", "../x", "/dev/zero", "a\0b", [], {}, [[]], True, "\ud800")


def odd_value(path: Path, rng: np.random.Generator) -> str:
    """One value of a JSON file replaced or deleted; YAML is read as such, and written as JSON, which is YAML."""
    import yaml

    content = yaml.safe_load(path.read_text())
    owners = list(_containers(content))
    owner = owners[int(rng.integers(len(owners)))]
    key = rng.choice(list(owner)) if isinstance(owner, dict) else int(rng.integers(len(owner)))
    key = str(key) if isinstance(owner, dict) else key
    if rng.random() < 0.25:
        del owner[key]
        text = f"{key} deleted"
    else:
        owner[key] = _ODD_VALUES[int(rng.integers(len(_ODD_VALUES)))]
        text = f"{key} = {owner[key]!r:.30}"
    path.write_text(json.dumps(content))
    return text


def odd_text(path: Path, rng: np.random.Generator) -> str:
    """A whole file of JSON or YAML that is none, or a bomb."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
    )
    texts = ["", "\n", "# nothing\n", "[" * 100_000, '{"a":' * 100_000, "\t", "null", "3", bomb, "{", "a: 1\na: 2\n"]
    texts += ["\ufeff", "x" * 10_000_000, "9" * 5000]
    number = int(rng.integers(len(texts)))
    path.write_text(texts[number])
    return f"text {number}"


def _containers(content: Any) -> Iterator[Any]:
    if isinstance(content, dict | list) and content:
        yield content
        for value in content.values() if isinstance(content, dict) else content:
            yield from _containers(value)


STRUCTURES: dict[str, tuple[Damage, ...]] = {
    "": (),
    "hdf5": (deleted_node, replaced_node, odd_attribute, odd_column, odd_column),
    "fits": (odd_card, odd_card),
    "json": (odd_value, odd_value, odd_text),
    "yaml": (odd_value, odd_text),
}


def damage(path: Path, structure: str, rng: np.random.Generator) -> str:
    """Damage a file, or one of the files in a folder, in one way; half of the ways respect its format."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size)
        path = files[int(rng.integers(len(files)))]
        structure = "json" if path.suffix == ".json" else "hdf5" if path.suffix == ".h5" else ""
    ways = STRUCTURES[structure]
    if ways and rng.random() < 0.5:
        return f"{path.name}: {ways[int(rng.integers(len(ways)))](path, rng)}"
    return f"{path.name}: {BYTES[int(rng.integers(len(BYTES)))](path, rng)}"
