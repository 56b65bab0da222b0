"""README, docs/ and the `__init__` of folders name what is there: links, files, commands and options, config keys.

What the pages say about these things is for people to check.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.schema import Config
from configs.section import Section

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "RESULTS.md", *ROOT.glob("docs/*.md")]
FOLDERS = ("configs", "embeddings", "models", "cluster", "trainer", "tests", "benchmarks", "docs")
NAMED = ("features", "tables", "tasks")  # sections whose keys carry a name: tasks.click.loss

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def code(page: Path) -> Iterator[str]:
    """What stands in backticks, a line of a block at a time, before a comment."""
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
        elif inside:
            yield line.split(" #")[0]
        else:
            yield from re.findall(r"`([^`]+)`", line)


@each_page
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [target.split("#")[0] for target in targets if "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


@each_page
def test_paths_are_there(page: Path) -> None:
    pattern = rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w/.*-]*"
    paths = {path.rstrip(".") for text in code(page) for path in re.findall(pattern, text)}
    folders = {path.rsplit("/", 1)[0] for path in paths if "NAME" in path}
    missing = [path for path in paths | folders if "NAME" not in path and not any(ROOT.glob(path.rstrip("/")))]
    assert not missing


@each_page
def test_commands_run_modules_that_are_there(page: Path) -> None:
    sources = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "trainer" / "commands").glob("*.py")}
    shared = sources["options"]
    for text in code(page):
        for benchmark in re.findall(r"python -m (benchmarks\.\w+)", text):
            module = ROOT / benchmark.replace(".", "/")
            assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), text
        for command, rest in re.findall(r"python -m trainer ([a-z]\w*)([^`&|]*)", text):
            assert command in sources, text
            for option in re.findall(r"--([a-z][\w-]*)", rest):
                known = sources[command] + shared
                assert f'"--{option}"' in known or re.search(rf"\b{option.replace('-', '_')}:", known), text


def keys(section: type[Section], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        for kind in re.findall(r"\b\w+\b", str(field.annotation).replace(".", " ")):
            nested = {cls.__name__: cls for cls in sections()}.get(kind)
            if nested is not None:
                yield from keys(nested, f"{prefix}{name}." if prefix or name not in NAMED else f"{name}.*.")


def sections(cls: type = Section) -> list[type[Section]]:
    return [found for child in cls.__subclasses__() for found in (child, *sections(child))]


KEYS = set(keys(Config, ""))


def test_keys_of_the_config_are_known_here() -> None:
    assert {"data.lanes", "tasks.*.weight", "tables.*.sharding", "features.*.transform", "data.generate.kind"} <= KEYS


@each_page
def test_keys_are_in_the_config(page: Path) -> None:
    section = "|".join(name for name in Config.model_fields if name not in NAMED)
    plain = rf"(?<![\w./])((?:{section})\.[a-z_]+)(?![\w(/])"
    named = rf"(?<![\w./])({'|'.join(NAMED)})\.(?:\*|NAME|<name>|\w+)\.([a-z_]+)(?![\w(/])"
    written = set()
    for text in code(page):
        if re.search(r"import|\.py\b|model/|optim/|fp(32|16)", text):
            continue  # of modules, saved names and stacked tables
        written |= set(re.findall(plain, text)) | {f"{first}.*.{last}" for first, last in re.findall(named, text)}
    suffixes = (".parquet", ".json", ".yaml", ".txt", ".md", ".onnx")
    assert not [key for key in written if key not in KEYS and not key.endswith(suffixes)]


@pytest.mark.parametrize(
    "name", ["order", "failure", "repeating", "files", "sharding", "losses", "choices", "growing", "deltas", "cluster"]
)
def test_a_page_fits_a_screen_or_two_and_has_a_drawing(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert "```" in text or ".svg" in text


def test_the_readme_has_every_command() -> None:
    defined = re.findall(r'app\.command\("(\w+)"', (ROOT / "trainer" / "cli.py").read_text(encoding="utf-8"))
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = {words.split()[0] for row in rows for words in re.findall(r"`([^`]+)`", row.split("|")[1])}
    assert defined
    assert set(defined) <= named


def test_the_tree_of_the_readme_is_the_tree() -> None:
    _, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The tree")
    tree, wing = set(), ""
    for line in rest.split("```")[1].strip().splitlines():
        names = re.findall(r"([\w]+)/", line)
        if not line.startswith(" "):
            wing = names[0]
            tree.add(wing)
        else:
            tree |= {
                f"{wing}/{name}" for name in names if (ROOT / wing / name).exists() or line.startswith("  " + name)
            }
    assert not [folder for folder in tree if not (ROOT / folder).is_dir()]
    there = {plate.parent.relative_to(ROOT).as_posix() for plate in PLATES}
    assert {folder for folder in there if folder.count("/") < 2} <= tree


PLATES = [
    file
    for wing in ("configs", "embeddings", "models", "cluster", "trainer")
    for file in ROOT.glob(f"{wing}/**/__init__.py")
]


@pytest.mark.parametrize("plate", PLATES, ids=lambda plate: plate.parent.relative_to(ROOT).as_posix())
def test_a_folder_says_what_lies_in_it(plate: Path) -> None:
    text = ast.get_docstring(ast.parse(plate.read_text(encoding="utf-8")))
    assert text, "a few lines: what lies here, in which order to read"
    _, _, order = text.partition("Read: ")
    named = re.findall(r"`([a-z_]+)`", order.split("\n\n")[0])
    missing = [name for name in named if not any((plate.parent / f"{name}{end}").exists() for end in (".py", ""))]
    assert not missing
